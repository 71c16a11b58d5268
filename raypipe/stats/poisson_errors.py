"""Counts behind a published rate, told from the size of its errors."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

_CENTRAL = math.erf(1 / math.sqrt(2))
_FEW = 50  # Counts below which printed digits tell a whole number from others
_TABLE = np.geomspace(0.25, 1e9, 2000)


def garwood(n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper error of counts: the central 68.27 % interval of Garwood (1936), through chi-square quantiles."""
    n = np.asarray(n, float)
    tail = (1 - _CENTRAL) / 2
    low = np.where(n > 0, stats.chi2.ppf(tail, 2 * np.maximum(n, 1e-9)) / 2, 0.0)
    return n - low, stats.chi2.isf(tail, 2 * (n + 1)) / 2 - n


def counting_errors(y: np.ndarray, errors: np.ndarray) -> bool:
    """Whether published errors are those of counts: from sqrt(n) to the upper one of Garwood, in 95 % of the bins.

    Where half of the bins follow one convention, all must. Equal counts must have equal errors.
    """
    filled = y > 0
    n, e = y[filled], errors[filled]
    low, high = garwood(n)
    followed = [np.abs(e - usual) <= 0.03 * usual + 0.01 for usual in (np.sqrt(n), (low + high) / 2, high)]
    best = max(followed, key=np.mean)
    if best.mean() >= 0.5:
        return bool(best.all())
    near = (e >= 0.9 * np.sqrt(n) - 0.01) & (e <= 1.05 * high + 0.01)
    _, group, size = np.unique(n, return_inverse=True, return_counts=True)
    usual = e[np.lexsort((e, n))][(np.cumsum(size) - size + size // 2)[group]]
    same = np.abs(e - usual) <= 0.03 * usual + 0.01
    return bool(near.mean() >= 0.95 and same.mean() >= 0.95)


def rate_scale(y: np.ndarray, errors: np.ndarray, upper: np.ndarray | None = None) -> tuple[np.ndarray, str] | None:
    """Content of one event in every bin (B,) and the convention of the errors, or None where they are not of counts.

    The relative error of a rate gives its count n: 1/sqrt(n), or that of `garwood` (mean, or ``upper``). A convention
    holds if 95 % of the sparse bins (n below 50, at least four) come out as whole numbers within the rounding of three
    printed digits, and the factor is smooth.
    """
    filled = (y > 0) & (errors > 0)
    if filled.sum() < 4 or (filled != (y > 0)).any():
        return None
    relative = errors[filled] / y[filled]
    low, high = garwood(_TABLE)
    tried = [("sqrt(n)", relative**-2), ("Garwood", _invert(relative, (low + high) / 2))]
    if upper is not None and (upper[filled] > 0).all():
        tried.append(("Garwood", _invert(upper[filled] / y[filled], high)))
    for convention, n in tried:
        few = (n < _FEW) & (n > 0.5)
        off = np.abs(n[few] - np.round(n[few]))
        if few.sum() < 4 or (n <= 0.5).any() or (off < 0.03 + 1e-3 * n[few]).mean() < 0.95:
            continue
        if np.median(np.abs(np.diff(np.log(y[filled] / n), 2))) > 0.2:
            continue
        scale = np.empty(len(y))
        scale[filled] = y[filled] / np.where(few, np.round(n), n)
        if (~filled).any():  # empty bins: the factor of the nearest filled ones
            index = np.flatnonzero(filled)
            scale[~filled] = np.interp(np.flatnonzero(~filled), index, scale[filled])
        return scale, convention
    return None


def _invert(relative: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Counts whose relative error is the given one; ``error`` (table,) of `_TABLE`."""
    ratio = error / _TABLE  # falls with n
    return np.exp(np.interp(np.log(relative), np.log(ratio[::-1]), np.log(_TABLE[::-1])))
