"""From ledger rows to what people quote: means over instances with their standard errors, and required injections."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from raypipe.report.html import resource, say
from raypipe.search.result import NO_SIGNAL
from raypipe.stats.significance import mean_and_error

Row = Mapping[str, Any]
SHARED = resource("texts")["shared"]
QUANTITIES = (
    *("z_before", "z_after", "sic", "truth_before", "truth_after", "auc", "n_after", "expected_after", "kappa"),
    *("background_efficiency", "signal_efficiency", "b_after", "background_pull", "z_likelihood"),
)
OPTIONAL = (
    *("z_calibrated", "z_calibrated_bound", "z_global", "z_global_bound"),
    *("averaged_z_after", "averaged_sic", "averaged_n_after", "averaged_expected_after", "averaged_background_pull"),
)
"""Of rows that pseudo-nulls have calibrated (a bound is the share of instances that are one); of several encoders."""
POINT = ("embedding", "method", "signal", "strength", "working_point")
"""What makes rows of different instances comparable."""


def is_main(entry: Row) -> bool:
    """Whether a row or entry belongs to the search itself rather than to a comparison beside it."""
    return entry["embedding"] == "id" and entry["method"] == "cathode"


OF_SIMULATION = ("sic", "averaged_sic", "signal_efficiency", "background_efficiency", "auc")
"""Quantities that all instances judge on all simulated events, drawn into their data or not."""


def quote(rows: Sequence[Row], name: str) -> dict[str, Any] | None:
    """Mean, standard error and values of a column; None when a quantity does not exist (SIC without signal).

    The error is that of a repetition with another simulation. Instances share events of their data by their
    ``instance_overlap`` (`mean_and_error`). What is judged on the simulated events themselves (`OF_SIMULATION`) varies
    with the instances, and with these events, which all instances share: the ``<name>_replicas`` of the rows.
    """
    finite = [row for row in rows if (v := row.get(name)) is not None and math.isfinite(v)]
    if not finite:
        return None
    values = [row[name] for row in finite]
    mean, error = mean_and_error(values, 0.0 if name in OF_SIMULATION else largest_overlap(finite))
    shared = shared_error(finite, name)
    error = None if error is None or shared is None else math.hypot(error, shared)
    return {"mean": mean, "standard_error": error, "values": values}


def largest_overlap(rows: Iterable[Row]) -> float:
    """Share of events that instances have in common; at most 0.99, above which their spread says nothing."""
    return min(0.99, max((row.get("instance_overlap") or 0.0 for row in rows), default=0.0))


def shared_error(rows: Sequence[Row], name: str) -> float | None:
    """Standard deviation of the mean over rows, over replicas of the simulation: 0 without, None where one is empty."""
    if not (replicas := [row[f"{name}_replicas"] for row in rows if row.get(f"{name}_replicas")]):
        return 0.0
    means = np.mean(np.array(replicas, float), axis=0)
    return float(np.std(means, ddof=1)) if np.isfinite(means).all() else None


def summarise(
    rows: Iterable[Row], point: Sequence[str] = POINT, quantities: Sequence[str] = QUANTITIES, kept: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """One entry for each value of the columns ``point``, in the order of the rows; failed trials are left out.

    ``quantities``: columns to `quote`; ``kept``: columns that the rows of a point share. Where the rows have a verdict
    ``withheld`` says of how many instances no significance is quoted, and why (None: of all it is).
    """
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if row["status"] == "ok":
            groups.setdefault(tuple(map(row.get, point)), []).append(row)
    entries = []
    for values, members in groups.items():
        entry = dict(zip(point, values, strict=True)) | {"instances": len({row["instance"] for row in members})}
        entry |= {name: members[0][name] for name in kept}
        entry |= {name: quote(members, name) for name in quantities}
        if any("verdict" in row for row in members):
            reasons = [row["verdict"] for row in members if row.get("verdict")]
            entry["withheld"] = {"instances": len(reasons), "reason": reasons[0]} if reasons else None
        entries.append(entry)
    return entries


def withheld_lines(entries: Iterable[Row]) -> list[str]:
    """A sentence for every entry of which significances are withheld."""
    return [say(SHARED["withheld"], e) for e in entries if e.get("withheld")]


def closure(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Closure AUC over the runs without signal, one value an instance; None if there are none."""
    good = [row for row in rows if row["status"] == "ok" and row["signal"] == NO_SIGNAL]
    good = [row for row in good if is_main(row)] or good
    return quote(list({row["instance"]: row for row in good}.values()), "closure_auc")


def build_summary(rows: list[dict[str, Any]], *, working_point: float, target: float) -> dict[str, Any]:
    """Results at the quoted working point, and at all; ``required`` is empty where there is nothing to compare."""
    every = summarise(rows, quantities=(*QUANTITIES, *(name for name in OPTIONAL if any(name in r for r in rows))))
    good = [row for row in rows if row["status"] == "ok"]
    curves = {(r["embedding"], r["method"], r["strength"]) for r in good if r["signal"] != NO_SIGNAL}
    points = sorted({r["working_point"] for r in good}, reverse=True)
    main = [entry for entry in every if is_main(entry)] or every
    return {
        "results": [entry for entry in main if entry["working_point"] == working_point],
        "results_all_working_points": every,
        "required": required_table(good, points, target) if len(curves) > 1 else [],
        "closure_auc": closure(rows),
        "steered": [found for point in points if (found := steered(good, point))],
    }


