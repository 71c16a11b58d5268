"""Parts about searches without a signal: how often they report what (`make study-nulls`)."""

from __future__ import annotations

from typing import Any

from scipy.stats import norm

from raypipe.report.html import plus_minus
from tests.readme.parts import NONE, markdown, part, record, share, signed


def _told(shares: float, band: list[float]) -> str:
    """A share with its 68 % band."""
    return f"{shares:.2g} ({band[0]:.2g}–{band[1]:.2g})"


def _uniform(entry: dict[str, Any], which: str) -> str:
    return f"{entry[f'ks_{which}']:.2f}"


def _held_out(name: str) -> str:
    rows = []
    for row in record(name)["held_out"]:
        found = [_told(row[f"{which}_share"], row[f"{which}_band"]) for which in ("reported", "calibrated")]
        rows.append([share(row["working_point"], 1), f"{row['level']:g}", *found])
    return markdown(["cut", "p up to", "as reported", "calibrated"], rows)


def _simulated(name: str) -> str:
    rows = []
    for e in record(name)["simulated"]:
        rare = [f"{e[f'below_1%_{which}']} of {e['nulls']}" for which in ("reported", "calibrated")]
        z = [plus_minus(e["mean"], e["mean_error"], 2), f"{e['width']:.2f}"]
        rows.append([share(e["working_point"], 1), *z, *(_uniform(e, w) for w in ("reported", "calibrated")), *rare])
    head = ["cut", "mean z", "width", "KS p, reported", "KS p, calibrated", "p ≤ 1 %, reported", "p ≤ 1 %, calibrated"]
    return markdown(head, rows)


def _cost(name: str) -> str:
    known = record(name)
    per, spent = known["core_seconds"]["null"], known["core_seconds"]["all"] / 3600
    hours = 10_000 * per / 3600
    return (
        f"{known['nulls']:,} pseudo-nulls took {spent:.1f} core hours, {per:.1f} core seconds each beside other work; "
        f"10,000 would take {hours:.1f}: {hours / 2:.1f} hours on two cores, {hours * 36:.0f} seconds on a hundred"
    )


PUBLISHED = {0.01: "0.004", 0.001: "0.0002", 0.0001: "0.00001"}
"""What a 5-fold search reported on LHC Olympics background (arXiv:2512.13787), by the true p."""


@part
def tail_true() -> str:
    """What is reported where the truth is 0.1, 0.01 and so on."""
    rows = record("nulls_tail")["true_levels"]
    points = sorted({row["working_point"] for row in rows}, reverse=True)
    told = {(r["working_point"], r["level"]): f"{r['reported']:.2g} ({r['low']:.2g}–{r['high']:.2g})" for r in rows}
    found = [
        [f"{p:g}", PUBLISHED.get(p, NONE), *(told[x, p] for x in points)] for p in sorted({r["level"] for r in rows})
    ]
    head = ["true p", "reported by a published search", *(f"reported here, cut at {share(x, 1)}" for x in points)]
    return markdown(head, reversed(found))


@part
def tail_held_out() -> str:
    """Each half of the nulls, judged by the map of the other."""
    return _held_out("nulls_tail")


@part
def tail_retrained() -> str:
    """What flows that learn the null itself change."""
    rows = record("nulls_tail")["retrained"]
    told = [f"{signed(r['shift'], r['shift_error'], 2)} at {share(r['working_point'], 1)}" for r in rows]
    return f"{' and '.join(told)} ({rows[0]['nulls']} nulls)"


@part
def nulls_likelihood() -> str:
    """How often the likelihood of all bins finds what in pseudo-nulls."""
    (told,) = record("nulls_likelihood")["likelihood"]
    rows = [("nought", "zero", 0.5), ("above 1", "above_1", norm.sf(1)), ("above 2", "above_2", norm.sf(2))]
    found = [f"{share(told[name], 1)} ({share(expected, 1)})" for _, name, expected in rows]
    worded = [f"{what} in {f}" for (what, *_), f in zip(rows, found, strict=True)]
    return f"z of all bins is {', '.join(worded)} of {told['nulls']:,} pseudo-nulls"


@part
def tail_simulated() -> str:
    """Simulated sets of the same search."""
    rows = record("nulls_tail")["simulated"]
    told = [f"{plus_minus(e['mean'], e['mean_error'], 2)} at {share(e['working_point'], 1)}" for e in rows]
    return f"{rows[0]['nulls']} simulated sets of the same search have a mean z of {' and '.join(told)}"


@part
def tail_cost() -> str:
    """What they cost."""
    return _cost("nulls_tail")


@part
def nulls_held_out() -> str:
    """Paper C: the map of every other pseudo-null, judged on the others."""
    return _held_out("nulls")


@part
def nulls_simulated() -> str:
    """Paper C: simulated data sets without a signal, and what the map makes of them."""
    return _simulated("nulls")


@part
def haxad_redraws() -> str:
    """Paper A: whether the data of the first look's signal regions were like other data."""
    known = record("haxad_redraws")

    def told(which: str, what: str) -> str:
        entry = known[which][what]
        return f"{signed(100 * entry['mean'], 100 * entry['error'], 0)} %"

    return (
        f"Held-out data of the {known['first']['sets']} signal regions pass the cut more often than all other "
        f"simulated continuum does, by {told('first', 'data')}. Signal regions drawn anew from the same events do not: "
        f"{told('redrawn', 'data')} in {known['redrawn']['sets']}, with the same flows and sidebands. The true share "
        f"that passes there is above that of the sidebands, by {told('redrawn', 'region')}"
    )
