"""From ledger rows to what people quote: means over instances with their standard errors."""

from __future__ import annotations

import math
from typing import Any

from raypipe.search.result import NO_SIGNAL
from raypipe.stats.significance import mean_and_error

QUANTITIES = (
    "z_before", "z_after", "sic", "truth_before", "truth_after", "auc", "n_after", "expected_after", "kappa",
    "background_efficiency", "signal_efficiency",
)  # fmt: skip


def quote(values: list[float]) -> dict[str, Any] | None:
    """Mean, standard error and the values themselves; None when a quantity does not exist (SIC without signal)."""
    finite = [v for v in values if v is not None and math.isfinite(v)]
    if not finite:
        return None
    mean, error = mean_and_error(finite)
    return {"mean": mean, "standard_error": error, "values": finite}


def summarise(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One entry for each (signal, strength, working point), in the order of the rows; failed trials are left out."""
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for row in rows:
        if row["status"] == "ok":
            groups.setdefault((row["signal"], row["strength"], row["working_point"]), []).append(row)
    return [
        {
            "signal": signal, "strength": strength, "working_point": point,
            "instances": len({row["instance"] for row in members}),
            **{name: quote([row[name] for row in members]) for name in QUANTITIES},
        }
        for (signal, strength, point), members in groups.items()
    ]  # fmt: skip


def closure(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Closure AUC over the runs without signal, one value an instance (over all runs if there are none)."""
    good = [row for row in rows if row["status"] == "ok"]
    chosen = [row for row in good if row["signal"] == NO_SIGNAL] or good
    values = {(r["signal"], r["strength"], r["instance"]): r["closure_auc"] for r in chosen}
    return quote(list(values.values()))


def build_summary(
    rows: list[dict[str, Any]], *, working_point: float, stages: dict[str, float], peak_rss_gib: float,
    provenance: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """The content of ``summary.json``: results at the quoted working point, and at all of them."""
    every = summarise(rows)
    total = sum(stages.values())
    return {
        "results": [entry for entry in every if entry["working_point"] == working_point],
        "results_all_working_points": every,
        "closure_auc": closure(rows),
        "failed_trials": [
            {k: row[k] for k in ("signal", "strength", "instance", "error")} for row in rows if row["status"] != "ok"
        ],
        "stage_seconds": stages,
        "stage_share": {name: seconds / total for name, seconds in stages.items()} if total else {},
        "peak_rss_gib": peak_rss_gib,
        **provenance,
    }


def with_error(entry: dict[str, Any] | None, digits: int = 2) -> str:
    """``mean +- error`` for tables."""
    if entry is None:
        return "-"
    if entry["standard_error"] is None:
        return f"{entry['mean']:.{digits}f}"
    return f"{entry['mean']:.{digits}f} ± {entry['standard_error']:.{digits}f}"
