"""Significances that a k-fold search reports, against how often its pseudo-nulls reach them (2512.13787)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from raypipe.errors import UserError

ONE_SIGMA, TWO_SIGMA = (float(stats.norm.cdf(z)) for z in (1.0, 2.0))


def p_value(observed: float, null: np.ndarray) -> float:
    """One-sided ``p = (1 + n) / (N + 1)``, n of N replicas at least as anomalous (Davison & Hinkley 1997, 4.11)."""
    null = np.asarray(null, dtype=float)
    if not math.isfinite(observed) or not np.isfinite(null).all():
        raise UserError("p-value: the observed statistic or a replica is not finite")
    return float((1 + (null >= observed).sum()) / (len(null) + 1))


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

    It is ranked among those of the replicas ``null`` (N, tests), ties by the next (Westfall & Young 1993, min-p).
    """
    everything = np.vstack([observed, null])  # p-values among all N+1, itself included
    ranked = np.sort(stats.rankdata(-everything, method="max", axis=0), axis=1)
    _, place = np.unique(ranked, axis=0, return_inverse=True)  # rows in lexicographic order
    return float((place.ravel() <= place.ravel()[0]).sum() / len(ranked))


def calibration(tests: np.ndarray, null: np.ndarray, level: float = 0.05) -> dict[str, float]:
    """Whether null data sets get uniform p-values from the replicas (large is anomalous).

    ``type_i``: share of ``tests`` with p <= level; ``expected``: the size of that test; ``binomial_error`` of the
    share; ``error``: the same with that of the threshold; ``ks_p``: Kolmogorov-Smirnov p-value, tests against replicas;
    ``ks_uniform_p``: of the p-values against a uniform distribution.
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


DIGITS = 4  # Decimals of a significance on disk


class Tail(NamedTuple):
    """How often nulls report a p-value of ``reported`` or less: ``count`` of ``nulls``, their share and its band."""

    reported: float
    count: int
    nulls: int
    empirical: float
    low: float
    high: float


class Calibrated(NamedTuple):
    """A significance after calibration; ``is_bound``: no null has reached it, and ``p`` is an upper bound."""

    p: float
    is_bound: bool

    @property
    def z(self) -> float:
        """In sigma; of a bound a lower one."""
        return float(stats.norm.isf(self.p))


def clopper_pearson(count: int, n: int, level: float = 2 * ONE_SIGMA - 1) -> tuple[float, float]:
    """Central interval of a binomial share, ``count`` of ``n``, that covers in ``level`` of cases or more."""
    half = (1 - level) / 2
    low = float(stats.beta.ppf(half, count, n - count + 1)) if count else 0.0
    high = float(stats.beta.isf(half, count + 1, n - count)) if count < n else 1.0
    return low, high


def tail(nulls: np.ndarray, reported: float) -> Tail:
    """How often nulls with these significances (n,) report a p-value up to ``reported``; NaN (withheld) is left out."""
    z = nulls[~np.isnan(nulls)]
    count, n = int((z >= stats.norm.isf(reported)).sum()), len(z)
    return Tail(reported, count, n, count / n if n else math.nan, *(clopper_pearson(count, n) if n else (0.0, 1.0)))


def levels(nulls: int) -> list[float]:
    """The p-values 0.1, 0.01 and so on of which so many nulls expect one or more."""
    return [10.0**-k for k in range(1, 1 + math.floor(math.log10(max(nulls, 1)) + 1e-9))]


def check_nulls(nulls: int, p: float) -> None:
    """A `UserError` where so many nulls cannot tell a p-value of ``p``: none is below 1/(n + 1)."""
    needed = math.ceil(1 / p - 1 - 1e-9)
    if nulls < needed:
        told = f"with {nulls} nulls no p-value is below {1 / (nulls + 1):.2g}"
        raise UserError(f"calibrate: {told}; {p:g} needs {needed} or more (--nulls)")


@dataclass(frozen=True)
class Calibration:
    """What one search reports where there is nothing.

    ``key``: hash of all that determines the search. ``points``: its k cuts. ``z``: (n, k) significances of n nulls, NaN
    where one is withheld.
    """

    key: str
    points: tuple[float, ...]
    z: np.ndarray

    def at(self, point: float, z: float) -> Calibrated:
        """The p-value of a reported ``z`` after a cut: (k + 1)/(n + 1), k of n nulls as large or larger.

        Linear in log p between nulls; above the largest the bound 1/(n + 1); at most n/(n + 1).
        """
        known, log_p, n = self._known[point]
        if not n or z > known[-1]:
            return Calibrated(1 / (n + 1), True)
        return Calibrated(min(float(np.exp(np.interp(z, known, log_p))), n / (n + 1)), False)

    @cached_property
    def _known(self) -> dict[float, tuple[np.ndarray, np.ndarray, int]]:
        """By cut: significances of the nulls, ascending, ln p of each, and how many there are."""
        found = {}
        for point, column in zip(self.points, self.z.T, strict=True):
            known, counts = np.unique(column[~np.isnan(column)], return_counts=True)
            n = int(counts.sum())
            found[point] = known, np.log((np.cumsum(counts[::-1])[::-1] + 1) / (n + 1)), n
        return found

    def anywhere(self, z: Mapping[float, float]) -> Calibrated:
        """The global p-value of significances by cut, see `combined_p`; a bound where no null reaches one of them."""
        observed, n = np.array([z.get(point, math.nan) for point in self.points]), len(self.z)
        p = combined_p(*(np.nan_to_num(values, nan=-math.inf, neginf=-math.inf) for values in (observed, self.z)))
        found = [self.at(point, value) for point, value in z.items() if not math.isnan(value)]
        p = max(p, min((one.p for one in found), default=1.0))  # a cut that is often withheld has fewer nulls
        return Calibrated(min(p, n / (n + 1)), any(one.is_bound for one in found))

    def tails(self, reported: Sequence[float]) -> list[tuple[float | None, Tail]]:
        """`tail` of every cut, and of the best of all cuts (None)."""
        columns = dict(zip(self.points, self.z.T, strict=True)) | {None: np.fmax.reduce(self.z, axis=1)}
        return [(point, tail(z, p)) for point, z in columns.items() for p in reported]

    def check(self, key: str, source: str) -> Calibration:
        """Itself, unless it was made for another search: a `UserError`."""
        if self.key != key:
            made = "made with another configuration, other events or other code, and is not applied"
            raise UserError(f"{source}: {made} (run `raypipe calibrate` again)")
        return self

    def plain(self) -> dict[str, Any]:
        """JSON-ready; `of` reads it."""
        z = [[None if math.isnan(v) else round(v, DIGITS) for v in row] for row in self.z.tolist()]
        return {"key": self.key, "points": list(self.points), "z": z}

    @staticmethod
    def of(value: Mapping[str, Any]) -> Calibration:
        """The inverse of `plain`."""
        points = tuple(value["points"])
        return Calibration(value["key"], points, np.array(value["z"], float).reshape(-1, len(points)))
