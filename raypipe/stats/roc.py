"""Receiver operating characteristics: AUC, and the significance improvement characteristic (SIC)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


def weighted_auc(scores: np.ndarray, is_signal: np.ndarray, weights: np.ndarray | None = None) -> tuple[float, float]:
    """Area under the ROC curve and its error if both classes were alike.

    The error is that of the Mann-Whitney statistic under the null hypothesis, ``sqrt((n1+n2+1)/(12 n1 n2))``, with the
    effective numbers of weighted events ``(sum w)^2 / sum w^2``.
    """
    weights = np.ones(len(scores)) if weights is None else weights
    order = np.argsort(scores, kind="stable")
    s, y, w = scores[order], is_signal[order].astype(bool), weights[order]
    # Ties count one half: work on blocks of equal score.
    starts = np.flatnonzero(np.r_[True, s[1:] != s[:-1]])
    signal = np.add.reduceat(np.where(y, w, 0.0), starts)
    background = np.add.reduceat(np.where(y, 0.0, w), starts)
    below = np.cumsum(background) - background
    n1, n2 = signal.sum(), background.sum()
    if n1 <= 0 or n2 <= 0:
        raise ValueError("AUC needs events of both classes")
    auc = float((signal * (below + 0.5 * background)).sum() / (n1 * n2))
    e1, e2 = (w[y].sum() ** 2 / (w[y] ** 2).sum(), w[~y].sum() ** 2 / (w[~y] ** 2).sum())
    return auc, math.sqrt((e1 + e2 + 1) / (12 * e1 * e2))


def background_percentile(scores: np.ndarray, reference: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """For each score, the weighted share of ``reference`` at or above it: small means signal-like.

    A description of the reference. A cut needs `tail_shares`: what lies above all of a finite reference is not at zero.
    """
    order = np.argsort(reference)
    above = np.r_[np.cumsum(weights[order][::-1])[::-1], 0.0] / weights.sum()
    return above[np.searchsorted(reference[order], scores, side="left")]


NEIGHBOURS = 10
"""Events of the reference on either side of a score whose weights an event of that score may have."""


def tail_shares(
    scores: np.ndarray, reference: np.ndarray, weights: np.ndarray, *, own: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """For each score, the shares of the background strictly above it, and at or above it with itself.

    Among n events of the reference a judged one is the (n+1)th: with k of them at or above it, its share is
    (k+1)/(n+1), never zero, and ``share <= f`` keeps at most the share f of the judged background. An event of the
    reference itself (``own``) of rank r has r/(n+1). Weighted events count with their weight, the one that is judged
    with that of a background event at its place: ``sum w^2 / sum |w|`` over its neighbours.
    """
    order = np.argsort(reference)
    ranked, w = reference[order], weights[order]
    above = np.r_[np.cumsum(w[::-1])[::-1], 0.0]
    place = np.arange(len(w) + 1)
    first, last = np.maximum(place - NEIGHBOURS, 0), np.minimum(place + NEIGHBOURS, len(w))
    sums, squares = (np.r_[0.0, np.cumsum(v)] for v in (np.abs(w), w**2))
    one = (squares[last] - squares[first]) / np.maximum(sums[last] - sums[first], 1e-300)
    better, least = ((above + extra) / (above[0] + one) for extra in (0.0, 0.0 if own else one))
    # Ascending with the place from the top whatever the weights; rounded, so that a cut at r/(n+1) keeps rank r.
    better, least = (np.round(np.maximum.accumulate(v[::-1])[::-1], 12) for v in (better, least))
    return better[np.searchsorted(ranked, scores, "right")], least[np.searchsorted(ranked, scores, "left")]


def sic(signal_efficiency: float, background_efficiency: float) -> float:
    """Significance improvement eps_S / sqrt(eps_B) of a cut (paper C, section IV.3)."""
    return signal_efficiency / math.sqrt(background_efficiency) if background_efficiency > 0 else math.nan


def sic_curve(
    signal: np.ndarray, background: np.ndarray, background_weights: np.ndarray, efficiencies: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Signal efficiency and SIC at given background efficiencies, from percentiles (small is signal-like).

    Returns NaN where fewer than 25 background events pass (relative error above 20 %; the plot rule of
    2309.13111).
    """
    order = np.argsort(background)
    passing = np.cumsum(background_weights[order]) / background_weights.sum()
    index = np.searchsorted(passing, efficiencies, side="right")
    cut = np.r_[-np.inf, background[order]][index]
    eps_s = np.searchsorted(np.sort(signal), cut, side="right") / max(1, len(signal))
    real = np.r_[0.0, passing][index]
    with np.errstate(divide="ignore", invalid="ignore"):
        curve = np.where(index >= 25, eps_s / np.sqrt(real), np.nan)
    return eps_s, curve


@dataclass(frozen=True)
class BestSic:
    """The cut with the largest SIC that enough background supports."""

    sic: float
    error: float
    """Statistical: binomial of the signal efficiency and Poisson of the background that passes."""
    signal_efficiency: float
    background_efficiency: float


def max_sic(signal: np.ndarray, background: np.ndarray, least: int = 25) -> BestSic | None:
    """Largest SIC over all cuts ``score >= t`` that keep at least ``least`` of the background events (unweighted).

    The default is the plot rule of 2309.13111: background known to 20 %. None with fewer events than that. The
    largest of many fluctuating values lies a little above the true one.
    """
    if len(background) < least or not len(signal):
        return None
    falling = np.sort(background)[::-1]
    # Cut at the score of every background event: ties pass together.
    passing = len(falling) - np.searchsorted(falling[::-1], falling, side="left")
    rising = np.sort(signal)
    eps_s = 1 - np.searchsorted(rising, falling, side="left") / len(rising)
    curve = np.where(passing >= least, eps_s / np.sqrt(passing / len(falling)), -np.inf)
    best = int(np.argmax(curve))
    s, k = float(eps_s[best]), float(passing[best])
    relative = math.hypot(math.sqrt((1 - s) / (s * len(rising))) if s else 0.0, 0.5 / math.sqrt(k))
    return BestSic(float(curve[best]), float(curve[best]) * relative, s, k / len(falling))
