"""What all pages share: tables, sections, embedded images, one template."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

import jinja2

from raypipe.files import write_text


@dataclass(frozen=True)
class Table:
    """Cells of text; the first column is a name and stands left."""

    head: list[str]
    rows: list[list[str]]
    title: str = ""


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


def image(path: Path, caption: str) -> dict[str, str]:
    """A PNG embedded in the page, so that the file can be mailed alone."""
    return {"caption": caption, "data": base64.b64encode(path.read_bytes()).decode()}


def write_html(path: Path, title: str, subtitle: str, headlines: Sequence[str], sections: Sequence[Section]) -> None:
    """Render ``page.html`` and write it to ``path``, whole or not at all."""
    source = resources.files("raypipe.report").joinpath("page.html").read_text(encoding="utf-8")
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(source)
    write_text(path, template.render(title=title, subtitle=subtitle, headlines=headlines, sections=sections))
