"""From ledger rows to what people quote: means over instances with their standard errors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from raypipe.report.comparison import required_table
from raypipe.report.html import plus_minus
from raypipe.search.result import NO_SIGNAL
from raypipe.stats.significance import mean_and_error

Row = Mapping[str, Any]
QUANTITIES = (
    *("z_before", "z_after", "sic", "truth_before", "truth_after", "auc", "n_after", "expected_after", "kappa"),
    *("background_efficiency", "signal_efficiency"),
)
POINT = ("embedding", "method", "signal", "strength", "working_point")
"""What makes rows of different instances comparable."""


def is_main(entry: Row) -> bool:
    """Whether a row or entry belongs to the search itself rather than to a comparison beside it."""
    return entry["embedding"] == "id" and entry["method"] == "cathode"


def quote(values: Iterable[float | None]) -> dict[str, Any] | None:
    """Mean, standard error and the values themselves; None when a quantity does not exist (SIC without signal)."""
    finite = [v for v in values if v is not None and math.isfinite(v)]
    if not finite:
        return None
    mean, error = mean_and_error(finite)
    return {"mean": mean, "standard_error": error, "values": finite}


def summarise(
    rows: Iterable[Row], point: Sequence[str] = POINT, quantities: Sequence[str] = QUANTITIES, kept: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """One entry for each value of the columns ``point``, in the order of the rows; failed trials are left out.

    Args:
        quantities: columns to `quote`. kept: columns that the rows of a point share.

    Returns:
        Entries with ``withheld`` (of how many instances no significance is quoted, and the first reason; None where of
        all) where the rows have a verdict.
    """
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if row["status"] == "ok":
            groups.setdefault(tuple(map(row.get, point)), []).append(row)
    entries = []
    for values, members in groups.items():
        entry = dict(zip(point, values, strict=True)) | {"instances": len({row["instance"] for row in members})}
        entry |= {name: members[0][name] for name in kept}
        entry |= {name: quote([row.get(name) for row in members]) for name in quantities}
        if "verdict" in members[0]:
            reasons = [row["verdict"] for row in members if row["verdict"]]
            entry["withheld"] = {"instances": len(reasons), "reason": reasons[0]} if reasons else None
        entries.append(entry)
    return entries


def withheld_lines(entries: Iterable[Row]) -> list[str]:
    """A sentence for every entry of which significances are withheld."""
    lines = []
    for e in entries:
        if held := e.get("withheld"):
            what = "Without a signal" if e["signal"] == NO_SIGNAL else f"{e['signal']} at S/√B = {e['strength']:g}"
            told = f"{what}, cut at {e['working_point']:.1%}: NO significance is quoted for {held['instances']} of "
            lines.append(f"{told}{e['instances']} pseudo-data sets: {held['reason']}.")
    return lines


def closure(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Closure AUC over the runs without signal, one value an instance; None if there are none."""
    good = [row for row in rows if row["status"] == "ok" and row["signal"] == NO_SIGNAL]
    good = [row for row in good if is_main(row)] or good
    return quote(list({row["instance"]: row["closure_auc"] for row in good}.values()))


def build_summary(rows: list[dict[str, Any]], *, working_point: float, target: float) -> dict[str, Any]:
    """Results at the quoted working point, and at all of them.

    ``required`` (`required_table`) is empty where there is nothing to compare: one strength, embedding and method.
    """
    every = summarise(rows)
    good = [row for row in rows if row["status"] == "ok"]
    curves = {(r["embedding"], r["method"], r["strength"]) for r in good if r["signal"] != NO_SIGNAL}
    points = sorted({r["working_point"] for r in good}, reverse=True)
    main = [entry for entry in every if is_main(entry)] or every
    return {
        "results": [entry for entry in main if entry["working_point"] == working_point],
        "results_all_working_points": every,
        "required": required_table(good, points, target) if len(curves) > 1 else [],
        "closure_auc": closure(rows),
    }


def with_error(entry: Row | None, digits: int = 2, none: str = "-") -> str:
    """Mean and standard error of what `quote` gave, for tables."""
    return plus_minus(entry["mean"], entry["standard_error"], digits) if entry else none


def other_versions_told(number: int) -> list[str]:
    """The sentence about finished trials that another version of the code or packages has made, if there are any."""
    told = f"The ledger holds {number} trials of another version of the code or packages, which are not in this report"
    return [told] if number else []
