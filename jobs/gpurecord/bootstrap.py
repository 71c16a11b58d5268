"""The error of a SIC that the evaluation sample gives it: a bootstrap of its events."""

from __future__ import annotations

import numpy as np
from scipy.stats import poisson

from raypipe import seeds

REPLICAS = 200
"""An error from as many replicas is known to 5 %."""


def poisson_weights(event_id: np.ndarray, seed: int, replicas: int = REPLICAS) -> np.ndarray:
    """Poisson(1) weights (replicas, n) uint8 of events by their id."""
    steps = poisson.cdf(np.arange(12), 1.0)
    uniform = (seeds.uniform_by_id(event_id, seed, "event-bootstrap", r) for r in range(replicas))
    return np.stack([np.searchsorted(steps, u).astype(np.uint8) for u in uniform])


def bootstrapped_sic(
    signal: np.ndarray,
    signal_id: np.ndarray,
    background: np.ndarray,
    background_id: np.ndarray,
    seed: int,
    background_weight: np.ndarray | None = None,
    replicas: int = REPLICAS,
) -> np.ndarray:
    """SIC eps_S / sqrt(eps_B) of one cut in every replica: (replicas,); NaN where no background passes.

    ``signal``, ``background``: (n,) bool, which events pass, each once by id; ``background_weight``: (n,).
    """
    weight = np.ones(len(background)) if background_weight is None else background_weight
    share = []
    for passed, ids, w in ((signal, signal_id, np.ones(len(signal))), (background, background_id, weight)):
        drawn = poisson_weights(ids, seed, replicas)
        share.append((drawn @ (w * passed)) / (drawn @ w))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(share[1] > 0, share[0] / np.sqrt(share[1]), np.nan)
