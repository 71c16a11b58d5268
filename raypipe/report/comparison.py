"""Embeddings and methods side by side: SIC against strength, and the injection needed (paper C, figures 4 to 7)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from raypipe.config import Config
from raypipe.report.style import new_figure
from raypipe.search.result import NO_SIGNAL
from raypipe.stats.significance import mean_and_error

Rows = Sequence[Mapping[str, Any]]


def _ways(rows: Rows) -> list[tuple[str, str]]:
    return list(dict.fromkeys((r["embedding"], r["method"]) for r in rows if r["signal"] != NO_SIGNAL))


def _signals(rows: Rows) -> list[str]:
    return sorted({r["signal"] for r in rows if r["signal"] != NO_SIGNAL})


def curve(rows: Rows, quantity: str, way: tuple[str, str], signal: str, point: float) -> np.ndarray:
    """(k, 3) array of strength, mean and standard error over instances (NaN with one) of a quantity."""
    mine = [r for r in rows if (r["embedding"], r["method"]) == way and r["signal"] == signal
            and r["working_point"] == point]  # fmt: skip
    out = []
    for strength in sorted({r["strength"] for r in mine}):
        mean, error = mean_and_error([r[quantity] for r in mine if r["strength"] == strength])
        out.append((strength, mean, np.nan if error is None else error))
    return np.array(out).reshape(-1, 3)


COLUMNS = 5
"""Signals beside each other in a figure; more go below, so that a page can show them."""


def sic_by_strength(rows: Rows, points: Sequence[float]) -> Figure:
    """SIC against the injected strength: a panel for each signal and working point, those of a signal in one column."""
    signals, ways = _signals(rows), _ways(rows)
    columns = min(COLUMNS, len(signals))
    blocks = math.ceil(len(signals) / columns)
    figure, axes = new_figure(columns, blocks * len(points), 4.4, 3.4)
    grid = np.reshape(axes, (blocks, len(points), columns))
    for number, signal in enumerate(signals):
        for i, point in enumerate(points):
            axis = grid[number // columns, i, number % columns]
            for colour, way in zip(_colours(len(ways)), ways, strict=True):
                x, y, e = curve(rows, "sic", way, signal, point).T
                axis.errorbar(x, y, np.nan_to_num(e), marker="o", ms=4, lw=1.2, color=colour, label=" ".join(way))
            top = axis.dataLim.ymax  # with error bars; margins are a share of the spread, which a single strength lacks
            axis.set(
                title=f"{signal}, cut at {point:.1%}", xlabel=r"injected $S/\sqrt{B}$", ylabel="SIC",
                ylim=(0, 1.15 * top if np.isfinite(top) else None), xlim=(0, 1.1 * max(r["strength"] for r in rows)),
            )  # fmt: skip
    for number in range(len(signals), blocks * columns):
        for i in range(len(points)):
            grid[number // columns, i, number % columns].axis("off")
    grid[0, 0, 0].legend(fontsize=7)
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


def required_table(rows: Rows, point: float, target: float) -> list[dict[str, Any]]:
    """For each signal and way, the injected strength at which the mean significance after the cut reaches a target."""
    out = []
    for signal in _signals(rows):
        for way in _ways(rows):
            strengths, z, _ = curve(rows, "z_after", way, signal, point).T
            if len(strengths):
                out.append(
                    {"signal": signal, "embedding": way[0], "method": way[1], "largest": float(strengths[-1]),
                     "required": crossing(strengths, z, target), "target": target}
                )  # fmt: skip
    return out


def required_injection(table: list[dict[str, Any]], config: Config) -> Figure:
    """The table of `required_table` as points; arrows are lower bounds."""
    signals = list(dict.fromkeys(entry["signal"] for entry in table))
    ways = list(dict.fromkeys((entry["embedding"], entry["method"]) for entry in table))
    figure, axis = new_figure(1, 1, max(6.0, 1.4 * len(signals) + 3), 4.2)
    colours = dict(zip(ways, _colours(len(ways)), strict=True))
    seen = set()
    for entry in table:
        way = entry["embedding"], entry["method"]
        x = signals.index(entry["signal"]) + 0.7 / len(ways) * (ways.index(way) - (len(ways) - 1) / 2)
        label = None if way in seen else " ".join(way)
        seen.add(way)
        if np.isfinite(entry["required"]):
            axis.plot(x, entry["required"], "o", color=colours[way], label=label)
        else:
            axis.plot(x, entry["largest"], "_", ms=8, color=colours[way], label=label)
            axis.annotate("", (x, entry["largest"] * 1.15), (x, entry["largest"]),
                          arrowprops={"arrowstyle": "->", "color": colours[way]})  # fmt: skip
    axis.set_xticks(range(len(signals)), signals, rotation=30, ha="right", fontsize=8)
    largest = max(e["required"] if np.isfinite(e["required"]) else 1.15 * e["largest"] for e in table)
    label = rf"$S/\sqrt{{B}}$ for {config.selection.target:g} sigma after the cut"
    axis.set(ylabel=label, ylim=(0, 1.1 * largest), xlim=(-0.5, len(signals) - 0.5))
    axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _colours(count: int) -> list[Any]:
    colours = mpl.color_sequences["petroff10"]
    return [colours[k % len(colours)] for k in range(count)]
