"""Which background function: by F-tests on the data, by the spurious signal on a background-only template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from scipy import stats

from raypipe.errors import UserError
from raypipe.events.masses import Masses
from raypipe.events.spectra import Spectrum
from raypipe.stats import massfit
from raypipe.stats.backgrounds import Family, family
from raypipe.stats.binned import Binned
from raypipe.stats.peakdata import FixedPeak, binned_problem
from raypipe.stats.peaks import make_peak
from raypipe.stats.reference import match_reference
from raypipe.stats.scan import scan
from raypipe.stats.spectrum import Bins

HIGHEST = {"exppoly": 5, "poly": 7, "bernstein": 7, "power": 4, "dijet": 6, "diphoton": 6}
"""Highest order tried."""
LOWEST = {"dijet": 2, "diphoton": 2}
"""Lowest order tried where it is not one."""
THRESHOLD = 0.05
"""p-value below which one more parameter is an improvement."""


@dataclass(frozen=True)
class Choice:
    """The chosen background.

    Attributes:
        family: its name. by: ``F-test``, ``F-tests and AIC`` or ``spurious signal``. record: what was compared.
    """

    family: str
    by: str
    record: list[dict[str, Any]]


def is_choice(spec: str) -> bool:
    """Whether a background is still to be chosen: ``auto``, ``NAME:auto`` or ``A,B,C``."""
    return spec.strip() == "auto" or spec.endswith(":auto") or "," in spec


def choose(bins: Bins, spec: str, fixed: Sequence[FixedPeak] = (), sqrt_s: float = 13000.0) -> Choice:
    """Choose by the data: the order of one family, one of a list, or the best of several families.

    ``NAME:auto`` is `choose_order`, ``A,B,C`` `choose_listed`. ``auto`` takes the order of exppoly, of bernstein and,
    for positive masses, of power by F-test, and among these the one with the least chi2 + 2 parameters (Akaike 1974).

    Raises:
        UserError: nothing that can be fitted, unknown names.
    """
    spec = spec.strip()
    if "," in spec:
        return Choice(*_swap("F-test", choose_listed(bins, _listed(spec), fixed, sqrt_s)))
    if spec != "auto":
        return Choice(*_swap("F-test", choose_order(bins, spec.removesuffix(":auto"), fixed, sqrt_s)))
    best, record = [], []
    for name in ("exppoly", "bernstein", *(("power",) if bins.window[0] > 0 else ())):
        try:
            family_name, steps = choose_order(bins, name, fixed, sqrt_s)
        except UserError:
            if name == "power":  # all of them failed
                raise
            continue
        record += steps
        step = next(s for s in steps if s["family"] == family_name)
        best.append((step["chi2"] - 2 * step["ndf"], family_name))  # -2 ndf is 2 parameters up to a constant
    if not best:
        raise UserError("background 'auto': too few bins with events for any family")
    return Choice(min(best)[1], "F-tests and AIC", record)


def candidate_names(spec: str, low: float) -> list[str]:
    """The families that ``spec`` lets one choose from, for the spurious-signal test."""
    if "," in spec:
        return _listed(spec)
    if spec == "auto":
        names = ["exppoly", "bernstein", *(["power"] if low > 0 else [])]
        return [f"{name}:{k}" for name in names for k in range(1, 4)]
    name = _full(spec.removesuffix(":auto"))
    return [f"{name}:{k}" for k in range(LOWEST.get(name, 1), HIGHEST[name] + 1)]


def _listed(spec: str) -> list[str]:
    return [part.strip() for part in spec.split(",") if part.strip()]


def _swap(by: str, found: tuple[str, list[dict[str, Any]]]) -> tuple[str, str, list[dict[str, Any]]]:
    return found[0], by, found[1]


def _full(name: str) -> str:
    """The name in `HIGHEST`."""
    name = {"exp": "exppoly", "exponential": "exppoly", "chebyshev": "poly", "powerlaw": "power"}.get(name, name)
    if name not in HIGHEST:
        raise UserError(f"background '{name}:auto': orders are chosen for {', '.join(HIGHEST)}")
    return name


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
    bins: Bins, name: str, fixed: Sequence[FixedPeak] = (), sqrt_s: float = 13000.0, threshold: float = THRESHOLD
) -> tuple[str, list[dict[str, Any]]]:
    """Lowest order of a nested family that the next one does not improve significantly, and the record.

    The likelihood-ratio form of Fisher's F-test: twice the gain in ln L from one more parameter is chi-square
    distributed with one degree of freedom if the lower order is true (Wilks 1938; used by CMS 1804.02716 and 1911.03947
    for diphoton and dijet spectra). Stops at p > ``threshold`` and, as a guard against a chance plateau, requires the
    step after it to be insignificant too.

    Raises:
        UserError: an unknown family, or no order that can be fitted.
    """
    name = _full(name)
    first = LOWEST.get(name, 1)
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


def choose_listed(
    bins: Bins,
    names: Sequence[str],
    fixed: Sequence[FixedPeak] = (),
    sqrt_s: float = 13000.0,
    threshold: float = THRESHOLD,
) -> tuple[str, list[dict[str, Any]]]:
    """The first of families, in the given order, that the next one does not improve significantly, and the record.

    Fisher's F-test: F = (chi2_1 - chi2_2) / (ndf_1 - ndf_2) / (chi2_2 / ndf_2). Exact for nested families.

    Raises:
        UserError: a family without more parameters than the one before, or that cannot be fitted.
    """
    fits: list[tuple[str, float, int]] = []
    for name in names:
        kind = family(name, *bins.window, sqrt_s)
        chi2, _, ndf = _background(bins, kind, fixed)
        if fits and ndf >= fits[-1][2]:
            raise UserError(
                f"{name} is not more flexible than {fits[-1][0]}: list families from few to many parameters"
            )
        fits.append((name, chi2, ndf))
    record: list[Step] = []
    chosen = fits[-1][0]
    for here, after in pairwise(fits):
        extra = here[2] - after[2]
        improvement = here[1] - after[1]
        p = float(stats.f.sf(max(improvement / extra / (after[1] / after[2]), 0.0), extra, after[2]))
        record.append(Step(here[0], here[1], here[2], after[0], improvement, p))
        if p > threshold:
            chosen = here[0]
            break
    else:
        record.append(Step(fits[-1][0], fits[-1][1], fits[-1][2], None, None, None))
    return chosen, [asdict(step) for step in record]


def _gain(lower: tuple[str, float, float, int], higher: tuple[str, float, float, int]) -> tuple[float, float]:
    gain = max(0.0, lower[2] - higher[2])
    return gain, float(stats.chi2.sf(gain, max(1, lower[3] - higher[3])))


def _background(bins: Bins, kind: Family, fixed: Sequence[FixedPeak]) -> tuple[float, float, int]:
    problem = binned_problem(bins, kind, fixed)
    best = massfit.fit(problem, problem.start, f"background {kind.name}")
    chi2, ndf = massfit.goodness(bins, problem.expected(best.theta[None])[0], problem.size)
    return chi2, best.value, ndf


def spurious_masses(window: tuple[float, float], width: float, most: int = 60) -> np.ndarray:
    """Where the spurious signal is looked for: half a width apart, two widths from the ends of the window."""
    low, high = window[0] + 2 * width, window[1] - 2 * width
    if low >= high:
        return np.array([(window[0] + window[1]) / 2])
    return np.linspace(low, high, min(most, int((high - low) / (width / 2)) + 2))


def choose_by_simulation(
    bins: Bins,
    spec: str,
    simulated: Masses | Spectrum,
    masses: np.ndarray,
    width: float,
    tails: Sequence[float] = (),
    sqrt_s: float = 13000.0,
) -> Choice:
    """Choose among `candidate_names` by the spurious signal on a simulated spectrum, scaled to the data.

    The simulation's own fluctuations count as bias: it should hold many times the events of the data.
    """
    _, template = match_reference(bins, simulated)
    expected = template.expected * bins.counts.sum() / template.expected.sum()
    names = candidate_names(spec, bins.window[0])
    name, record = spurious_signal(expected, bins, names, masses, width, tails, sqrt_s)
    return Choice(name, "spurious signal", record)


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
    expected: np.ndarray,
    bins: Bins,
    candidates: Sequence[str],
    masses: np.ndarray,
    width: float,
    tails: Sequence[float] = (),
    sqrt_s: float = 13000.0,
    tolerance: float = 0.2,
) -> tuple[str, list[dict[str, Any]]]:
    """The simplest family whose fitted yield on a background-only template stays small, and the record.

    Fits signal plus background to the smooth expectation itself (no fluctuations) at the data's luminosity. The
    yield is pure bias; it may be at most ``tolerance`` of its statistical error at every mass (ATLAS 1408.7084 and
    1802.04146, section on background modelling: 20 %). Among those that pass, the fewest parameters win; if none
    does, the least biased, and the record says so.

    Args:
        expected: (B,) background events from simulation, scaled to the data. bins: where (their contents are not
            used). candidates: family names. masses: (M,) to test. width, tails: of the peak.
    """
    template = replace(bins, counts=np.asarray(expected, float), squares=None)
    signals = np.array([make_peak(m, width, *tails).integral(bins.low, bins.high) for m in masses])
    found: list[Spurious] = []
    for name in candidates:
        kind = family(name, *bins.window, sqrt_s)
        if kind.size + 1 >= len(bins):
            continue
        problem: Binned = binned_problem(template, kind)
        null = massfit.fit(problem, problem.start, f"background {name}")
        local = scan(problem, template.counts[None], signals, null.theta, one_sided=False, tolerance=1e-7)
        bias = np.abs(local.s[0] / local.s_err[0])
        worst = int(np.nanargmax(bias))
        good = bool(bias[worst] <= tolerance and not local.failed.any())
        found.append(Spurious(kind.name, kind.size, float(bias[worst]), float(masses[worst]), good))
    if not found:
        raise UserError(f"no background of {', '.join(candidates)} has fewer parameters than there are bins")
    passing = [f for f in found if f.passed]
    best = min(passing, key=lambda f: (f.parameters, f.largest)) if passing else min(found, key=lambda f: f.largest)
    return best.family, [asdict(f) for f in found]
