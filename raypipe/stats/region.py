"""A blinded signal region as one counting bin between its sidebands."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from raypipe.errors import UserError
from raypipe.stats.spectrum import Bins


@dataclass(frozen=True)
class Region:
    """Data split at a signal region: its edges (bin edges) and content, and the bins outside.

    ``joined``: the sidebands with the region as one more bin. ``template``: (len(joined),) one in that bin, else zero.
    """

    low: float
    high: float
    count: float
    variance: float
    scale: float
    sidebands: Bins
    joined: Bins
    template: np.ndarray


def split_region(bins: Bins, region: tuple[float, float]) -> Region:
    """Sidebands and counting bin; bins of a histogram across an edge of the region belong to neither."""
    low, high = region
    slack = 1e-6 * (bins.high - bins.low)
    inside = (bins.low >= low - slack) & (bins.high <= high + slack)
    outside = (bins.high <= low + slack) | (bins.low >= high - slack)
    notes = bins.notes
    if not inside.any():
        raise UserError(f"no whole bin of the histogram lies in the signal region {low:g}-{high:g}")
    across = int((~inside & ~outside).sum())
    if across:
        notes += (f"{across} bins across an edge of the signal region left out of region and sidebands",)
    low, high = float(bins.low[inside].min()), float(bins.high[inside].max())
    sidebands = replace(bins.select(outside), notes=notes)
    if not (sidebands.counts != 0).any():
        raise UserError(f"the sidebands of the signal region {low:g}-{high:g} are empty: no background to learn")
    n, variance = float(bins.counts[inside].sum()), float(bins.variance[inside].sum())
    scale = variance / n if n > 0 and bins.errors is None else float(bins.scale[inside].mean())
    order = np.argsort(np.r_[sidebands.low, low])
    put = lambda values, one: np.r_[values, one][order]  # noqa: E731
    joined = replace(
        sidebands,
        low=put(sidebands.low, low),
        high=put(sidebands.high, high),
        counts=put(sidebands.counts, n),
        scale=put(sidebands.scale, scale if bins.squares is None else bins.scale[0]),
        squares=None if sidebands.squares is None else put(sidebands.squares, variance),
        errors=None if sidebands.errors is None else put(sidebands.errors, variance**0.5),
    )
    return Region(low, high, n, variance, scale, sidebands, joined, put(np.zeros(len(sidebands)), 1.0))
