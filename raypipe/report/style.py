"""Colours and canvases shared by all figures."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

COLOURS = {"data": "black", "template": "#3f90da", "true": "#bd1f01", "signal": "#832db6", "fit": "#ffa90e"}


def new_figure(columns: int = 1, rows: int = 1, width: float = 5.2, height: float = 4.0) -> tuple[Figure, Any]:
    """A figure that needs no display, with its axes."""
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    return figure, figure.subplots(rows, columns)
