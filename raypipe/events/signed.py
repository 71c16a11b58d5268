"""Weights with signs, as next-to-leading-order generators give them: sums keep the signs, fits and draws cannot."""

from collections.abc import Callable

import numpy as np
from scipy.spatial import cKDTree

from raypipe.errors import UserError
from raypipe.events.fields import fingerprint, first_equal

NEIGHBOURS = 16  # Nearest events that are looked up at a time
SOURCE = "weights: one would overcount, weights: "  # How to write the policy of a `raypipe.config.read.Source`


def refuse_negative(weights: np.ndarray, policy: str, option: str, place: Callable[[int, float], str]) -> None:
    """A negative weight is a `UserError`, unless the ``policy`` (set by ``option``) is ``sign``."""
    if policy != "sign" and len(weights) and weights.min() < 0:
        row = int(np.argmax(weights < 0))
        told = f"{option}sign keeps the signs (yields are sums of weights)"
        raise UserError(f"{place(row, weights[row])} is negative: {told}")


def describe(weights: np.ndarray) -> dict[str, float] | None:
    """What signs do to a sample, None where there are none: share of negative weights, sum, and sum of moduli."""
    if not len(weights) or weights.min() >= 0:
        return None
    found = {"negative": (weights < 0).mean(), "sum": weights.sum(), "absolute_sum": np.abs(weights).sum()}
    return {name: float(value) for name, value in found.items()}


def told(name: str, signs: dict[str, float], used: str) -> str:
    """One line about `describe`'s numbers; ``used`` says what takes averages instead of signs."""
    return (
        f"{name}: {signs['negative']:.2%} of the weights are negative; the yield is their sum, "
        f"{signs['sum'] / signs['absolute_sum']:.3f} of that of the moduli; {used} take averages over nearest events"
    )


def positive_weights(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weights (n,) none of which is negative, with the same sum everywhere: cell resampling (2109.07851).

    Every negative weight is averaged with those of its nearest events, as few as make the sum of the cell positive, in
    proportion to their moduli. Distances are Euclidean in units of the columns' standard deviations of ``values`` (n,
    d). A sum that is not positive is a `UserError`.
    """
    if not len(weights) or weights.min() >= 0:
        return weights
    if not weights.sum() > 0:
        raise UserError(f"weights with signs sum to {weights.sum():g}: a yield must be positive")
    values = np.asarray(values, np.float64)
    _, place, point = np.unique(first_equal(fingerprint(values)), return_index=True, return_inverse=True)
    modulus = np.bincount(point, np.abs(weights))
    total = _resampled(values[place], np.bincount(point, weights), modulus)
    return np.abs(weights) * np.divide(total, modulus, out=np.zeros_like(total), where=modulus > 0)[point]


def weights_to_fit(values: np.ndarray, weights: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Weights (n,) that trees can take: negative ones averaged over the nearest events of the same fold."""
    if weights.min(initial=0.0) >= 0:
        return weights
    found = np.empty(len(weights))
    for rows in (np.flatnonzero(fold == k) for k in np.unique(fold)):
        found[rows] = positive_weights(values[rows], weights[rows])
    return found


def _resampled(points: np.ndarray, total: np.ndarray, modulus: np.ndarray) -> np.ndarray:
    """Sums of weights of the points (m, d), negative ones averaged with their neighbours, the worst first."""
    spread = points.std(0)
    points = points / np.where(spread > 0, spread, 1.0)
    tree, total = cKDTree(points), total.copy()
    for seed in np.argsort(total)[: int((total < 0).sum())]:
        count = NEIGHBOURS
        while total[seed] < 0:
            near = np.atleast_1d(tree.query(points[seed], k=min(count, len(points)))[1])
            reached = np.flatnonzero(np.cumsum(total[near]) >= 0)
            if len(reached) or count >= len(points):
                cell = near[: reached[0] + 1] if len(reached) else near
                share = max(total[cell].sum(), 0.0) / modulus[cell].sum()
                total[cell] = modulus[cell] * share
            count *= 4
    return total
