"""Configurations to begin with: those that are shipped, and values as commented YAML."""

import json
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from raypipe.config.base import Section, fields, section_of
from raypipe.config.load import given_values, load_config, model_of, parse
from raypipe.files import ROOT

FIRST = (
    *("output", "seed", "simulate.samples", "pseudodata.luminosity", "compare.luminosity", "embedding.epochs"),
    *("flow.epochs", "networks.members", "bootstrap.count", "selection.working_points", "scan.signals"),
    *("scan.strengths", "scan.instances", "scan.background_instances", "scan.calibration", "resources.cpus"),
)
"""Keys that a user of a shipped configuration changes first."""
LAST = ("search", "label", "resources.", "tracking.")
"""Beginnings of the keys that a user of a search that ships none changes last."""


def shipped(search: str) -> dict[str, Path]:
    """The shipped configurations of a search by the names of their files: in the installed package, or the checkout."""
    folder = ROOT if (ROOT / "configs").is_dir() else ROOT.parent
    files = sorted(folder.glob("configs/*/*.yaml"))
    return {path.stem: path for path in files if given_values(path, ())[0] == search}


def first_values(search: str, base: Path | None) -> dict[str, Any]:
    """By dotted key what a user changes first, as in ``base``; without one the defaults, `...` where there is none."""
    if base is None:
        every = ((key, default) for key, _, default in fields(model_of(search)) if not key.startswith(LAST))
        return {key: default for key, default in every if not re.search(r"\.(NAME|N)\.", key)}
    found: dict[str, Any] = dict.fromkeys(FIRST, load_config(base).model_dump(mode="json"))
    for key in FIRST:
        for name in key.split("."):
            found[key] = found[key].get(name, ...) if isinstance(found[key], dict) else ...
    return {key: value for key, value in found.items() if value is not ...}


def commented(
    values: Mapping[str, Any], model: type[Section], notes: Mapping[str, Sequence[str]], above: str = ""
) -> Iterator[str]:
    """Lines of YAML: ``values`` by dotted key of the section ``above``, over each its note or its description."""
    indent = "  " * above.count(".")
    for name in dict.fromkeys(key.removeprefix(above).partition(".")[0] for key in values if key.startswith(above)):
        key, field = f"{above}{name}", model.model_fields[name]
        for text in notes.get(key, [field.description or ""]):
            yield from textwrap.wrap(f"# {text}", 110, initial_indent=indent, subsequent_indent=f"{indent}# ")
        value = values.get(key, {})
        rest = "" if isinstance(value, dict) else " # required" if value is ... else f" {plain(value)}"
        whole = {"subsequent_indent": f"{indent}  ", "break_long_words": False, "break_on_hyphens": False}
        yield from textwrap.wrap(f"{indent}{name}:{rest}", 118, **whole)
        yield from (f"{indent}  {plain(item)}: {plain(of)}" for item, of in (value.items() if rest == "" else ()))
        if key not in values:
            yield from commented(values, section_of(field.annotation), notes, f"{key}.")


def plain(value: Any) -> str:
    """A JSON-like value as YAML on one line."""
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{plain(name)}: {plain(part)}' for name, part in value.items())} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(plain, value))}]"
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z_./][\w./-]*", value) and parse(value, value) == value:
        return value
    return json.dumps(value, ensure_ascii=False)  # which YAML reads as it is
