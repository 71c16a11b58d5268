"""Receiver operating characteristics: AUC, and the significance improvement characteristic (SIC) with its bootstrap."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import poisson

from raypipe import seeds


def weighted_auc(scores: np.ndarray, is_signal: np.ndarray, weights: np.ndarray | None = None) -> tuple[float, float]:
    """Area under the ROC curve and its error (DeLong 1988), weights of any sign; an empty class is a `ValueError`."""
    weights = np.ones(len(scores)) if weights is None else weights
    order = np.argsort(scores, kind="stable")
    s, y, w = scores[order], is_signal[order].astype(bool), weights[order]
    # Ties count one half: work on blocks of equal score.
    starts = np.flatnonzero(np.r_[True, s[1:] != s[:-1]])
    signal, background = (np.add.reduceat(np.where(mask, w, 0.0), starts) for mask in (y, ~y))
    n1, n2 = signal.sum(), background.sum()
    if not (n1 > 0 and n2 > 0):
        raise ValueError("AUC needs events of both classes, with a positive sum of weights")
    beaten = (np.cumsum(background) - background / 2) / n2  # share of the background below, by block
    missed = 1 - (np.cumsum(signal) - signal / 2) / n1
    auc = float((signal * beaten).sum() / n1)
    variance = 0.0
    for mask, total, share in ((y, n1, beaten), (~y, n2, missed)):
        squares = np.add.reduceat(np.where(mask, w, 0.0) ** 2, starts)
        effective = total**2 / squares.sum()
        variance += float((squares * (share - auc) ** 2).sum()) / total**2 * effective / max(effective - 1, 1)
    return auc, math.sqrt(variance)


NEIGHBOURS = 10  # Events of the reference on either side of a score whose weights an event of that score may have


def tail_shares(
    scores: np.ndarray, reference: np.ndarray, weights: np.ndarray, *, own: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """For each score, the shares of the background strictly above it, and at or above it with itself.

    A judged event among n of the reference, k at or above it, has (k+1)/(n+1), never zero; one of the reference itself
    (``own``) of rank r has r/(n+1). Weighted events count with their weight, the judged one with that of a background
    event at its place: ``sum w^2 / sum |w|`` over its neighbours.
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
    """Signal efficiency and SIC at background efficiencies, small is signal; NaN below 25 events (2309.13111)."""
    order = np.argsort(background)
    passing = np.maximum.accumulate(np.cumsum(background_weights[order])) / background_weights.sum()
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
    error: float  # Statistical: binomial of the signal efficiency and Poisson of the background that passes
    signal_efficiency: float
    background_efficiency: float


def max_sic(
    signal: np.ndarray, background: np.ndarray, least: int = 25, weights: tuple[np.ndarray, np.ndarray] | None = None
) -> BestSic | None:
    """Largest SIC over all cuts ``score >= t`` that keep at least ``least`` background events; None with fewer.

    The default is the plot rule of 2309.13111. ``weights`` of signal and background may be negative; ``least`` then
    counts effective events, (sum w)^2 / sum w^2.
    """
    if len(background) < least or not len(signal):
        return None
    ws, wb = (np.ones(len(signal)), np.ones(len(background))) if weights is None else weights
    falling = np.sort(background)[::-1]
    # Cut at the score of every background event: ties pass together.
    passing, squares = (_above(background, w, falling) for w in (wb, wb**2))
    found, found_squares = (_above(signal, w, falling) for w in (ws, ws**2))
    eps_s, eps_b = found / ws.sum(), passing / wb.sum()
    enough = (passing > 0) & (passing**2 >= least * squares * (1 - 1e-9))
    curve = np.where(enough, eps_s / np.sqrt(np.where(enough, eps_b, 1.0)), -np.inf)
    best = int(np.argmax(curve))
    if not enough[best]:
        return None
    s, b = float(eps_s[best]), float(eps_b[best])
    spread = (1 - s) ** 2 * found_squares[best] + s**2 * ((ws**2).sum() - found_squares[best])
    relative = math.hypot(
        math.sqrt(spread) / (s * ws.sum()) if s > 0 else 0.0, 0.5 * math.sqrt(squares[best]) / passing[best]
    )
    return BestSic(float(curve[best]), float(curve[best]) * relative, s, b)


def _above(scores: np.ndarray, weights: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    """Sum of the weights of scores at or above each cut."""
    order = np.argsort(scores)
    sums = np.r_[np.cumsum(weights[order][::-1])[::-1], 0.0]
    return sums[np.searchsorted(scores[order], cuts, side="left")]


REPLICAS = 200  # An error from as many replicas is known to 5 %


def poisson_weights(event_id: np.ndarray, seed: int, replicas: int = REPLICAS) -> np.ndarray:
    """Poisson(1) weights (replicas, n) uint8 of events by their id."""
    steps = poisson.cdf(np.arange(12), 1.0)
    uniform = (seeds.uniform_by_id(event_id, seed, "event-bootstrap", r) for r in range(replicas))
    return np.stack([np.searchsorted(steps, u).astype(np.uint8) for u in uniform])


def bootstrapped_efficiency(passed: np.ndarray, drawn: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """Weighted share of ``passed`` events (n,) in each replica ``drawn`` (replicas, n); NaN in one without any."""
    weight = np.ones(len(passed)) if weight is None else weight
    with np.errstate(divide="ignore", invalid="ignore"):
        return (drawn[:, passed] @ weight[passed]) / (drawn @ weight)


def replicated_sic(signal: np.ndarray, background: np.ndarray) -> np.ndarray:
    """SIC eps_S / sqrt(eps_B) from both efficiencies in every replica; NaN where no background passes."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(background > 0, signal / np.sqrt(background), np.nan)
