"""Colours, canvases and files shared by all figures."""

import io
from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import mplhep
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from raypipe.files import write_text
from raypipe.report.numbers import numbers_of

COLOURS = {"data": "black", "template": "#3f90da", "true": "#bd1f01", "signal": "#832db6", "fit": "#ffa90e"}
CYCLE = mpl.color_sequences["petroff10"]
"""Colours of what has none of its own."""
STYLE = {k: v for k, v in mplhep.style.ATLAS.items() if k.startswith(("xtick.", "ytick."))}
STYLE |= {"xtick.labelsize": 9, "ytick.labelsize": 9, "ytick.major.size": 6, "ytick.minor.size": 3}
"""mplhep's ticks, at the size of text on a page."""


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
    with mpl.rc_context(STYLE):
        axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes[panels:]:
        axis.set_axis_off()
    return figure, axes[:panels]


def svg(figure: Figure, salt: str) -> str:
    """The figure as SVG with its text as text: the same for the same figure and ``salt``, which its ids hang on."""
    out = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": salt, "svg.fonttype": "none"}):
        figure.savefig(out, format="svg", metadata={"Date": None}, dpi=150)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def save_figures(figures: Mapping[str, Figure | None], folder: Path, label: str = "") -> dict[str, Path]:
    """Write figures under ``label`` as SVG, with their numbers as CSV beside it; name -> path of the SVG."""
    paths = {name: folder / f"{name}.svg" for name, figure in figures.items() if figure is not None}
    for name, path in paths.items():
        figures[name].suptitle(label, x=0.01, ha="left", fontsize=10, fontweight="bold", fontstyle="italic")
        write_text(path, svg(figures[name], name))
        write_text(path.with_suffix(".csv"), numbers_of(figures[name]))
    return paths
