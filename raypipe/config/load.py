"""Read a YAML configuration into the model of its search; problems come as one line."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from raypipe.config.base import Section
from raypipe.config.sections import SampleSize
from raypipe.errors import UserError

SEARCHES = {
    "contrastive": "contrastive.Config", "haxad": "haxad.HaxadConfig", "multilepton": "multilepton.MultileptonConfig",
    "table": "table.TableConfig", "read": "read.ReadConfig", "none": "simulation.Simulation",
}  # fmt: skip
"""Module and model of every value that the key `search` may have; `contrastive` when a file does not say. By name,
since building all models takes longer than many a command."""


def model_of(search: str) -> type[Section]:
    """The configuration model of a search."""
    module, name = SEARCHES[search].split(".")
    return getattr(importlib.import_module(f"raypipe.config.{module}"), name)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Any:
    """Read a YAML configuration, apply dotted ``overrides`` such as ``flow.epochs=50``, and validate it.

    A file may begin with ``extends: OTHER.yaml``, relative to itself: it then holds only what differs. Sections are
    joined key by key, lists and values replaced.

    Raises:
        UserError: one line naming the file, the key, the value and what is allowed.
    """
    path = Path(path)
    values = _read(path)
    source = str(path)
    for override in overrides:
        _apply(values, override)
        source = f"{path} with overrides"
    search = values.get("search", "contrastive")
    if search not in SEARCHES:
        raise UserError(f"{source}: search = {search!r}: known searches: {', '.join(SEARCHES)}")
    model = model_of(search)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise UserError(_one_line(source, error, model)) from error


def _read(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The values of a file, joined to those of the file that it extends."""
    if not path.is_file():
        raise UserError(f"{path}: no such configuration file" + (f" (extended by {seen[-1]})" if seen else ""))
    if path.resolve() in [p.resolve() for p in seen]:
        raise UserError(f"{path}: extends itself ({' -> '.join(map(str, [*seen, path]))})")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected a mapping of keys at the top level, found {type(values).__name__}")
    base = values.pop("extends", None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise UserError(f"{path}: extends = {base!r}: expected the name of a configuration file")
    return _joined(_read(path.parent / base, (*seen, path)), values)


def _joined(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """``over`` on top of ``base``, section by section."""
    out = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = _joined(out[key], value) if both else value
    return out


def _apply(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(f"override {override!r}: expected KEY=VALUE with a dotted key, such as flow.epochs=50")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"override {override!r}: the value is not valid YAML") from error
    *parents, last = key.split(".")
    node = values
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise UserError(f"override {override!r}: {parent!r} is a value, not a section")
    node[last] = value


def _one_line(source: str, error: ValidationError, model: type[BaseModel]) -> str:
    """The first problem of a failed validation as one line; further problems are counted."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"]) or "configuration"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        allowed = _fields_at(model, first["loc"][:-1])
        close = difflib.get_close_matches(str(first["loc"][-1]), allowed, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        return f"{source}: unknown key {key!r}: {hint}allowed: {', '.join(allowed)}{more}"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "missing":
        return f"{source}: key {key!r} is missing{more}"
    if isinstance(first["input"], dict | BaseModel):
        return f"{source}: {key}: {message}{more}"
    return f"{source}: {key} = {first['input']!r}: {message[0].lower()}{message[1:]}{more}"


def _fields_at(model: type[BaseModel], location: tuple[str | int, ...]) -> list[str]:
    """Names of the keys allowed in the section at ``location``."""
    for part in location:
        field = model.model_fields.get(str(part))
        annotation = field.annotation if field else SampleSize  # the only sections inside a mapping
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            model = annotation
    return list(model.model_fields)
