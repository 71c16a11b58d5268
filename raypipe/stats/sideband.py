"""Smooth fit of the sidebands of a mass spectrum, and its integral in the signal region."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raypipe.config import MassFit, MassWindow
from raypipe.errors import UserError

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
    """Extended binned maximum-likelihood fit of an exponential of a polynomial to the sidebands (iminuit).

    Raises:
        UserError: an empty sideband, or a fit that did not converge.
    """
    from iminuit import Minuit

    pieces = []
    for name, low, high in (("lower", window.low, window.sr_low), ("upper", window.sr_high, window.high)):
        inside = masses[(masses >= low) & (masses < high)]
        if not len(inside):
            raise UserError(f"the {name} sideband {low:g}-{high:g} GeV is empty: nothing to learn the background from")
        edges = np.linspace(low, high, max(1, round((high - low) / config.bin_width)) + 1)
        pieces.append((edges, np.histogram(inside, edges)[0].astype(float)))
    counts = np.concatenate([c for _, c in pieces])

    def expected(a: np.ndarray) -> np.ndarray:
        return np.concatenate([_bin_integrals(a, edges, window) for edges, _ in pieces])

    def cost(a: np.ndarray) -> float:
        mu = np.maximum(expected(a), 1e-300)
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = np.where(counts > 0, counts * np.log(counts / mu), 0.0)
        return float(2 * (mu - counts + logs).sum())

    width = (window.sr_low - window.low) + (window.high - window.sr_high)
    start = np.zeros(config.order + 1)
    start[0] = np.log(counts.sum() / width)
    minuit = Minuit(cost, start)
    minuit.errordef = Minuit.LEAST_SQUARES
    minuit.errors = np.full(len(start), 0.1)
    minuit.strategy = 2
    minuit.migrad()
    minuit.hesse()
    if not minuit.valid or minuit.covariance is None:
        raise UserError(f"the sideband fit of {int(counts.sum())} events did not converge (massfit.order too high?)")
    return SidebandFit(
        window, np.array(minuit.values), np.array(minuit.covariance), float(minuit.fval), len(counts) - len(start)
    )


def _scaled(mass: np.ndarray, window: MassWindow) -> np.ndarray:
    return 2 * (mass - window.low) / (window.high - window.low) - 1


def _bin_integrals(a: np.ndarray, edges: np.ndarray, window: MassWindow) -> np.ndarray:
    """Integral over every bin, by four-point Gauss-Legendre quadrature (exact to 1e-9 for GeV bins)."""
    half = np.diff(edges)[:, None] / 2
    x = (edges[:-1, None] + edges[1:, None]) / 2 + half * _NODES
    values = np.exp(np.clip(np.polynomial.polynomial.polyval(_scaled(x, window), a), -700, 700))
    return (half * _WEIGHTS * values).sum(1)
