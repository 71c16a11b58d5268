"""Asymptotic upper limits on a yield: CLs with the test statistic q-mu-tilde (Cowan, Cranmer, Gross, Vitells)."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import optimize, special

from raypipe.stats.workspace import Fits


@dataclass(frozen=True)
class Limit:
    """Upper limit on the yield at a ``level`` such as 0.95; ``bands``: expected at -2, -1, +1, +2 sigma."""

    observed: float
    expected: float
    bands: tuple[float, float, float, float]
    level: float


def cls(q: float, q_asimov: float) -> float:
    """CLs of an observed q-mu-tilde and its value on the background-only Asimov data (1007.1727, section 3.7)."""
    root, asimov = math.sqrt(max(q, 0.0)), math.sqrt(max(q_asimov, 1e-300))
    t = root - asimov if q <= q_asimov else (q - q_asimov) / (2 * asimov)
    # Through logarithms: both can be tiny far out.
    return math.exp(special.log_ndtr(-(t + asimov)) - special.log_ndtr(-t))


def q_mu_tilde(profile: Callable[[float], float], best: float, free: float, mu: float) -> float:
    """1007.1727, equation 16: 0 for a yield below the best one; a negative best yield counts as zero."""
    if best > mu:
        return 0.0
    return max(0.0, profile(mu) - (free if best >= 0 else profile(0.0)))


def upper_limit(
    profile: Callable[[float], float],
    best: float,
    free: float,
    error: float,
    asimov_profile: Callable[[float], float],
    level: float = 0.95,
) -> Limit:
    """The yield with CLs = 1 - level, observed and expected, for given profile likelihoods (-2 ln L against the yield).

    ``best``, ``free``: best yield and its -2 ln L; ``error``: of the yield, the scale of the search.
    """
    target = 1 - level
    data, asimov = cache(profile), cache(asimov_profile)
    base = asimov(0.0)

    def of(mu: float) -> float:
        return cls(q_mu_tilde(data, best, free, mu), asimov(mu) - base) - target

    observed = _root(of, max(best, 0.0) + 2 * error)

    def band(number: float) -> float:
        """CLs of data that fluctuate by ``number`` sigma: equation 89 with CLs."""

        def cls_at(mu: float) -> float:
            z = math.sqrt(max(asimov(mu) - base, 1e-300))  # mu over its sigma
            return math.exp(special.log_ndtr(number - z) - special.log_ndtr(number)) - target

        return _root(cls_at, 2 * error)

    low2, low1, median, high1, high2 = (band(k) for k in (-2, -1, 0, 1, 2))
    return Limit(observed, median, (low2, low1, high1, high2), level)


def workspace_limit(fits: Fits, level: float = 0.95) -> Limit:
    """CLs upper limit on the strength of a workspace, observed and expected without a signal."""
    asimov = np.asarray(fits.model.expected_data(fits.null), float)
    profiles = (lambda mu: fits.profile(mu)[0]), (lambda mu: fits.profile(mu, asimov)[0])
    return upper_limit(profiles[0], fits.mu, fits.least, 1.0, profiles[1], level)


def _root(function: Callable[[float], float], guess: float) -> float:
    """Where a function that falls from positive to negative crosses nought."""
    high = max(guess, 1e-9)
    for _ in range(60):
        if function(high) < 0:
            break
        high *= 1.5
    else:
        return math.inf
    low = high / 1.5
    while function(low) < 0 and low > 1e-12 * high:
        low /= 2
    return float(optimize.brentq(function, low, high, rtol=1e-10, xtol=1e-12))
