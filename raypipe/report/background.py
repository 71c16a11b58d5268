"""How well a search knew its background: closure, κ and pulls after the cuts, and what a cut does to the mass."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import chi2

from raypipe.config.run import DiphotonRun
from raypipe.report.html import say, what
from raypipe.report.style import COLOURS, new_figure
from raypipe.report.summary import largest_overlap
from raypipe.search.base import plain
from raypipe.search.result import NO_SIGNAL
from raypipe.stats.bins import sculpting_test

Row = Mapping[str, Any]


def asked(config: DiphotonRun) -> dict[str, Any]:
    """What the texts of a page name of a search in pseudo-data."""
    window, signals = config.window, ", ".join(config.scan.signals) or "no signal"
    told = {"low": window.sr_low, "high": window.sr_high, "signals": signals}
    return told | {"luminosity": config.pseudodata.luminosity, "cut": config.selection.working_points[0]}


def verdict(entries: Sequence[Row], z: str, texts: Mapping[str, str]) -> list[str]:
    """What was found (significances ``<z>_before``, ``<z>_after``) and whether the background closes, from entries.

    Then a sentence for every entry that has the latter.
    """
    told = []
    for who, null in (("with a signal", False), ("without", True)):
        mine = [e for e in entries if (e["signal"] == NO_SIGNAL) == null and e[f"{z}_before"] and e[f"{z}_after"]]
        means = ([round(e[f"{z}_{when}"]["mean"], 1) + 0.0 for e in mine] for when in ("before", "after"))
        spans = [" to ".join(str(v) for v in sorted({min(m), max(m)})) for m in means if m]
        told += [f"{who} {spans[0]}σ before the cut, {spans[1]}σ after it"] if spans else []
    sets = sum(e["instances"] for e in entries)
    bad = sum(held["instances"] for e in entries if (held := e.get("withheld")))
    close = f"does NOT close in {bad} of {sets} searches, which quote none" if bad else f"closes in all {sets} searches"
    lines = [f"Mean significance {'; '.join(told) or 'withheld'}. The background model {close}."] if entries else []
    quoted = (e for e in entries if e[f"{z}_after"])
    return lines + [say(texts["no_signal" if e["signal"] == NO_SIGNAL else "found"], e) for e in quoted]


def sculpting(rows: Sequence[Row], arrays_of: Callable[[str], Mapping[str, np.ndarray]]) -> list[dict[str, Any]]:
    """Whether a cut changes the mass spectrum of the true background, by signal and strength, from rows of one cut.

    ``p_values``: of the pseudo-data sets (`sculpting_test`), and how many of them are ``below`` 0.05. ``p``: of all of
    them stacked, which sees what is too small for one; ``before, after, edges``: the stack, in bins of 5 units of mass.
    An event that k sets share is in the stack k times: χ² is divided by 1 + (k-1)ρ of their overlap ρ.
    """
    groups: dict[tuple[str, float], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["signal"], row["strength"]), []).append(row)
    found = []
    for (signal, strength), members in groups.items():
        arrays = [arrays_of(row["key"]) for row in members]
        edges = np.asarray(arrays[0]["mass_edges"])
        starts = np.arange(0, len(edges) - 1, max(1, round(5 / (edges[1] - edges[0]))))
        stack = (sum(np.asarray(a[f"mass_{when}_background"]) for a in arrays) for when in ("before", "after"))
        before, after = (np.add.reduceat(counts, starts).astype(int) for counts in stack)
        edges = np.r_[edges[starts], edges[-1]]
        mass = np.repeat(np.tile((edges[1:] + edges[:-1]) / 2, 2), np.r_[after, before - after])
        value, ndf, _ = sculpting_test(mass, np.arange(len(mass)) < after.sum(), edges)
        value /= 1 + (len(members) - 1) * largest_overlap(members)
        single = [row["sculpting_p"] for row in members if np.isfinite(row["sculpting_p"])]
        entry = {"signal": signal, "strength": strength, "working_point": members[0]["working_point"]}
        entry |= {"instances": len(members), "p_values": single, "smallest": min(single, default=None)}
        entry |= {"below": sum(p < 0.05 for p in single), "chi2": value, "ndf": ndf}
        entry |= {"p": float(chi2.sf(value, ndf)) if ndf else None, "edges": edges.tolist()}
        found.append(plain(entry | {"before": before.tolist(), "after": after.tolist()}))
    return found


def sculpting_figure(entries: Sequence[Row]) -> Figure | None:
    """The stacked true background before and after the cut, alike in area, and the passing share; of the sets without
    a signal if there are any."""
    if not entries:
        return None
    entry = min(entries, key=lambda e: e["signal"] != NO_SIGNAL)
    figure, (left, right) = new_figure(2)
    edges, before, after = (np.array(entry[name], float) for name in ("edges", "before", "after"))
    widths, centres, share = np.diff(edges), (edges[1:] + edges[:-1]) / 2, after.sum() / max(before.sum(), 1)
    left.stairs(before * share / widths, edges, color=COLOURS["true"], fill=True, alpha=0.3, label="before, scaled")
    style = {"fmt": "o", "ms": 3, "lw": 0.9, "color": COLOURS["data"]}
    left.errorbar(centres, after / widths, np.sqrt(after) / widths, label="after the cut", **style)
    left.set(xlabel="mass", ylabel="events / unit of mass", ylim=(0, None), title=f"true background, {what(entry)}")
    left.legend(fontsize=8)
    seen = before > 0
    passing, n = after[seen] / before[seen], before[seen]
    right.errorbar(centres[seen], passing, np.sqrt(share * (1 - share) / n), label="passing share", **style)
    right.axhline(share, color=COLOURS["true"], lw=1)
    test = "" if entry["p"] is None else f": χ²/ndf = {entry['chi2']:.1f}/{entry['ndf']}, p = {entry['p']:.2g}"
    right.set(xlabel="mass", ylabel="share that passes", ylim=(0, None))
    right.set_title(f"{entry['instances']} sets stacked{test}")
    return figure
