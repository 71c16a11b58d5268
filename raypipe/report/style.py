"""Colours and canvases shared by all figures."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from raypipe.files import atomic_path

COLOURS = {"data": "black", "template": "#3f90da", "true": "#bd1f01", "signal": "#832db6", "fit": "#ffa90e"}
CYCLE = mpl.color_sequences["petroff10"]
"""Colours of what has none of its own."""


class Picture(Figure):
    """A figure that needs no display; a notebook shows it by itself."""

    def _repr_png_(self) -> bytes:
        self.savefig(file := io.BytesIO(), dpi=80)
        return file.getvalue()


def new_figure(panels: int = 1, width: float = 5.2, height: float = 4.0, columns: int = 3) -> tuple[Figure, list[Axes]]:
    """A figure that needs no display, and its panels row by row; ``width`` and ``height`` are of one panel."""
    columns = min(columns, panels)
    rows = -(-panels // columns)
    figure = Picture(figsize=(width * columns, height * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes[panels:]:
        axis.set_axis_off()
    return figure, axes[:panels]


def save_figures(figures: Mapping[str, Figure | None], folder: Path, dpi: float = 110) -> dict[str, Path]:
    """Write the figures that there are as PNG into ``folder``, each whole or not at all; returns name -> path."""
    paths = {name: folder / f"{name}.png" for name, figure in figures.items() if figure is not None}
    for name, path in paths.items():
        with atomic_path(path) as temporary:
            figures[name].savefig(temporary, dpi=dpi)
    return paths
