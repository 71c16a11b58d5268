"""Global p-values: toys, and the asymptotic formulas of Gross and Vitells."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special, stats

LEVELS = (0.5, 2.0)
"""Levels of q0 at which crossings and Euler characteristics are counted: low, where they are frequent."""


@dataclass(frozen=True)
class GlobalP:
    """Probability of so large a maximum anywhere in the scan under the background alone, its error and sigma.

    ``trials``: p / p_local. ``is_bound``: no toy reached the maximum, and p is an upper bound.
    """

    p: float
    error: float | None
    trials: float
    method: str
    is_bound: bool = False
    log_p: float | None = None  # ln p where p itself may underflow

    @property
    def z(self) -> float | None:
        if self.is_bound or self.p >= 1:
            return None
        log_p = math.log(max(self.p, 1e-300)) if self.log_p is None else self.log_p
        return -float(special.ndtri_exp(min(log_p, 0.0)))


def from_toys(observed: float, maxima: np.ndarray) -> GlobalP:
    """Share (k + 1)/(n + 1) of toys whose largest q0 reaches the observed one; for k = 0 a bound at 63 % confidence."""
    n, k = len(maxima), int((maxima >= observed).sum())
    p = (k + 1) / (n + 1)
    error = math.sqrt(k * max(n - k, 1) / n) / n if k else None
    return GlobalP(p, error, _trials(math.log(p), observed), "toys", k == 0)


def _trials(log_p: float, observed: float) -> float:
    """p / p_local through logarithms; infinite where it overflows."""
    difference = log_p - float(stats.norm.logsf(math.sqrt(observed)))
    return math.exp(difference) if difference < 700 else math.inf


def sidak(z: float, tests: int) -> GlobalP:
    """Of the largest ``z`` >= 0 of several tests: 1 - (1 - p)^tests, exact if they are independent (Sidak, 1967).

    Tests that rise and fall together have a smaller one. Where p is small it is tests x p, which no dependence exceeds.
    """
    p = -math.expm1(tests * float(stats.norm.logcdf(z)))
    log_p = math.log(p) if p > 1e-290 else math.log(tests) + float(stats.norm.logsf(z))
    return GlobalP(p, None, _trials(log_p, z**2), "sidak", log_p=log_p)


def upcrossings(q0: np.ndarray, level: float) -> np.ndarray:
    """Times that scans (T, M) rise through ``level`` along the mass: (T,)."""
    above = q0 > level
    return (~above[:, :-1] & above[:, 1:]).sum(1)


def euler_characteristic(q0: np.ndarray, level: float) -> np.ndarray:
    """Euler characteristic (vertices - edges + faces) of where grids (T, W, M) exceed ``level``: (T,)."""
    above = q0 > level
    edges = (above[:, 1:] & above[:, :-1]).sum((1, 2)) + (above[:, :, 1:] & above[:, :, :-1]).sum((1, 2))
    faces = (above[:, 1:, 1:] & above[:, 1:, :-1] & above[:, :-1, 1:] & above[:, :-1, :-1]).sum((1, 2))
    return above.sum((1, 2)) - edges + faces


def asymptotic(observed: float, q0: np.ndarray) -> GlobalP:
    """Extrapolate from frequent low crossings in background-only scans (T, W, M) to the observed maximum.

    One width: p = p_local + <N(c0)> exp(-(c - c0)/2) (Gross and Vitells, 1005.1891). Several: the Euler characteristic
    of a chi-square field, <phi(c)> = p_local + (N1 + sqrt(c) N2) exp(-c/2), N1 and N2 from two levels (1105.4355). With
    T = 1 the observed scan itself is used, with the Poisson error of its crossings.
    """
    local = float(stats.norm.sf(math.sqrt(observed)))
    log_local = float(stats.norm.logsf(math.sqrt(observed)))
    toys = len(q0)
    if q0.shape[1] == 1:
        counted = upcrossings(q0[:, 0], LEVELS[0])
        mean = float(counted.mean())
        spread = float(counted.std(ddof=1) / math.sqrt(toys)) if toys > 1 else math.sqrt(max(mean, 1.0))
        factor = math.exp(-(observed - LEVELS[0]) / 2)
        p, error, method = local + mean * factor, spread * factor, "upcrossings"
        log_p = np.logaddexp(log_local, math.log(max(mean, 1e-300)) - (observed - LEVELS[0]) / 2)
    else:
        # p_local(u) + (N1 + sqrt(u) N2) e^{-u/2} at two levels: two linear equations.
        matrix = np.array([[math.exp(-u / 2), math.sqrt(u) * math.exp(-u / 2)] for u in LEVELS])
        phi = np.stack([euler_characteristic(q0, u) for u in LEVELS], 1).astype(float)
        local_at = np.array([stats.norm.sf(math.sqrt(u)) for u in LEVELS])
        weights = np.array([1.0, math.sqrt(observed)]) * math.exp(-observed / 2)
        each = (np.linalg.solve(matrix, (phi - local_at).T)).T @ weights
        spread = float(each.std(ddof=1) / math.sqrt(toys)) if toys > 1 else abs(float(each.mean()))
        p, error, method = local + float(each.mean()), spread, "euler characteristic"
        log_p = math.log(max(p, 1e-300)) if p > 1e-290 else log_local
    p = min(max(p, local), 1.0)
    log_p = float(min(max(log_p, log_local), 0.0))
    return GlobalP(p, error, _trials(log_p, observed), method, log_p=log_p)


def finite(value: float) -> float | None:
    """JSON-ready."""
    return value if math.isfinite(value) else None


def report(value: GlobalP) -> dict[str, Any]:
    """JSON-ready; a bound has neither error nor z nor trials factor."""
    return {
        "p": value.p,
        "p_err": value.error,
        "z": value.z,
        "trials_factor": None if value.is_bound else finite(value.trials),
        "method": value.method,
        "is_upper_bound": value.is_bound,
    }


def quotable(found: dict[str, Any], which: str, key: str) -> dict[str, Any]:
    """The one significance to quote of several: from where (``key`` of the row), and in words which it is."""
    values = {"p": found.get("p"), "z": found.get("z"), "is_upper_bound": bool(found.get("is_upper_bound"))}
    return {"key": key, "which": which} | values
