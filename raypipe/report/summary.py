"""From ledger rows to what people quote: means over instances with their standard errors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from raypipe.report.comparison import required_table
from raypipe.search.result import NO_SIGNAL
from raypipe.stats.significance import mean_and_error

QUANTITIES = (
    "z_before",
    "z_after",
    "sic",
    "truth_before",
    "truth_after",
    "auc",
    "n_after",
    "expected_after",
    "kappa",
    "background_efficiency",
    "signal_efficiency",
)

POINT = ("embedding", "method", "signal", "strength", "working_point")
"""What makes rows of different instances comparable."""


def is_main(entry: Mapping[str, Any]) -> bool:
    """Whether a row or entry belongs to the search itself rather than to a comparison beside it."""
    return entry["embedding"] == "id" and entry["method"] == "cathode"


def quote(values: list[float]) -> dict[str, Any] | None:
    """Mean, standard error and the values themselves; None when a quantity does not exist (SIC without signal)."""
    finite = [v for v in values if v is not None and math.isfinite(v)]
    if not finite:
        return None
    mean, error = mean_and_error(finite)
    return {"mean": mean, "standard_error": error, "values": finite}


def summarise(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One entry for each embedding, method, signal, strength and working point, in the order of the rows.

    Failed trials are left out.
    """
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for row in rows:
        if row["status"] == "ok":
            groups.setdefault(tuple(row[name] for name in POINT), []).append(row)
    return [
        {
            **dict(zip(POINT, point, strict=True)),
            "instances": len({row["instance"] for row in members}),
            **{name: quote([row[name] for row in members]) for name in QUANTITIES},
            "withheld": withheld(members),
        }
        for point, members in groups.items()
    ]


def withheld(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Of how many rows no significance is quoted, and the reason of the first; None where of all."""
    verdicts = [row["verdict"] for row in rows if row.get("verdict")]
    return {"instances": len(verdicts), "reason": verdicts[0]} if verdicts else None


def withheld_lines(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence for every entry of which significances are withheld."""
    lines = []
    for e in entries:
        if e.get("withheld"):
            what = "Without a signal" if e["signal"] == NO_SIGNAL else f"{e['signal']} at S/√B = {e['strength']:g}"
            how_many = f"{e['withheld']['instances']} of {e['instances']} pseudo-data sets"
            lines.append(
                f"{what}, cut at {e['working_point']:.1%}: NO significance is quoted for {how_many}: "
                f"{e['withheld']['reason']}."
            )
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


def with_error(entry: dict[str, Any] | None, digits: int = 2, none: str = "-") -> str:
    """``mean +- error`` for tables."""
    if entry is None:
        return none
    if entry["standard_error"] is None:
        return f"{entry['mean']:.{digits}f}"
    return f"{entry['mean']:.{digits}f} ± {entry['standard_error']:.{digits}f}"


def other_versions_told(number: int) -> list[str]:
    """The sentence about finished trials that another version of the code or packages has made, if there are any."""
    if not number:
        return []
    return [
        f"The ledger holds {number} trials of another version of the code or packages, which are not in this report"
    ]
