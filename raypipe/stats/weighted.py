"""Spectra of weighted events: told from other errors, their scale, and bins that sum to less than nought."""

from dataclasses import replace

import numpy as np

from raypipe.stats.bins import Bins

SPARSE = 10.0
"""Effective entries of the median bin below which errors from the contents bias a chi-square by ten per cent."""
MOST_SPREAD = 4.0  # Largest ratio of variance over content between parts of a spectrum of weighted events


def weigh(bins: Bins, squares: np.ndarray, note: str) -> Bins:
    """The bins as sums of weighted events whose squared weights sum to ``squares`` (B,) (Langenbruch, 1911.01303).

    All get one scale, sum(w^2)/sum(w), so that a free normalisation takes up their sum; equal weights: scaled Poisson.
    """
    total = float(squares.sum() / bins.counts.sum())
    equal = np.allclose(squares, total * bins.counts, rtol=1e-6, atol=1e-9 * total**2)
    bins = replace(bins, scale=np.full(len(bins), total), squares=None, errors=None)
    return bins if equal else replace(bins, squares=squares, notes=(*bins.notes, note))


def of_events(y: np.ndarray, errors: np.ndarray) -> bool:
    """Whether the errors of contents are those of weighted events, sqrt(sum w^2), rather than of measurements.

    Such errors follow the contents: with q the part of the squared error, and d that of the content, that their
    neighbours do not have, the slope of q against d is E[w] E[w^3] / E[w^2]^2 in units of the mean ratio, or else
    nought.
    """
    variance = errors**2
    if ((y == 0) & (errors == 0)).any():
        return True
    if y.sum() < 3 * np.sqrt(variance.sum()) or (y < -4 * errors).any():
        return False
    if np.median(y**2 / variance) < SPARSE:
        return True
    parts = [part for part in np.array_split(np.arange(len(y)), 5) if len(part)]
    ratio = np.array([variance[part].sum() / max(y[part].sum(), 1e-300) for part in parts])
    if len(y) < 6 or ratio.max() > MOST_SPREAD * ratio.min():
        return False
    middle = lambda v: (v[:-2] + v[1:-1] + v[2:]) / 3  # noqa: E731
    own = lambda v: v[1:-1] - (v[:-2] + v[2:]) / 2  # noqa: E731
    size = np.sqrt(middle(variance))
    content, square = own(y) / size, own(variance) / size * np.abs(middle(y)) / middle(variance)
    together = float(content @ square)
    spread = float(square @ square)
    slope = together / float(content @ content) if content.any() else 0.0
    correlation = together / np.sqrt(float(content @ content) * spread) if spread > 0 and content.any() else 0.0
    return slope > 0.1 and correlation > 0.2 and spread < 50 * len(content)


def join_negative(bins: Bins, region: tuple[float, float] | None = None) -> Bins:
    """Bins of weighted events whose contents are negative, added to a neighbour until none is.

    Nothing is added across a gap or an edge of ``region``; where that leaves a negative content, all get Gaussian
    errors.
    """
    if bins.errors is not None or (bins.counts >= 0).all():
        return bins
    slack = 1e-6 * (bins.high - bins.low).min()
    low, high = region if region is not None else (-np.inf, np.inf)
    beyond = [bins.high > low + slack, bins.low >= low - slack, bins.high > high + slack, bins.low >= high - slack]
    wall = np.r_[True, (bins.low[1:] > bins.high[:-1] + slack) | (np.diff(np.sum(beyond, 0)) != 0)]
    starts: list[int] = []
    totals: list[float] = []
    for k, n in enumerate(bins.counts):
        if starts and totals[-1] < 0 and not wall[k]:  # the first of its stretch, still short
            totals[-1] += n
        else:
            starts.append(k)
            totals.append(n)
        while totals[-1] < 0 and not wall[starts[-1]]:
            last = totals.pop()
            totals[-1] += last
            starts.pop()
    if min(totals) < 0:
        return gaussian(bins)
    first = np.array(starts)
    add = lambda v: None if v is None else np.add.reduceat(v, first)  # noqa: E731
    note = f"{len(bins) - len(first)} bins added to a neighbour because contents were negative"
    high = bins.high[np.r_[first[1:] - 1, len(bins) - 1]]
    sums = {"counts": add(bins.counts), "squares": add(bins.squares)}
    return replace(bins.take(first), high=high, **sums, notes=(*bins.notes, note))


def gaussian(bins: Bins) -> Bins:
    """The same with Gaussian errors; an empty bin gets that of one average event."""
    errors = np.sqrt(np.where(bins.variance > 0, bins.variance, bins.scale**2))
    note = "negative contents: Gaussian chi-square, empty bins with the error of one average event"
    return replace(bins, errors=errors, scale=np.ones(len(bins)), squares=None, notes=(*bins.notes, note))
