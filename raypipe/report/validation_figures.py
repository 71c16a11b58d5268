"""Figures of a validation page: overlaid shapes, one panel a family, so that dozens of samples stay readable."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from raypipe.report.style import new_figure
from raypipe.report.validation_data import SampleSums, Spectrum
from raypipe.report.validation_quantities import SLOT_NAMES, Quantity

MAX_COLUMNS = 3
LUMINOSITY_UNIT = r"fb$^{-1}$"


def _canvas(panels: int, width: float = 4.4, height: float = 3.3) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels in at most three columns; unused places stay empty."""
    columns = min(MAX_COLUMNS, panels)
    width, height = (6.4, 4.0) if panels == 1 else (width, height)
    figure, grid = new_figure(columns, -(-panels // columns), width, height)
    axes = list(np.ravel(grid))
    for axis in axes[panels:]:
        axis.set_axis_off()
    return figure, axes[:panels]


def draw(axis: Axes, spectrum: Spectrum, label: str, **style: Any) -> np.ndarray:
    """Steps of the normalised shape with its statistical errors as bars; returns the heights."""
    heights, errors = spectrum.shape()
    axis.stairs(heights, spectrum.edges, label=label, lw=1.2, **style)
    seen = heights > 0
    axis.errorbar(spectrum.centres[seen], heights[seen], errors[seen], fmt="none", elinewidth=0.7, alpha=0.7, **style)
    return heights


def shapes(quantity: Quantity, panels: Sequence[tuple[str, list[SampleSums]]], reference: SampleSums | None) -> Figure:
    """One quantity of all samples, normalised to one.

    Args:
        panels: title and samples of each panel.
        reference: sample drawn grey in every panel that does not hold it.
    """
    figure, axes = _canvas(len(panels))
    tops, floors = [], []
    for axis, (title, samples) in zip(axes, panels, strict=True):
        if reference is not None and reference not in samples:
            spectrum = reference.spectra[quantity.name]
            heights, _ = spectrum.shape()
            axis.stairs(heights, spectrum.edges, color="0.75", fill=True, alpha=0.5, label=reference.name)
            tops.append(heights.max())
        for colour, sample in zip(cycle(mpl.color_sequences["petroff10"]), samples, strict=False):
            heights = draw(axis, sample.spectra[quantity.name], sample.name, color=colour)
            tops.append(heights.max())
            floors += [heights[heights > 0].min()] if (heights > 0).any() else []
        axis.set_title(title, fontsize=9)
        axis.set(xlabel=quantity.label, ylabel="share of events / bin", xlim=(quantity.edges[0], quantity.edges[-1]))
        axis.legend(fontsize=7)
    top = max(tops, default=0) or 1.0
    for axis in axes:
        if quantity.log:
            axis.set(yscale="log", ylim=(max(min(floors, default=1e-4), 1e-5 * top) / 2, 4 * top))
        else:
            axis.set_ylim(0, None)
    return figure


def stacked(quantity: Quantity, samples: Sequence[SampleSums]) -> Figure:
    """Expected events per fb^-1 and unit of the standard-model samples, one on top of the other."""
    figure, (axis,) = _canvas(1)
    edges, width = quantity.edges, np.diff(quantity.edges)
    below, variance, smallest = np.zeros(len(width)), np.zeros(len(width)), []
    for colour, sample in zip(cycle(mpl.color_sequences["petroff10"]), samples, strict=False):
        spectrum = sample.spectra[quantity.name]
        top = below + spectrum.counts / width
        axis.stairs(top, edges, baseline=below, fill=True, color=colour, alpha=0.8, lw=0.5, label=sample.name)
        variance += (spectrum.errors / width) ** 2
        smallest += [spectrum.counts[spectrum.counts > 0].min()] if spectrum.counts.any() else []
        below = top
    style = {"fmt": "none", "ecolor": "k", "elinewidth": 0.8, "label": "statistical error"}
    axis.errorbar((edges[:-1] + edges[1:]) / 2, below, np.sqrt(variance), **style)
    axis.set(
        yscale="log",
        ylim=(max(min(smallest, default=1.0) / width.max(), 1e-6 * below.max()), 3 * below.max()),
        xlim=(edges[0], edges[-1]),
        xlabel=quantity.label,
        ylabel=f"events / GeV / {LUMINOSITY_UNIT}",
    )
    axis.legend(fontsize=8)
    return figure


def presence(rows: dict[str, dict[str, Any]]) -> Figure:
    """Shares of filled slots beside the reference, one panel a sample.

    Args:
        rows: sample -> the entry of `raypipe.report.validation_numbers.presence_table`.
    """
    figure, axes = _canvas(len(rows), 5.2, 3.2)
    place = np.arange(len(SLOT_NAMES))
    for axis, (name, entry) in zip(axes, rows.items(), strict=True):
        ours, errors, theirs = (
            [entry["slots"][s][what] for s in SLOT_NAMES] for what in ("ours", "error", "reference")
        )
        axis.bar(place, theirs, width=0.7, color="0.85", label=f"{entry['label']} (numbers.md)")
        axis.errorbar(place, ours, errors, fmt="o", ms=4, color="#bd1f01", label=name)
        photons = [entry["variants"][f"fat_photons_{i}"]["value"] for i in (1, 2)]
        axis.plot([4, 5], photons, "d", ms=5, mfc="none", color="#3f90da", label="photons clustered too")
        axis.set_xticks(place, SLOT_NAMES)
        axis.set(ylabel="share of events", ylim=(0, 1.08))
        axis.legend(fontsize=7)
    return figure
