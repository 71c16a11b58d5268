"""Smooth fit of the sidebands of a mass spectrum, and its integral in the signal region."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raypipe.config import MassFit, MassWindow
from raypipe.errors import UserError
from raypipe.stats import massfit
from raypipe.stats.backgrounds import Family
from raypipe.stats.peakdata import binned_problem
from raypipe.stats.spectrum import Bins

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(4)


@dataclass(frozen=True)
class SidebandFit:
    """``exp(a_0 + a_1 x + ... + a_k x^k)`` events per GeV, x running from -1 to 1 over the mass window."""

    window: MassWindow
    parameters: np.ndarray
    covariance: np.ndarray
    chi2: float
    """Of the sideband bins, Baker-Cousins (twice the log-likelihood ratio to the saturated model)."""
    ndf: int

    def density(self, mass: np.ndarray, parameters: np.ndarray | None = None) -> np.ndarray:
        """Expected events per GeV."""
        a = self.parameters if parameters is None else parameters
        return np.exp(np.polynomial.polynomial.polyval(_scaled(mass, self.window), a))

    def integral(self, low: float, high: float) -> tuple[float, float]:
        """Expected events between two masses and the error from the fit's covariance."""
        edges = np.linspace(low, high, 33)
        value = _bin_integrals(self.parameters, edges, self.window).sum()
        gradient = np.empty(len(self.parameters))
        for k in range(len(gradient)):
            step = np.zeros_like(self.parameters)
            step[k] = 1e-4
            up, down = (_bin_integrals(self.parameters + s * step, edges, self.window).sum() for s in (1, -1))
            gradient[k] = (up - down) / 2e-4
        return float(value), float(np.sqrt(gradient @ self.covariance @ gradient))

    def sample(self, n: int, low: float, high: float, rng: np.random.Generator) -> np.ndarray:
        """``n`` masses between ``low`` and ``high`` drawn from the fitted shape."""
        grid = np.linspace(low, high, 2049)
        density = self.density(grid)
        cumulative = np.r_[0.0, np.cumsum(0.5 * (density[1:] + density[:-1]))]
        return np.interp(rng.random(n), cumulative / cumulative[-1], grid)


def fit_sidebands(masses: np.ndarray, window: MassWindow, config: MassFit) -> SidebandFit:
    """Extended binned maximum-likelihood fit of an exponential of a polynomial to the sidebands.

    Raises:
        UserError: an empty sideband, or a fit that did not converge.
    """
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
    basis = lambda m: np.polynomial.polynomial.polyvander(_scaled(m, window), config.order)  # noqa: E731
    problem = binned_problem(bins, Family("exponential of a polynomial", True, labels, basis), (), None)
    best = massfit.fit(problem, problem.shape.start, "sideband fit")
    if not best.valid:
        raise UserError(f"the sideband fit of {int(counts.sum())} events did not converge (massfit.order too high?)")
    back = problem.shape.transform
    covariance = back @ best.covariance @ back.T
    return SidebandFit(window, back @ best.theta, covariance, best.value, len(counts) - len(labels))


def _scaled(mass: np.ndarray, window: MassWindow) -> np.ndarray:
    return 2 * (mass - window.low) / (window.high - window.low) - 1


def _bin_integrals(a: np.ndarray, edges: np.ndarray, window: MassWindow) -> np.ndarray:
    """Integral over every bin, by four-point Gauss-Legendre quadrature (exact to 1e-9 for GeV bins)."""
    half = np.diff(edges)[:, None] / 2
    x = (edges[:-1, None] + edges[1:, None]) / 2 + half * _NODES
    values = np.exp(np.clip(np.polynomial.polynomial.polyval(_scaled(x, window), a), -700, 700))
    return (half * _WEIGHTS * values).sum(1)