def steered(rows: Sequence[Row], point: float) -> dict[str, Any] | None:
    """How well the background after a cut is known where a signal steered the classifiers; None without such rows.

    Over all injected rows of the search itself: pull of the true background against the expected one, its mean with the
    error over instances (each injected with many signals), its width, and how often it is below one. ``transfer``: the
    true background of all simulated events over the expected one, ``transfer_error`` by how much more it differs from
    one than the errors say, which `selection.transfer_uncertainty` has to be.
    """
    mine = [r for r in rows if r["signal"] != NO_SIGNAL and r["working_point"] == point and is_main(r)]
    instances: dict[int, list[float]] = {}
    for row in mine:
        if math.isfinite(row.get("background_pull", math.nan)):
            instances.setdefault(row["instance"], []).append(row["background_pull"])
    if not instances:
        return None
    pulls, overlap = np.concatenate(list(instances.values())), largest_overlap(mine)
    mean, error = mean_and_error([float(np.mean(of)) for of in instances.values()], overlap)
    found = {"working_point": point, "rows": len(pulls), "instances": len(instances), "pull_mean": mean}
    found |= {"pull_mean_error": error, "pull_width": float(pulls.std()), "kappa": quote(mine, "kappa")}
    found |= _transfer(mine)
    return found | {"coverage_68": float((np.abs(pulls) < 1).mean())}


def _transfer(rows: Sequence[Row]) -> dict[str, Any]:
    """True over expected background after the cut, and what it needs beside the errors of the expectation."""
    names = ("background_efficiency", "b_expected_sr", "expected_after", "expected_after_error")
    truth, total, expected, error = (np.array([row[name] for row in rows]) for name in names)
    ratio = truth * total / expected
    missing = np.mean((ratio - 1) ** 2 - (error / expected) ** 2)
    return {"transfer": float(ratio.mean()), "transfer_error": float(np.sqrt(max(0.0, missing)))}


def other_versions_told(number: int) -> list[str]:
    """The sentence about finished trials that another version of the code or packages has made, if there are any."""
    told = f"The ledger holds {number} trials of another version of the code or packages, which are not in this report"
    return [told] if number else []


def ways_of(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Pairs of embedding and method, in the order of the rows."""
    return list(dict.fromkeys((r["embedding"], r["method"]) for r in rows))


def with_signal(rows: Sequence[Row]) -> tuple[list[str], list[tuple[str, str]]]:
    """Signals, and the ways that were tried on any."""
    mine = [r for r in rows if r["signal"] != NO_SIGNAL]
    return sorted({r["signal"] for r in mine}), ways_of(mine)


def curve(rows: Sequence[Row], quantity: str, way: tuple[str, str], signal: str, point: float) -> np.ndarray:
    """(k, 4): strength; mean, standard error and deviation over instances (NaN with one) where a quantity exists."""
    mine = [r for r in rows if (r["embedding"], r["method"], r["signal"], r["working_point"]) == (*way, signal, point)]
    out = []
    for strength in sorted({r["strength"] for r in mine}):
        if quoted := quote([r for r in mine if r["strength"] == strength], quantity):  # not withheld
            error, values = quoted["standard_error"], quoted["values"]
            spread = np.nan if error is None else np.std(values, ddof=1)
            out.append((strength, quoted["mean"], np.nan if error is None else error, spread))
    return np.array(out).reshape(-1, 4)


def crossing(strengths: np.ndarray, significances: np.ndarray, target: float) -> float:
    """Smallest strength with significance ``target``, linear between points and through the origin; else infinity."""
    x, y = np.r_[0.0, strengths], np.r_[0.0, significances]
    above = np.flatnonzero(y >= target)
    if not len(above):
        return float("inf")
    k = above[0]
    return float(x[k - 1] + (target - y[k - 1]) / (y[k] - y[k - 1]) * (x[k] - x[k - 1]))


def required_strength(
    rows: Sequence[Row], way: tuple[str, str], signal: str, point: float, target: float
) -> np.ndarray:
    """Strengths at which the mean significance reaches ``target``, (1 + instances,): of all, then without each."""
    mine = [r for r in rows if r["signal"] == signal and (r["embedding"], r["method"]) == way]
    found = []
    for without in (None, *sorted({r["instance"] for r in mine})):
        kept = [r for r in mine if r["instance"] != without]
        found.append(crossing(*curve(kept, "z_after", way, signal, point).T[:2], target))
    return np.array(found)


def jackknife(values: np.ndarray, overlap: float = 0.0) -> tuple[float, float | None]:
    """The first value, and its standard error from the others (made without one instance each); None with one.

    None, too, where some are infinite. ``overlap``: share of common events, as in `mean_and_error`.
    """
    one_less = values[1:]
    if len(one_less) < 2 or not np.isfinite(values).all():
        return float(values[0]), None
    k = len(one_less)
    return float(values[0]), float(np.sqrt((k - 1) * np.var(one_less) * (1 + k * overlap / (1 - overlap))))


def required_table(rows: Sequence[Row], points: Sequence[float], target: float) -> list[dict[str, Any]]:
    """For each signal, way and cut the strength at which the mean significance is ``target`` (None: > ``largest``)."""
    out = []
    signals, ways = with_signal(rows)
    for signal, way, point in product(signals, ways, points):
        strengths = curve(rows, "z_after", way, signal, point)[:, 0]
        if len(strengths):
            strengths_without = required_strength(rows, way, signal, point, target)
            required, error = jackknife(strengths_without, largest_overlap(rows))
            entry = {"signal": signal, "embedding": way[0], "method": way[1], "working_point": point, "target": target}
            found = required if np.isfinite(required) else None
            out.append(entry | {"required": found, "standard_error": error, "largest": float(strengths[-1])})
    return out
