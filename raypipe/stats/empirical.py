"""p-values and bands from replicas of the background-only hypothesis (bootstraps or toys)."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from raypipe.errors import UserError

ONE_SIGMA, TWO_SIGMA = (float(stats.norm.cdf(z)) for z in (1.0, 2.0))


def p_value(observed: float, null: np.ndarray, small_is_anomalous: bool = False) -> float:
    """One-sided ``p = (1 + n) / (N + 1)``, n of N replicas at least as anomalous (Davison & Hinkley 1997, 4.11)."""
    null = np.asarray(null, dtype=float)
    if not math.isfinite(observed) or not np.isfinite(null).all():
        raise UserError("p-value: the observed statistic or a replica is not finite")
    n = (null <= observed).sum() if small_is_anomalous else (null >= observed).sum()
    return float((1 + n) / (len(null) + 1))


def bands(null: np.ndarray) -> dict[str, float]:
    """Median and central 1 and 2 sigma intervals (quantiles 15.9/84.1 and 2.28/97.7 %) of at least 20 replicas."""
    null = np.asarray(null, dtype=float)
    if len(null) < 20:
        raise UserError(
            f"a 2 sigma band needs 20 bootstraps or more, there are {len(null)}: its tails hold 2.3 % each, "
            "which fewer cannot resolve (bootstrap.count)"
        )
    levels = (1 - TWO_SIGMA, 1 - ONE_SIGMA, 0.5, ONE_SIGMA, TWO_SIGMA)
    names = ("low_2", "low_1", "median", "high_1", "high_2")
    return {name: float(q) for name, q in zip(names, np.quantile(null, levels), strict=True)}


def combined_p(observed: np.ndarray, null: np.ndarray) -> float:
    """Global p-value of several statistics (tests,) at once: of the smallest p-value, corrected for looking at all.

    The smallest pooled p-value of the data is ranked among those of the replicas ``null`` (N, tests), which carry the
    correlations (Westfall & Young 1993, min-p). Ties are broken by the second smallest p-value, then the third, and so
    on.
    """
    everything = np.vstack([observed, null])  # p-values among all N+1, itself included
    ranked = np.sort(stats.rankdata(-everything, method="max", axis=0), axis=1)
    _, place = np.unique(ranked, axis=0, return_inverse=True)  # rows in lexicographic order
    return float((place.ravel() <= place.ravel()[0]).sum() / len(ranked))


def calibration(tests: np.ndarray, null: np.ndarray, level: float = 0.05) -> dict[str, float]:
    """Whether null data sets get uniform p-values from the replicas (large is anomalous).

    Returns ``type_i``: share of ``tests`` with p <= level; ``expected``: the size of that test; ``binomial_error`` of
    the share at that size; ``error``: the same with the error of the threshold, which N replicas know to ``sqrt(level
    (1-level) / N)``; ``ks_p``: two-sample Kolmogorov-Smirnov p-value, tests against replicas; ``ks_uniform_p``:
    one-sample test of the p-values against a uniform distribution, which ignores that the replicas are few.
    """
    tests, null = np.asarray(tests, dtype=float), np.asarray(null, dtype=float)
    p = np.array([p_value(t, null) for t in tests])
    size = math.floor(level * (len(null) + 1) + 1e-9) / (len(null) + 1)
    variance = size * (1 - size)
    return {
        "data_sets": len(tests),
        "bootstraps": len(null),
        "type_i": float((p <= level + 1e-12).mean()),
        "expected": size,
        "binomial_error": math.sqrt(variance / len(tests)),
        "error": math.sqrt(variance * (1 / len(tests) + 1 / len(null))),
        "ks_p": float(stats.ks_2samp(tests, null).pvalue),
        "ks_uniform_p": float(stats.kstest(p, stats.uniform.cdf).pvalue),
    }
