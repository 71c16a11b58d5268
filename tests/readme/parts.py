"""What the parts of a README are made with: the records, and one spelling of numbers and tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from raypipe.files import read_json
from raypipe.report.html import plus_minus
from tests.conftest import ROOT

PARTS: dict[str, Callable[[], str]] = {}
"""Generated parts by the name that stands in the README's marker."""
NONE = "–"


def part(make: Callable[[], str]) -> Callable[[], str]:
    """Register a part; ``study_closure`` is the part ``study-closure``."""
    PARTS[make.__name__.replace("_", "-")] = make
    return make


@cache
def record(name: str) -> dict[str, Any]:
    """The record ``tests/records/NAME.json``."""
    return read_json(ROOT / "tests" / "records" / f"{name}.json")


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def value(entry: Mapping[str, Any] | None, digits: int = 1, widened: float = 1.0) -> str:
    """Mean and error of an entry of a record; ``widened`` multiplies the error. One that rounds to zero is left out."""
    if entry is None:
        return NONE
    mean, error = round(entry["mean"], digits) + 0.0, (entry["error"] or 0.0) * widened  # no minus before a zero
    return plus_minus(mean, error if round(error, digits) else None, digits)


def share(part_of_one: float, digits: int = 0) -> str:
    """A share in per cent."""
    return f"{100 * part_of_one:.{digits}f} %"


def signed(value: float, error: float, digits: int = 1) -> str:
    """A difference with its sign and error."""
    return f"{round(value, digits) + 0.0:+.{digits}f} ± {error:.{digits}f}"


def widening(instances: int, study: dict[str, Any]) -> float:
    """By what the standard error over pseudo-data sets grows because they share a part of their events.

    Their spread is sigma sqrt(1 - overlap), and the error of their mean sigma sqrt(overlap + (1 - overlap) / n). A
    record that says whether it was tuned has such errors already.
    """
    if "look" in study:
        return 1.0
    overlap = study["instance_overlap"]
    return (1 + instances * overlap / (1 - overlap)) ** 0.5


def minutes(seconds: float) -> str:
    """Wall-clock time for a reader."""
    whole = round(seconds / 60)
    return f"{whole} minutes" if whole < 120 else f"{whole // 60} h {whole % 60} min"


def signal(name: str) -> str:
    """A sample's name as code."""
    return f"`{name}`"
