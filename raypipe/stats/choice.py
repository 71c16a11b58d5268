"""Which background function: by an F-test on the data, by the spurious signal on a background-only template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from scipy import stats

from raypipe.errors import UserError
from raypipe.stats import massfit
from raypipe.stats.backgrounds import Family, family
from raypipe.stats.likelihood import Binned
from raypipe.stats.peakdata import FixedPeak, binned_problem
from raypipe.stats.peaks import make_peak
from raypipe.stats.scan import scan
from raypipe.stats.spectrum import Bins

HIGHEST = {"exppoly": 5, "poly": 7, "bernstein": 7, "power": 4, "dijet": 6}
"""Highest order tried."""


@dataclass(frozen=True)
class Step:
    """One comparison: the likelihood ratio of an order to the next one, and its chi-square probability."""

    family: str
    chi2: float
    ndf: int
    next: str | None
    improvement: float | None
    p: float | None


def choose_order(
    bins: Bins, name: str, fixed: Sequence[FixedPeak] = (), sqrt_s: float = 13000.0, threshold: float = 0.05
) -> tuple[str, list[dict[str, Any]]]:
    """Lowest order of a nested family that the next one does not improve significantly, and the record.

    The likelihood-ratio form of Fisher's F-test: twice the gain in ln L from one more parameter is chi-square
    distributed with one degree of freedom if the lower order is true (Wilks 1938; used by CMS 1804.02716 and 1911.03947
    for diphoton and dijet spectra). Stops at p > ``threshold`` and, as a guard against a chance plateau, requires the
    step after it to be insignificant too.

    Raises:
        UserError: an unknown family, or no order that can be fitted.
    """
    name = {"exp": "exppoly", "exponential": "exppoly", "chebyshev": "poly", "powerlaw": "power"}.get(name, name)
    if name not in HIGHEST:
        raise UserError(f"background '{name}:auto': orders are chosen for {', '.join(HIGHEST)}")
    first = {"dijet": 2, "bernstein": 1, "poly": 1}.get(name, 1)
    record: list[Step] = []
    fits: list[tuple[str, float, float, int]] = []
    for order in range(first, HIGHEST[name] + 1):
        try:
            kind = family(f"{name}:{order}", *bins.window, sqrt_s)
            chi2, value, ndf = _background(bins, kind, fixed)
        except UserError:
            if not fits:
                raise
            break  # too many parameters for these data
        if ndf < 1:
            break
        fits.append((kind.name, chi2, value, ndf))
        if len(fits) >= 3 and all(_gain(fits[k], fits[k + 1])[1] > threshold for k in (-3, -2)):
            break
    if not fits:
        raise UserError(f"background '{name}:auto': fewer bins with events than parameters at the lowest order")
    for here, after in zip(fits, [*fits[1:], None], strict=True):
        gain, p = (None, None) if after is None else _gain(here, after)
        record.append(Step(here[0], here[1], here[3], None if after is None else after[0], gain, p))
    chosen = len(record) - 1
    for k, step in enumerate(record):
        following = record[k + 1].p if k + 1 < len(record) else None
        if (step.p is None or step.p > threshold) and (following is None or following > threshold):
            chosen = k
            break
    return record[chosen].family, [asdict(step) for step in record]


def _gain(lower: tuple[str, float, float, int], higher: tuple[str, float, float, int]) -> tuple[float, float]:
    gain = max(0.0, lower[2] - higher[2])
    return gain, float(stats.chi2.sf(gain, max(1, lower[3] - higher[3])))


def _background(bins: Bins, kind: Family, fixed: Sequence[FixedPeak]) -> tuple[float, float, int]:
    problem = binned_problem(bins, kind, fixed, None)
    best = massfit.fit(problem, np.r_[problem.shape.start, [f.expected for f in fixed]], f"background {kind.name}")
    chi2, ndf = massfit.goodness(bins, problem.expected(best.theta[None])[0], problem.size)
    return chi2, best.value, ndf


@dataclass(frozen=True)
class Spurious:
    """Bias of one family.

    Attributes:
        family: its name. parameters: how many. largest: largest |fitted yield / its error| over the masses on the
            background-only template; mass: where. passed: below the tolerance.
    """

    family: str
    parameters: int
    largest: float
    mass: float
    passed: bool


def spurious_signal(
    expected: np.ndarray, bins: Bins, candidates: Sequence[str], masses: np.ndarray, width: float,
    tails: Sequence[float] = (), sqrt_s: float = 13000.0, tolerance: float = 0.2,
) -> tuple[str, list[dict[str, Any]]]:  # fmt: skip
    """The simplest family whose fitted yield on a background-only template stays small, and the record.

    Fits signal plus background to the smooth expectation itself (no fluctuations) at the data's luminosity. The
    yield is pure bias; it may be at most ``tolerance`` of its statistical error at every mass (ATLAS 1408.7084 and
    1802.04146, section on background modelling: 20 %). Among those that pass, the fewest parameters win; if none
    does, the least biased, and the record says so.

    Args:
        expected: (B,) background events from simulation, scaled to the data. bins: where (their contents are not
            used). candidates: family names. masses: (M,) to test. width, tails: of the peak.
    """
    template = replace(bins, counts=np.asarray(expected, float))
    signals = np.array([make_peak(m, width, *tails).integral(bins.low, bins.high) for m in masses])
    found: list[Spurious] = []
    for name in candidates:
        kind = family(name, *bins.window, sqrt_s)
        problem: Binned = binned_problem(template, kind, (), None)
        null = massfit.fit(problem, problem.shape.start, f"background {name}")
        local = scan(problem, template.counts[None], signals, null.theta, one_sided=False, tolerance=1e-7)
        bias = np.abs(local.s[0] / local.s_err[0])
        worst = int(np.nanargmax(bias))
        good = bool(bias[worst] <= tolerance and not local.failed.any())
        found.append(Spurious(kind.name, kind.size, float(bias[worst]), float(masses[worst]), good))
    passing = [f for f in found if f.passed]
    best = min(passing, key=lambda f: (f.parameters, f.largest)) if passing else min(found, key=lambda f: f.largest)
    return best.family, [asdict(f) for f in found]
