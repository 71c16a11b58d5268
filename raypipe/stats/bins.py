"""Binned data: edges, contents and their variance, and a signal region cut out of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from scipy.stats import chi2

from raypipe.errors import UserError
from raypipe.events.fields import Rows


@dataclass(frozen=True)
class Bins(Rows):
    """Binned data in a ``window``: edges ``low``, ``high`` (B,), gaps allowed, and contents ``counts`` (B,).

    ``scale``: (B,) one for counts; content/scale is taken as Poisson distributed (Bohm and Zech, 1309.1287).
    ``errors``: (B,) for a Gaussian chi-square, else None. ``notes``: for the user. ``squares``: (B,) sums of squared
    weights that are not all equal, else None.
    """

    low: np.ndarray
    high: np.ndarray
    counts: np.ndarray
    scale: np.ndarray
    errors: np.ndarray | None
    window: tuple[float, float]
    notes: tuple[str, ...] = field(default=())
    squares: np.ndarray | None = None

    @property
    def likelihood(self) -> str:
        """``gaussian``, ``poisson``, ``scaled poisson`` or ``weighted``."""
        if self.errors is not None:
            return "gaussian"
        if self.squares is not None:
            return "weighted"
        return "poisson" if (self.scale == 1).all() else "scaled poisson"

    @property
    def variance(self) -> np.ndarray:
        """Observed variance of the contents."""
        if self.errors is not None:
            return self.errors**2
        return np.maximum(self.counts, 0) * self.scale if self.squares is None else self.squares

    def first(self, mask: np.ndarray) -> str:
        """The range of the first bin of a mask, for messages."""
        k = int(np.argmax(mask))
        return f"{self.low[k]:g}-{self.high[k]:g}"


def groups(content: np.ndarray, enough: float, join_rest: bool = True) -> np.ndarray:
    """First bins of groups of neighbours that hold ``enough`` each; what is left over joins the last one, or not."""
    starts, total = [0], 0.0
    for k, n in enumerate(content, start=1):
        total += n
        if total >= enough:
            starts.append(k)
            total = 0.0
    if len(starts) > 1 and (join_rest or starts[-1] == len(content)):
        starts.pop()
    return np.array(starts)


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
    if across := int((~inside & ~outside).sum()):
        notes += (f"{across} bins across an edge of the signal region left out of region and sidebands",)
    low, high = float(bins.low[inside].min()), float(bins.high[inside].max())
    sidebands = replace(bins.take(outside), notes=notes)
    if not (sidebands.counts != 0).any():
        raise UserError(f"the sidebands of the signal region {low:g}-{high:g} are empty: no background to learn")
    n, variance = float(bins.counts[inside].sum()), float(bins.variance[inside].sum())
    scale = variance / n if n > 0 and bins.errors is None else float(bins.scale[inside].mean())
    order = np.argsort(np.r_[sidebands.low, low])
    values = {"low": low, "high": high, "counts": n, "squares": variance, "errors": variance**0.5}
    values["scale"] = scale if bins.squares is None else bins.scale[0]
    one = replace(sidebands, **{name: np.array([values[name]]) for name in sidebands.arrays()})
    joined = Bins.concatenate([sidebands, one]).take(order)
    return Region(low, high, n, variance, scale, sidebands, joined, (order == len(sidebands)).astype(float))


def sculpting_test(mass: np.ndarray, passed: np.ndarray, edges: np.ndarray) -> tuple[float, int, float]:
    """Homogeneity test of the passing share over mass bins (paper C, figure 3): chi2, degrees of freedom, p-value.

    Neighbouring bins are joined until each expects at least five passing and failing events (Cochran's rule);
    ``(nan, 0, nan)`` when fewer than two bins are left.
    """
    total = np.histogram(mass, edges)[0].astype(float)
    kept = np.histogram(mass[passed], edges)[0].astype(float)
    share = kept.sum() / max(total.sum(), 1.0)
    starts = groups(total * min(share, 1 - share), 5.0)
    if len(starts) < 2:
        return float("nan"), 0, float("nan")
    n, k = np.add.reduceat(total, starts), np.add.reduceat(kept, starts)
    value = float((((k - share * n) ** 2) / (share * (1 - share) * n)).sum())
    return value, len(n) - 1, float(chi2.sf(value, len(n) - 1))
