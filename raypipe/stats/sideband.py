"""Smooth fit of the sidebands of a mass spectrum, and its integral in the signal region."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.polynomial.polynomial import polyvander

from raypipe.config import MassFit, MassWindow
from raypipe.errors import UserError
from raypipe.stats import massfit
from raypipe.stats.backgrounds import Family, gauss_legendre
from raypipe.stats.bins import Bins
from raypipe.stats.peakdata import binned_problem


@dataclass(frozen=True)
class SidebandFit:
    """``exp(a_0 + a_1 x + ... + a_k x^k)`` events per GeV, x from -1 to 1 over the window; Baker-Cousins ``chi2``."""

    window: MassWindow
    parameters: np.ndarray
    covariance: np.ndarray
    chi2: float
    ndf: int

    def density(self, mass: np.ndarray) -> np.ndarray:
        """Expected events per GeV."""
        return np.exp(_powers(mass, self.window, len(self.parameters) - 1) @ self.parameters)

    def integral(self, low: float, high: float) -> tuple[float, float]:
        """Expected events between two masses and the error from the fit's covariance."""
        nodes = gauss_legendre(np.array([low]), np.array([high]), 64)
        gradient = (nodes.weight * self.density(nodes.mass)) @ _powers(
            nodes.mass, self.window, len(self.parameters) - 1
        )
        return float(gradient[0]), float(np.sqrt(gradient @ self.covariance @ gradient))

    def sample(self, n: int, low: float, high: float, rng: np.random.Generator) -> np.ndarray:
        """``n`` masses between ``low`` and ``high`` drawn from the fitted shape."""
        grid = np.linspace(low, high, 2049)
        density = self.density(grid)
        cumulative = np.r_[0.0, np.cumsum(0.5 * (density[1:] + density[:-1]))]
        return np.interp(rng.random(n), cumulative / cumulative[-1], grid)


def fit_sidebands(masses: np.ndarray, window: MassWindow, config: MassFit) -> SidebandFit:
    """Extended binned maximum-likelihood fit of an exponential of a polynomial to the sidebands."""
    pieces = []
    for name, low, high in (("lower", window.low, window.sr_low), ("upper", window.sr_high, window.high)):
        inside = masses[(masses >= low) & (masses < high)]
        if not len(inside):
            raise UserError(f"the {name} sideband {low:g}-{high:g} GeV is empty: nothing to learn the background from")
        edges = np.linspace(low, high, max(1, round((high - low) / config.bin_width)) + 1)
        pieces.append((edges[:-1], edges[1:], np.histogram(inside, edges)[0].astype(float)))
    low, high, counts = (np.concatenate(part) for part in zip(*pieces, strict=True))
    bins = Bins(low, high, counts, np.ones(len(counts)), None, (window.low, window.high))
    labels = tuple(f"a{k}" for k in range(config.order + 1))
    kind = Family("exponential of a polynomial", True, labels, lambda m: _powers(m, window, config.order))
    problem = binned_problem(bins, kind)
    best = massfit.fit(problem, problem.start, "sideband fit")
    if not best.valid:
        raise UserError(f"the sideband fit of {int(counts.sum())} events did not converge (massfit.order too high?)")
    back = problem.shape.transform
    covariance = back @ best.covariance @ back.T
    return SidebandFit(window, back @ best.theta, covariance, best.value, len(counts) - len(labels))


def _powers(mass: np.ndarray, window: MassWindow, order: int) -> np.ndarray:
    """(n, order + 1) powers of x."""
    return polyvander(2 * (mass - window.low) / (window.high - window.low) - 1, order)
