"""Embeddings and methods side by side: SIC against strength, and the injection needed (paper C, figures 4 to 7)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import cycle, product
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from raypipe.report.style import CYCLE, new_figure
from raypipe.search.result import NO_SIGNAL
from raypipe.stats.significance import mean_and_error

Rows = Sequence[Mapping[str, Any]]
COLUMNS = 5
"""Signals beside each other in a figure; more go below, so that a page can show them."""


def _ways(rows: Rows) -> list[tuple[str, str]]:
    """Pairs of embedding and method, in the order of the rows."""
    return list(dict.fromkeys((r["embedding"], r["method"]) for r in rows))


def _colours(ways: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Any]:
    return dict(zip(ways, cycle(CYCLE), strict=False))


def with_signal(rows: Rows) -> tuple[list[str], list[tuple[str, str]]]:
    """Signals, and the ways that were tried on any."""
    mine = [r for r in rows if r["signal"] != NO_SIGNAL]
    return sorted({r["signal"] for r in mine}), _ways(mine)


def curve(rows: Rows, quantity: str, way: tuple[str, str], signal: str, point: float) -> np.ndarray:
    """(k, 4) array of strength, and mean, standard error and deviation over instances (NaN with one) of a quantity.

    Instances whose value does not exist or is withheld are left out.
    """
    mine = [r for r in rows if (r["embedding"], r["method"], r["signal"], r["working_point"]) == (*way, signal, point)]
    out = []
    for strength in sorted({r["strength"] for r in mine}):
        values = [r[quantity] for r in mine if r["strength"] == strength and np.isfinite(r[quantity])]
        if values:  # not withheld
            mean, error = mean_and_error(values)
            error = np.nan if error is None else error
            out.append((strength, mean, error, error * math.sqrt(len(values))))
    return np.array(out).reshape(-1, 4)


def sic_by_strength(rows: Rows, points: Sequence[float]) -> Figure:
    """SIC against the injected strength: a panel for each signal and working point, those of a signal in one column.

    Bars are standard errors of the mean, bands standard deviations of single instances.
    """
    signals, ways = with_signal(rows)
    columns = min(COLUMNS, len(signals))
    blocks = math.ceil(len(signals) / columns)
    figure, axes = new_figure(columns * blocks * len(points), 4.4, 3.4, columns)
    # (blocks * columns, points): those of one signal below each other
    grid = np.reshape(axes, (blocks, len(points), columns)).swapaxes(1, 2).reshape(-1, len(points))
    for axis in grid[len(signals) :].flat:
        axis.set_axis_off()
    for (number, signal), (i, point) in product(enumerate(signals), enumerate(points)):
        axis = grid[number, i]
        for way, colour in _colours(ways).items():
            x, y, e, spread = curve(rows, "sic", way, signal, point).T
            axis.fill_between(x, y - spread, y + spread, color=colour, alpha=0.15, lw=0)
            axis.errorbar(x, y, np.nan_to_num(e), marker="o", ms=4, lw=1.2, color=colour, label=" ".join(way))
        top = axis.dataLim.ymax  # with error bars; margins are a share of the spread, which a single strength lacks
        axis.set(title=f"{signal}, cut at {point:.1%}", xlabel=r"injected $S/\sqrt{B}$", ylabel="SIC")
        axis.set(ylim=(0, 1.15 * top if np.isfinite(top) else None), xlim=(0, 1.1 * max(r["strength"] for r in rows)))
    grid[0, 0].legend(fontsize=7)
    return figure


def crossing(strengths: np.ndarray, significances: np.ndarray, target: float) -> float:
    """Smallest strength at which the significance reaches ``target``, linear between the points and through the origin.

    Infinity when the largest strength does not reach it.
    """
    x, y = np.r_[0.0, strengths], np.r_[0.0, significances]
    above = np.flatnonzero(y >= target)
    if not len(above):
        return float("inf")
    k = above[0]
    return float(x[k - 1] + (target - y[k - 1]) / (y[k] - y[k - 1]) * (x[k] - x[k - 1]))


def required_strength(rows: Rows, way: tuple[str, str], signal: str, point: float, target: float) -> np.ndarray:
    """Strengths at which the mean significance after the cut reaches ``target``: of all instances, then without each.

    The (1 + instances,) array is what a jackknife needs: `jackknife` gives the standard error of a number, and of the
    difference of two that come from the same pseudo-data sets.
    """
    mine = [r for r in rows if r["signal"] == signal and (r["embedding"], r["method"]) == way]
    found = []
    for without in (None, *sorted({r["instance"] for r in mine})):
        kept = [r for r in mine if r["instance"] != without]
        found.append(crossing(*curve(kept, "z_after", way, signal, point).T[:2], target))
    return np.array(found)


def jackknife(values: np.ndarray) -> tuple[float, float | None]:
    """The first value, and its standard error from the others (made without one instance each); None with one.

    Where some of them are infinite, because the largest strength then does not reach the target, there is none either.
    """
    one_less = values[1:]
    if len(one_less) < 2 or not np.isfinite(values).all():
        return float(values[0]), None
    return float(values[0]), float(np.sqrt((len(one_less) - 1) * np.var(one_less)))


def required_table(rows: Rows, points: Sequence[float], target: float) -> list[dict[str, Any]]:
    """For each signal, way and cut, the injected strength at which the mean significance after it reaches a target.

    ``required`` is None, and ``largest`` (the largest strength of the scan) a lower bound, where none reaches it.
    """
    out = []
    signals, ways = with_signal(rows)
    for signal, way, point in product(signals, ways, points):
        strengths = curve(rows, "z_after", way, signal, point)[:, 0]
        if len(strengths):
            required, error = jackknife(required_strength(rows, way, signal, point, target))
            entry = {"signal": signal, "embedding": way[0], "method": way[1], "working_point": point, "target": target}
            found = required if np.isfinite(required) else None
            out.append(entry | {"required": found, "standard_error": error, "largest": float(strengths[-1])})
    return out


def required_injection(table: list[dict[str, Any]]) -> Figure:
    """The table of `required_table` as points with errors, a panel for each cut; arrows are lower bounds."""
    signals, points = (list(dict.fromkeys(e[name] for e in table)) for name in ("signal", "working_point"))
    figure, axes = new_figure(len(points), max(6.0, 1.1 * len(signals) + 3), 3.6, 1)
    ways = _ways(table)
    colours = _colours(ways)
    for axis, point in zip(axes, points, strict=True):
        entries = [entry for entry in table if entry["working_point"] == point]
        labels = {way: " ".join(way) for way in ways}
        for entry in entries:
            way, largest = (entry["embedding"], entry["method"]), entry["largest"]
            x = signals.index(entry["signal"]) + 0.7 / len(ways) * (ways.index(way) - (len(ways) - 1) / 2)
            style = {"color": colours[way], "label": labels.pop(way, None)}  # one label a way
            if entry["required"] is not None:
                axis.errorbar(x, entry["required"], entry["standard_error"], fmt="o", **style)
            else:
                axis.plot(x, largest, "_", ms=8, **style)
                arrow = {"arrowstyle": "->", "color": colours[way]}
                axis.annotate("", (x, largest * 1.15), (x, largest), arrowprops=arrow)
        axis.set_xticks(range(len(signals)), signals, rotation=30, ha="right", fontsize=8)
        largest = max(1.15 * e["largest"] if e["required"] is None else e["required"] for e in entries)
        ylabel = rf"$S/\sqrt{{B}}$ for {entries[0]['target']:g} sigma after the cut"
        axis.set(title=f"cut at {point:.1%}", ylabel=ylabel, ylim=(0, 1.1 * largest), xlim=(-0.5, len(signals) - 0.5))
        axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure
