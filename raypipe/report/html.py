"""What all pages share: tables, sections, embedded images, one template."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import yaml

from raypipe.files import write_text


@cache
def resource(name: str) -> dict[str, Any]:
    """A YAML file beside this module: ``texts`` by page, ``references``, ``quantities``."""
    return yaml.safe_load(resources.files("raypipe.report").joinpath(f"{name}.yaml").read_text(encoding="utf-8"))


class Table(NamedTuple):
    """Cells of text; the first column is a name and stands left."""

    head: list[str]
    rows: list[list[str]]
    title: str = ""


def table_of(columns: Mapping[str, Callable[[Any], str]], entries: Iterable[Any]) -> Table:
    """One row an entry: ``columns`` maps a heading to the cell of an entry."""
    return Table(list(columns), [[cell(entry) for cell in columns.values()] for entry in entries])


def plus_minus(value: float | None, error: float | None = None, digits: int = 2, none: str = "-") -> str:
    """``value ± error`` with so many decimals; without an error the value alone."""
    if value is None:
        return none
    return f"{value:.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")


@dataclass(frozen=True)
class Section:
    """A heading with what stands under it, in this order."""

    title: str
    text: str = ""
    tables: list[Table] = field(default_factory=list)
    figures: list[dict[str, str]] = field(default_factory=list)
    code: str = ""
    notes: list[str] = field(default_factory=list)
    """Points of a list."""


def images(figures: Mapping[str, Path], captions: Mapping[str, str], *names: str) -> list[dict[str, str]]:
    """Those of the figures ``names`` that there are, with their captions."""
    return [image(figures[name], captions[name]) for name in names if name in figures]


def image(path: Path, caption: str) -> dict[str, str]:
    """A PNG embedded in the page, so that the file can be mailed alone."""
    return {"caption": caption, "data": base64.b64encode(path.read_bytes()).decode()}


def write_html(path: Path, title: str, subtitle: str, headlines: Sequence[str], sections: Sequence[Section]) -> None:
    """Render ``page.html`` and write it to ``path``, whole or not at all."""
    source = resources.files("raypipe.report").joinpath("page.html").read_text(encoding="utf-8")
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(source)
    write_text(path, template.render(title=title, subtitle=subtitle, headlines=headlines, sections=sections))
