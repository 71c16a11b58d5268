"""The READMEs and their generated parts.

A part stands between ``<!-- table: NAME -->`` (on lines of its own) or ``<!-- text: NAME -->`` (inside a sentence) and
``<!-- end -->``; `parts.PARTS` says what belongs there.
"""

from __future__ import annotations

import re
from pathlib import Path

from tests.conftest import ROOT
from tests.readme import contrastive, nulls, studies
from tests.readme.parts import PARTS

HOMES = contrastive, nulls, studies
"""Where the parts are."""
MARKED = re.compile(r"<!-- (table|text): ([a-z0-9-]+) -->(.*?)<!-- end -->", re.DOTALL)


def pages() -> list[Path]:
    """Every README of the repository."""
    below = (
        path for room in ("configs", "jobs", "k8s", "raypipe", "tests") for path in (ROOT / room).rglob("README.md")
    )
    return [ROOT / "README.md", *sorted(below)]


def filled(text: str) -> str:
    """The text with every part made anew; raises `KeyError` for a part that does not exist."""

    def made(found: re.Match[str]) -> str:
        kind, name = found.group(1, 2)
        around = "\n" if kind == "table" else ""
        return f"<!-- {kind}: {name} -->{around}{PARTS[name]()}{around}<!-- end -->"

    return MARKED.sub(made, text)
