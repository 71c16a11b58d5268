"""Read a YAML configuration into the model of its search; problems come as one line."""

import difflib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import yaml
from pydantic import BaseModel, ValidationError

from raypipe.config.base import Section, section_of
from raypipe.errors import UserError
from raypipe.kinds import KINDS, resolve

TAG = "tag:yaml.org,2002:"
PLAIN = {
    "bool": (r"yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF", "yYnNtTfFoO"),
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "int": (r"[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F][0-9a-fA-F_]*)", "-+0123456789"),
    "float": (
        r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?"
        r"|[0-9][0-9_]*[eE][-+]?[0-9]+|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
    "merge": ("<<", "<"),
}
"""What a value without quotes is: pattern and first characters. Everything else is text."""


class _Loader(yaml.SafeLoader):
    """Plain values by `PLAIN`."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}


for _kind, (_pattern, _first) in PLAIN.items():
    _Loader.add_implicit_resolver(TAG + _kind, re.compile(f"^(?:{_pattern})$"), list(_first))


def parse(text: str, source: str, comments: bool = True) -> Any:
    """The value of a YAML text called ``source``; ``comments``: ``# ...`` may follow it. No valid YAML: `UserError`."""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        rest = text[node.end_mark.index if node else 0 :].strip()
        if rest and not comments:
            raise UserError(f"{source}: {rest!r} would be read as a comment: write the value in quotes")
        if node is not None:
            _check_keys(node, source, set())
        return None if node is None else loader.construct_document(node)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{source}: not valid YAML: {' '.join(str(error).split())}") from error
    finally:
        loader.dispose()


def _check_keys(node: yaml.Node, source: str, seen: set[int]) -> None:
    """Refuse keys that stand twice in one mapping, and keys that are no text."""
    if id(node) in seen:  # an alias
        return
    seen.add(id(node))
    for item in node.value if isinstance(node, yaml.SequenceNode) else ():
        _check_keys(item, source, seen)
    lines: dict[str, int] = {}
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        line = key.start_mark.line + 1
        if key.tag not in (f"{TAG}str", f"{TAG}merge"):
            name = key.value if isinstance(key, yaml.ScalarNode) else "? ..."
            raise UserError(f"{source}: line {line}: key {name!r} is no text: write it in quotes")
        if key.value in lines:
            raise UserError(f"{source}: line {line}: key {key.value!r} stands twice (first in line {lines[key.value]})")
        lines[key.value] = line
        _check_keys(value, source, seen)


def model_of(search: str) -> type[Section]:
    """The configuration model of a search."""
    return resolve(KINDS[search].config)


def load_config(
    path: str | Path, overrides: Sequence[str] = (), output: str | Path | None = None, command: str | None = None
) -> Any:
    """Read a YAML configuration, apply dotted ``overrides`` such as ``flow.epochs=50``, and validate it.

    A file may begin with ``extends: OTHER.yaml``, relative to itself: sections are joined key by key, lists and values
    replaced. ``output`` is the run folder and wins; ``command`` is the stage that will use it. A `UserError` names
    file, key, value and what is allowed, or a file that does not serve ``command``.
    """
    values, source, search = _given(path, overrides)
    if output is not None:
        values["output"] = str(output)
    if command is not None and command not in KINDS[search].commands:
        raise UserError(f"{path}: search = {search}: {_other_command(search, command)}")
    return _validated(values, source, search)


def given_values(path: str | Path | None, overrides: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The kind of a configuration and the values given for it, by dotted key; required ones may be missing."""
    values, source, search = _given(path, overrides)
    _validated(values, source, search, whole=False)
    return search, dict(flat(values))


def _validated(values: dict[str, Any], source: str, search: str, whole: bool = True) -> Any:
    """The model of the values; None where keys are missing and that is allowed (not ``whole``)."""
    model = model_of(search)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        wrong = [e for e in error.errors() if whole or e["type"] != "missing" or isinstance(e["loc"][-1], int)]
        if wrong:
            raise UserError(one_line(source, wrong, model)) from None  # whose text holds the values


def flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of nested sections and lists of sections."""
    if isinstance(value, list) and value and all(isinstance(part, dict) for part in value):
        value = {str(number): part for number, part in enumerate(value)}
    if isinstance(value, dict):
        for name, part in value.items():
            yield from flat(part, f"{prefix}.{name}" if prefix else str(name))
    else:
        yield prefix, value


def _other_command(search: str, command: str) -> str:
    """Why a configuration does not serve a command."""
    if search == "none":
        return "this configuration only simulates (raypipe simulate)"
    kinds = " or ".join(name for name, kind in KINDS.items() if command in kind.commands)
    serves = ", ".join(f"raypipe {name}" for name in KINDS[search].commands)
    return f"expected a file with search: {kinds} for `raypipe {command}`; this one is for {serves}"


def _given(path: str | Path | None, overrides: Sequence[str]) -> tuple[dict[str, Any], str, str]:
    """The values of a file with overrides, what messages call them, and the search that they are for."""
    values = {} if path is None else _read(Path(path))
    apply(values, overrides)
    source = "overrides" if path is None else f"{path} with overrides" if overrides else str(path)
    search = values.get("search", "contrastive")
    if not isinstance(search, str) or search not in KINDS:
        raise UserError(f"{source}: search = {search!r}: known searches: {', '.join(KINDS)}")
    return values, source, search


def _read(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The values of a file, joined to those of the file that it extends."""
    if not path.is_file():
        raise UserError(f"{path}: no such configuration file" + (f" (extended by {seen[-1]})" if seen else ""))
    if path.resolve() in [p.resolve() for p in seen]:
        raise UserError(f"{path}: extends itself ({' -> '.join(map(str, [*seen, path]))})")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = f"cannot be read: {error.strerror or error}" if isinstance(error, OSError) else f"not valid YAML: {error}"
        raise UserError(f"{path}: {why}") from error
    values = parse(text, str(path))
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected a mapping of keys at the top level, found {type(values).__name__}")
    base = values.pop("extends", None)
    if not isinstance(base, str | None):
        raise UserError(f"{path}: extends = {base!r}: expected the name of a configuration file")
    return values if base is None else joined(_read(path.parent / base, (*seen, path)), values)


def joined(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """``over`` on top of ``base``, section by section."""
    sections = {key for key in over if isinstance(over[key], dict) and isinstance(base.get(key), dict)}
    return base | over | {key: joined(base[key], over[key]) for key in sections}


def apply(values: dict[str, Any], overrides: Sequence[str]) -> None:
    """Set the dotted keys of ``KEY=VALUE`` in ``values``, one after the other."""
    done: list[str] = []
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise UserError(f"override {override!r}: expected KEY=VALUE with a dotted key, such as flow.epochs=50")
        if lost := next((k for k in done if k.startswith(f"{key}.")), None):
            raise UserError(f"override {override!r}: it would undo {lost}=... before it: give it first")
        done.append(key)
        *parents, last = key.split(".")
        node = values
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise UserError(f"override {override!r}: {parent!r} is a value, not a section")
        node[last] = parse(text, f"override {override!r}", comments=False)


def one_line(source: str, errors: Sequence[Any], model: type[Section]) -> str:
    """The first of the problems of a failed validation as one line; further problems are counted."""
    first = errors[0]
    key = ".".join(str(part) for part in first["loc"]) or "configuration"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    if first["type"] == "extra_forbidden":
        allowed = _fields_at(model, first["loc"][:-1])
        close = difflib.get_close_matches(str(first["loc"][-1]), allowed, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        return f"{source}: unknown key {key!r}: {hint}allowed: {', '.join(allowed)}{more}"
    if first["type"] == "missing":
        return f"{source}: key {key!r} is missing{more}"
    message = first["msg"].removeprefix("Value error, ")
    if isinstance(first["input"], dict | BaseModel):
        return f"{source}: {key}: {message}{more}"
    quotes = f", in quotes: '{first['input']}'" if first["type"] == "string_type" and first["input"] is not None else ""
    return f"{source}: {key} = {first['input']!r}: {message[0].lower()}{message[1:]}{quotes}{more}"


def _fields_at(model: type[Section], location: tuple[str | int, ...]) -> list[str]:
    """Names of the keys allowed in the section at ``location``."""
    for part in location:
        field = model.model_fields.get(str(part))
        model = (section_of(field.annotation) if field else None) or model
    return list(model.model_fields)
