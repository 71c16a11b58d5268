"""What all pages share: tables, sections, embedded figures, one template."""

import base64
import math
import re
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import yaml
from markupsafe import Markup

from raypipe.files import write_text
from raypipe.search.result import NO_SIGNAL


@cache
def resource(name: str) -> dict[str, Any]:
    """A YAML file beside this module: ``texts`` by page, ``references``, ``quantities``."""
    return yaml.safe_load(resources.files("raypipe.report").joinpath(f"{name}.yaml").read_text(encoding="utf-8"))


class Table(NamedTuple):
    """Cells of text; the first column is a name and stands left."""

    head: list[str]
    rows: list[list[str]]


def table_of(columns: Mapping[str, str | Callable[[Any], str]], entries: Iterable[Any]) -> Table:
    """One row an entry: ``columns`` maps a heading to the cell of an entry, as a function or as a text for `say`.

    A column whose heading ends with ``?`` is left out where it is empty, one with ``=`` where all its cells are alike.
    """
    entries = list(entries)
    every = {head: [cell(e) if callable(cell) else say(cell, e) for e in entries] for head, cell in columns.items()}
    empty = {head for head, cells in every.items() if set(cells) <= {"-"} and head[-1] == "?"}
    alike = {head for head, cells in every.items() if len(set(cells)) < 2 and head[-1] == "="}
    kept = {head: cells for head, cells in every.items() if head not in empty | alike}
    return Table([head.rstrip("?=") for head in kept], [list(row) for row in zip(*kept.values(), strict=True)])


def plus_minus(value: float | None, error: float | None = None, digits: int = 2, none: str = "-") -> str:
    """``value ± error`` with so many decimals; without an error the value alone."""
    if value is None:
        return none
    return f"{value:.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")


FEW, FEW_TOLD = "†", "† The error is from two pseudo-data sets and means little."


def with_error(entry: Mapping[str, Any] | None, digits: int = 2, none: str = "-") -> str:
    """Mean and standard error of a summary entry; an error from two instances is marked (`FEW_TOLD`)."""
    if not entry:
        return none
    few = entry["standard_error"] is not None and len(entry["values"]) < 3
    return plus_minus(entry["mean"], entry["standard_error"], digits) + FEW * few


def what(entry: Mapping[str, Any]) -> str:
    """The injection of a row or entry, in words."""
    return "no signal" if entry["signal"] == NO_SIGNAL else f"{entry['signal']} at S/√B = {entry['strength']:g}"


class _Words(string.Formatter):
    def get_value(self, key: int | str, args: Any, kwargs: Mapping[str, Any]) -> Any:
        return what(kwargs) if key == "what" else kwargs.get(key)

    def get_field(self, name: str, args: Any, kwargs: Mapping[str, Any]) -> tuple[Any, Any]:
        try:
            return super().get_field(name, args, kwargs)
        except (KeyError, TypeError):  # no such part, or no part of what there is not
            return None, name

    def format_field(self, value: Any, spec: str) -> str:
        spec, _, none = spec.partition("|")
        if spec == "≥":
            return "≥ " if value and value["mean"] > 0 else ""
        if spec == "all":
            return ", ".join(f"{one:+.1f}" for one in value["values"])
        if value is None or (isinstance(value, float) and not math.isfinite(value)):
            return none or "-"
        return with_error(value, int(spec or 2)) if isinstance(value, Mapping) else format(value, spec)


def say(text: str, entry: Mapping[str, Any]) -> str:
    """``text.format(**entry)``, where ``-``, or what stands behind ``|`` in the format, tells of what there is not.

    ``{what}`` is the injection. A mean with its error has as its format the number of decimals, or ``all``: its single
    values, or ``≥``: whether one of them is a bound.
    """
    return _Words().vformat(text, (), entry).replace("- ± -", "-").replace(" ± -", "")


@dataclass(frozen=True)
class Section:
    """A heading with what stands under it, in this order."""

    title: str
    text: str = ""
    tables: list[Table] = field(default_factory=list)
    figures: list[dict[str, Any]] = field(default_factory=list)
    code: str = ""
    notes: list[str] = field(default_factory=list)
    """Points of a list."""
    closed: bool = False
    """Detail, which a reader opens."""


def images(figures: Mapping[str, Path], captions: Mapping[str, str], *names: str) -> list[dict[str, Any]]:
    """Those of the figures ``names`` that there are, with their captions."""
    return [image(figures[name], captions[name]) for name in names if name in figures]


def image(path: Path, caption: str) -> dict[str, Any]:
    """A figure of `save_figures` with its numbers, embedded; colours become variables of the page's style sheet."""
    drawn = path.read_text(encoding="utf-8")
    points = float(re.search(r'<svg [^>]*width="([\d.]+)pt"', drawn)[1])
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn[drawn.index("<svg") :], flags=re.DOTALL)
    drawn = re.sub(r'<svg [^>]*viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" role="img">', drawn)
    drawn = re.sub(r' id="(?!(C\d+_\w+_|[a-z]+)[0-9a-f]{10}")[^"]*"', "", drawn)  # nothing refers to these
    drawn = re.sub(r"(: ?)#([0-9a-f]{6})\b", r"\1var(--x\2, #\2)", drawn)
    numbers = base64.b64encode(path.with_suffix(".csv").read_bytes()).decode()
    width = round(points * 4 / 3)
    return {"caption": caption, "name": path.stem, "svg": Markup(drawn), "numbers": numbers, "width": width}


def write_html(
    path: Path, title: str, subtitle: str, headlines: Sequence[str], sections: Sequence[Section], **more: Any
) -> None:
    """Write ``page.html`` to ``path``: ``headlines``, the verdict first; ``more``: ``asked`` and ``provenance``."""
    source = resources.files("raypipe.report").joinpath("page.html").read_text(encoding="utf-8")
    template = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(source)
    shown = {"title": title, "subtitle": subtitle, "headlines": headlines, "sections": sections}
    write_text(path, template.render(**shown, **more))
