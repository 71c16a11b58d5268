"""Parts about searches without a signal: how often they report what (`make study-nulls`)."""

from __future__ import annotations

from typing import Any

from raypipe.report.html import plus_minus
from tests.readme.parts import markdown, part, record, share, signed


def _told(shares: float, band: list[float]) -> str:
    """A share with its 68 % band."""
    return f"{shares:.2g} ({band[0]:.1g}–{band[1]:.1g})"


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


@part
def nulls_held_out() -> str:
    """Paper C: the map of every other pseudo-null, judged on the others."""
    return _held_out("nulls")


@part
def nulls_simulated() -> str:
    """Paper C: simulated data sets without a signal, and what the map makes of them."""
    return _simulated("nulls")


@part
def nulls_cost() -> str:
    """Paper C: what they cost."""
    return _cost("nulls")


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
