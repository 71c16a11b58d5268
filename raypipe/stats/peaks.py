"""Shapes of a resonance: normalised densities exact integrals over bins, and their fit to events."""

import math
from dataclasses import dataclass

import numpy as np
from scipy import special
from scipy.optimize import minimize

from raypipe.errors import UserError


@dataclass(frozen=True)
class Gaussian:
    """A normal peak of unit area."""

    mass: float
    width: float  # One standard deviation

    def integral(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """Share of the peak between ``low`` and ``high``; accurate in the far tails too."""
        a, b = (np.asarray(low) - self.mass) / self.width, (np.asarray(high) - self.mass) / self.width
        return np.where(a > 0, special.ndtr(-a) - special.ndtr(-b), special.ndtr(b) - special.ndtr(a))

    def density(self, m: np.ndarray) -> np.ndarray:
        """Per unit of mass."""
        t = (np.asarray(m, float) - self.mass) / self.width
        return np.exp(-0.5 * t * t) / (self.width * math.sqrt(2 * math.pi))


@dataclass(frozen=True)
class CrystalBall:
    """Double-sided Crystal Ball of unit area: a normal core with power-law tails, powers above one.

    With t = (m - mass)/width: ``exp(-t^2/2)`` for -a_low <= t <= a_high, ``A (B - t)^-n`` beyond (J. Gaiser, SLAC-R-255
    (1982), appendix F; two-sided as in ATLAS 1407.6583).
    """

    mass: float
    width: float
    a_low: float
    n_low: float
    a_high: float
    n_high: float

    def _tail(self, a: float, n: float) -> float:
        """Area of one tail in units of the width."""
        return n / a / (n - 1) * math.exp(-0.5 * a * a)

    @property
    def _area(self) -> float:
        core = math.sqrt(2 * math.pi) * (special.ndtr(self.a_high) - special.ndtr(-self.a_low))
        return core + self._tail(self.a_low, self.n_low) + self._tail(self.a_high, self.n_high)

    def cdf(self, m: np.ndarray) -> np.ndarray:
        """Integral from minus infinity."""
        t = (np.asarray(m, float) - self.mass) / self.width
        left, right = self._tail(self.a_low, self.n_low), self._tail(self.a_high, self.n_high)
        core = math.sqrt(2 * math.pi) * (special.ndtr(np.clip(t, -self.a_low, self.a_high)) - special.ndtr(-self.a_low))
        below = left * _falloff(-t, self.a_low, self.n_low, 1 - self.n_low)
        above = right * (1 - _falloff(t, self.a_high, self.n_high, 1 - self.n_high))
        return (np.where(t < -self.a_low, below, left) + core + np.where(t > self.a_high, above, 0.0)) / self._area

    def integral(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """Share of the peak between ``low`` and ``high``."""
        return self.cdf(high) - self.cdf(low)

    def density(self, m: np.ndarray) -> np.ndarray:
        """Per unit of mass."""
        t = (np.asarray(m, float) - self.mass) / self.width
        core = np.exp(-0.5 * np.clip(t, -self.a_low, self.a_high) ** 2)
        shape = np.where(t < -self.a_low, core * _falloff(-t, self.a_low, self.n_low, -self.n_low), core)
        shape = np.where(t > self.a_high, core * _falloff(t, self.a_high, self.n_high, -self.n_high), shape)
        return shape / (self.width * self._area)


Peak = Gaussian | CrystalBall


def _falloff(t: np.ndarray, a: float, n: float, power: float) -> np.ndarray:
    """(1 + (t - a) a / n)^power for t beyond a, one before."""
    return (1 + np.maximum(t - a, 0.0) * a / n) ** power


def peak(spec: str) -> Peak:
    """``MASS:WIDTH`` (Gaussian) or ``MASS:WIDTH:A_LOW:N_LOW:A_HIGH:N_HIGH`` (double-sided Crystal Ball)."""
    try:
        values = [float(part) for part in spec.split(":")]
    except ValueError:
        values = []
    if len(values) not in (2, 6) or not all(map(math.isfinite, values)):
        raise UserError(f"peak {spec!r}: write MASS:WIDTH, or MASS:WIDTH:A_LOW:N_LOW:A_HIGH:N_HIGH for a Crystal Ball")
    return make_peak(*values)


def make_peak(mass: float, width: float, *tails: float) -> Peak:
    """A Gaussian, or a Crystal Ball where the four tail parameters are given; checks their ranges."""
    if not width > 0:
        raise UserError(f"peak: a width of {width:g} is not positive")
    if not tails:
        return Gaussian(mass, width)
    a_low, n_low, a_high, n_high = tails
    if min(a_low, a_high) <= 0 or min(n_low, n_high) <= 1:
        raise UserError("peak: a Crystal Ball needs positive A and N above one")
    return CrystalBall(mass, width, a_low, n_low, a_high, n_high)


FEWEST = 100  # Simulated events below which six parameters mean nothing


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
