"""The numbers behind a figure, read off what is drawn in it."""

import csv
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import FillBetweenPolyCollection, LineCollection
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch

HEAD = ("panel", "curve", "x", "x_high", "y", "low", "high")
"""``x`` to ``x_high`` is a bin; ``low`` to ``high`` an error bar, or a band, which has no ``y``."""


def numbers_of(figure: Figure) -> str:
    """CSV of the curves, points with errors, histograms and bands of a figure; ``#`` lines say what the axes are."""
    out, panels = io.StringIO(), [axis for axis in figure.axes if axis.has_data()]
    for k, axis in enumerate(panels, 1):
        told = "; ".join(filter(None, (axis.get_title(), f"x: {axis.get_xlabel()}", f"y: {axis.get_ylabel()}")))
        out.write(f"# panel {k}: {told}".replace("\n", " ") + "\n")
    table = csv.writer(out, lineterminator="\n")
    table.writerow(HEAD)
    for k, axis in enumerate(panels, 1):
        for artist, columns in _drawn(axis):
            label = str(artist.get_label() or "_child").removeprefix("_")
            name = "" if label.startswith(("child", "nolegend", "container")) else label
            rows = np.column_stack(np.broadcast_arrays(*(np.asarray(c, float) for c in columns)))
            table.writerows([k, name, *(f"{v:.6g}" if np.isfinite(v) else "" for v in row)] for row in rows)
    return out.getvalue()


def _ends(bars: LineCollection) -> np.ndarray:
    """(n, 2, 2) ends of error bars, NaN where nothing is drawn."""
    return np.array([path.vertices for path in bars.get_paths()]).reshape(-1, 2, 2)


def _drawn(axis: Axes) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """What is in units of the axes, and its (x, x_high, y, low, high), NaN for what there is not."""
    nan, parts = np.nan, set()
    for container in axis.containers:
        if isinstance(container, ErrorbarContainer):
            line, _, bars = container.lines
            parts.add(line)
            ends = _ends(bars[-1]) if container.has_yerr else None
            x, y = line.get_data(orig=False) if line is not None else (ends[:, 0, 0], ends[:, :, 1].mean(1))
            x, x_high = _ends(bars[0])[:, :, 0].T if container.has_xerr else (x, nan)
            yield container, (x, x_high, y, *((nan, nan) if ends is None else ends[:, :, 1].T))
    for line in axis.lines:
        if line not in parts and all(line.get_transform().contains_branch_seperately(axis.transData)):
            x, y = line.get_data(orig=False)
            yield line, (x, nan, y, nan, nan)
    for patch in axis.patches:
        if isinstance(patch, StepPatch):
            values, edges, _ = patch.get_data()
            yield patch, (edges[:-1], edges[1:], values, nan, nan)
    for band in axis.collections:
        if isinstance(band, FillBetweenPolyCollection):
            for path in band.get_paths():  # there along one edge and back along the other
                n = (len(path.vertices) - 3) // 2
                there, back = path.vertices[1 : n + 1], path.vertices[n + 2 : 2 * n + 2][::-1]
                yield band, (there[:, 0], nan, nan, there[:, 1], back[:, 1])
