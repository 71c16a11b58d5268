"""The shape of a simulated peak: a double-sided Crystal Ball through weighted masses."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize

from raypipe.errors import UserError
from raypipe.stats.peaks import CrystalBall

FEWEST = 100
"""Simulated events below which six parameters mean nothing."""


def fit_shape(masses: np.ndarray, weights: np.ndarray) -> CrystalBall:
    """Weighted maximum likelihood of `CrystalBall` over ``masses`` (n,) GeV of at least `FEWEST` events."""
    if len(masses) < FEWEST or not weights.sum() > 0:
        raise UserError(f"only {len(masses)} simulated events of the peak: its shape needs {FEWEST}, simulate more")
    w = weights / weights.sum()
    order = np.argsort(masses)
    share = np.cumsum(w[order])
    low, middle, high = (masses[order][np.searchsorted(share, q)] for q in (0.159, 0.5, 0.841))
    start = np.array([middle, np.log((high - low) / 2), *np.log([1.5, 4.0, 1.5, 4.0])])

    def ball(p: np.ndarray) -> CrystalBall:
        a_low, n_low, a_high, n_high = np.exp(np.clip(p[2:], -1.5, 3.0))
        return CrystalBall(p[0], float(np.exp(p[1])), a_low, 1 + n_low, a_high, 1 + n_high)

    def cost(p: np.ndarray) -> float:
        return -float((w * np.log(ball(p).density(masses) + 1e-300)).sum())

    found = minimize(cost, start, method="Nelder-Mead", options={"maxiter": 4000, "xatol": 1e-4, "fatol": 1e-8})
    if not found.success or not np.isfinite(found.fun):
        raise UserError(f"the fit of the simulated peak failed: {found.message}")
    return ball(found.x)
