"""A simulated background histogram brought onto the bins of the data."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from raypipe.errors import UserError
from raypipe.events.masses import Masses
from raypipe.events.spectra import Spectrum
from raypipe.stats.bins import Bins


@dataclass(frozen=True)
class Reference:
    """``expected`` (B,) simulated background yields over given bins and their statistical ``errors`` (B,)."""

    expected: np.ndarray
    errors: np.ndarray


def match_reference(bins: Bins, simulated: Masses | Spectrum) -> tuple[Bins, Reference]:
    """Simulated yields and statistical errors in the bins of the data.

    A histogram's bins are added where they nest in the data's. A bin without a simulated event gets one of the mean
    weight with that as error. Raises `UserError`: bins that do not nest, or nothing simulated in them.
    """
    if isinstance(simulated, Masses):
        weights = np.ones(len(simulated.values)) if simulated.weights is None else simulated.weights
        index = _bin_of(bins, simulated.values)
        inside = index >= 0
        expected = np.bincount(index[inside], weights[inside], len(bins))
        squares = np.bincount(index[inside], weights[inside] ** 2, len(bins))
    else:
        errors = np.sqrt(np.maximum(simulated.counts, 0)) if simulated.errors is None else simulated.errors
        low, high = _bin_of(bins, simulated.low, True), _bin_of(bins, simulated.high, False)
        inside = (low >= 0) & (low == high)
        expected = np.bincount(low[inside], simulated.counts[inside], len(bins))
        squares = np.bincount(low[inside], errors[inside] ** 2, len(bins))
        covered = np.bincount(low[inside], (simulated.high - simulated.low)[inside], len(bins))
        short = np.abs(covered - (bins.high - bins.low)) > 1e-3 * (bins.high - bins.low)
        if short.any():
            k = int(np.flatnonzero(short)[0])
            raise UserError(f"{simulated.source}: its bins do not tile the data's bin {bins.low[k]:g}-{bins.high[k]:g}")
    if not expected.sum() > 0:
        raise UserError(f"{simulated.source}: nothing simulated in the fitted bins")
    if (expected < 0).any():
        k = int(np.flatnonzero(expected < 0)[0])
        raise UserError(f"{simulated.source}: negative yield in {bins.low[k]:g}-{bins.high[k]:g}; use wider bins")
    one = squares.sum() / expected.sum()
    empty = expected <= 0
    expected, squares = np.where(empty, one, expected), np.where(empty, one**2, squares)
    notes = bins.notes
    if empty.any():
        share = expected[empty].sum() / expected.sum()
        told = f"{empty.sum()} bins without simulated events given one event of mean weight"
        notes += (told if share < 0.05 else f"{told}, {share:.0%} of all: use wider bins or a larger simulation",)
    return replace(bins, notes=notes), Reference(expected, np.sqrt(squares))


def _bin_of(bins: Bins, x: np.ndarray, lower: bool | None = None) -> np.ndarray:
    """Bin of every value or -1; edges belong to the bin above (``lower`` edges, values) or below (upper edges)."""
    slack = 1e-6 * np.min(bins.high - bins.low)
    shift = 0.0 if lower is None else (slack if lower else -slack)
    index = np.searchsorted(bins.low, x + shift, side="right") - 1
    ok = (index >= 0) & (x + shift <= bins.high[np.maximum(index, 0)])
    return np.where(ok, index, -1)
