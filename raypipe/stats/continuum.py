"""The smooth spectrum that a fit of the sidebands has found: density, integrals, samples."""

from dataclasses import dataclass

import numpy as np
from numpy.polynomial.legendre import leggauss
from numpy.polynomial.polynomial import polyvander

from raypipe.config.sections import MassWindow

NODES = leggauss(64)  # Abscissas and weights of integrals from -1 to 1


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
        return np.exp(powers(mass, self.window, len(self.parameters) - 1) @ self.parameters)

    def integral(self, low: float, high: float) -> tuple[float, float]:
        """Expected events between two masses and the error from the fit's covariance."""
        mass, weight = (low + high) / 2 + (high - low) / 2 * NODES[0], (high - low) / 2 * NODES[1]
        gradient = (weight * self.density(mass)) @ powers(mass, self.window, len(self.parameters) - 1)
        return float(gradient[0]), float(np.sqrt(gradient @ self.covariance @ gradient))

    def sample(self, n: int, low: float, high: float, rng: np.random.Generator) -> np.ndarray:
        """``n`` masses between ``low`` and ``high`` drawn from the fitted shape."""
        grid = np.linspace(low, high, 2049)
        density = self.density(grid)
        cumulative = np.r_[0.0, np.cumsum(0.5 * (density[1:] + density[:-1]))]
        return np.interp(rng.random(n), cumulative / cumulative[-1], grid)


def powers(mass: np.ndarray, window: MassWindow, order: int) -> np.ndarray:
    """(n, order + 1) powers of x."""
    return polyvander(2 * (mass - window.low) / (window.high - window.low) - 1, order)
