"""Colours and canvases shared by all figures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from raypipe.files import atomic_path

COLOURS = {"data": "black", "template": "#3f90da", "true": "#bd1f01", "signal": "#832db6", "fit": "#ffa90e"}


def new_figure(columns: int = 1, rows: int = 1, width: float = 5.2, height: float = 4.0) -> tuple[Figure, Any]:
    """A figure that needs no display, with its axes."""
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    return figure, figure.subplots(rows, columns)


def save_figures(figures: Mapping[str, Figure | None], folder: Path, dpi: float = 110) -> dict[str, Path]:
    """Write the figures that there are as PNG into ``folder``, each whole or not at all; returns name -> path."""
    paths = {name: folder / f"{name}.png" for name, figure in figures.items() if figure is not None}
    for name, path in paths.items():
        with atomic_path(path) as temporary:
            figures[name].savefig(temporary, dpi=dpi)
    return paths
