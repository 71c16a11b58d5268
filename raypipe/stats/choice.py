"""Which background function: by F-tests on the data, by the spurious signal on a background-only template."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from scipy import stats

from raypipe.errors import UserError
from raypipe.events.masses import Masses
from raypipe.events.spectra import Spectrum
from raypipe.stats import massfit
from raypipe.stats.backgrounds import ALIASES, ORDERS, Family, family
from raypipe.stats.bins import Bins
from raypipe.stats.lookelsewhere import finite
from raypipe.stats.peakdata import FixedPeak, binned_problem, match_reference
from raypipe.stats.peaks import Peak
from raypipe.stats.scan import scan

HIGHEST = {"exppoly": 5, "poly": 7, "bernstein": 7, "power": 4, "dijet": 6, "diphoton": 6}  # Highest order tried
THRESHOLD = 0.05  # p-value below which one more parameter is an improvement
ENVELOPE = "envelope:"
TOLERANCE = 0.2  # Largest spurious signal in errors of the yield


Measured = tuple[float, float, int]
"""Of a background-only fit: chi2, -2 ln L and degrees of freedom."""


@dataclass(frozen=True)
class Choice:
    """The chosen background, ``by`` what (F-test, F-tests and AIC, spurious signal), and the ``record`` of it."""

    family: str
    by: str
    record: list[dict[str, Any]]


def is_envelope(spec: str) -> bool:
    """Whether several backgrounds are fitted together, as `raypipe.stats.envelope` does."""
    return spec.strip().startswith(ENVELOPE)


def is_choice(spec: str) -> bool:
    """Whether a background is still to be chosen: ``auto``, ``NAME:auto`` or ``A,B,C``."""
    return not is_envelope(spec) and (spec.strip() == "auto" or spec.endswith(":auto") or "," in spec)


def choose(
    bins: Bins,
    spec: str,
    fixed: Sequence[FixedPeak] = (),
    sqrt_s: float = 13000.0,
    fit: Callable[[Family], Measured] | None = None,
) -> Choice:
    """Choose by the data: the order of one family, one of a list, or the best of several families.

    ``NAME:auto`` is `choose_order`, ``A,B,C`` `choose_listed`. ``auto`` takes the order of exppoly, of bernstein and,
    for positive masses, of power by F-test, and among these the one with the least chi2 + 2 parameters (Akaike 1974).
    ``fit``: what fits a family to the data, by default to ``bins`` with the ``fixed`` peaks. Raises `UserError`:
    nothing that can be fitted, unknown names.
    """
    spec, fit = spec.strip(), fit or fits_of(bins, fixed)
    if spec != "auto":
        by, names = (choose_listed, _listed(spec)) if "," in spec else (choose_order, spec.removesuffix(":auto"))
        found, record = by(bins.window, names, fit, sqrt_s)
        return Choice(found, "F-test", record)
    best, record = [], []
    for name in _broad(bins.window[0]):
        try:
            family_name, steps = choose_order(bins.window, name, fit, sqrt_s)
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
    """The families that ``spec`` lets one choose from, for the spurious-signal test and the envelope."""
    if "," in spec:
        return _listed(spec)
    if spec == "auto":
        return [f"{name}:{k}" for name in _broad(low) for k in range(1, 4)]
    name = _full(spec.removesuffix(":auto"))
    return [f"{name}:{k}" for k in range(max(1, ORDERS[name][0]), HIGHEST[name] + 1)]


def _broad(low: float) -> list[str]:
    """What ``auto`` chooses from."""
    return ["exppoly", "bernstein", *(["power"] if low > 0 else [])]


def _listed(spec: str) -> list[str]:
    return [part.strip() for part in spec.split(",") if part.strip()]


def _full(name: str) -> str:
    """The name in `HIGHEST`."""
    name = ALIASES.get(name, name)
    if name not in HIGHEST:
        raise UserError(f"background '{name}:auto': orders are chosen for {', '.join(HIGHEST)}")
    return name


def _step(
    family: str, chi2: float, ndf: int, after: str | None = None, gain: float | None = None, p: float | None = None
) -> dict[str, Any]:
    """One comparison with the family ``after``: the gain, and its probability were the first one true."""
    return {"family": family, "chi2": chi2, "ndf": ndf, "next": after, "improvement": gain, "p": p}


def choose_order(
    window: tuple[float, float], name: str, fit: Callable[[Family], Measured], sqrt_s: float = 13000.0
) -> tuple[str, list[dict[str, Any]]]:
    """Lowest order of a nested family that the next one does not improve significantly, and the record.

    Twice the gain in ln L from one more parameter is chi-square distributed with one degree of freedom if the lower
    order is true (Wilks 1938; CMS 1804.02716, 1911.03947). Stops at p > `THRESHOLD`, if the step after is
    insignificant too. Raises `UserError`: an unknown family, or no order that can be fitted.
    """
    name = _full(name)
    first = max(1, ORDERS[name][0])
    fits: list[tuple[str, float, float, int]] = []
    for order in range(first, HIGHEST[name] + 1):
        try:
            kind = family(f"{name}:{order}", *window, sqrt_s)
            chi2, value, ndf = fit(kind)
        except UserError:
            if not fits:
                raise
            break  # too many parameters for these data
        if ndf < 1:
            break
        fits.append((kind.name, chi2, value, ndf))
        if len(fits) >= 3 and all(_gain(fits[k], fits[k + 1])[1] > THRESHOLD for k in (-3, -2)):
            break
    if not fits:
        raise UserError(f"background '{name}:auto': fewer bins with events than parameters at the lowest order")
    record = [_step(here[0], here[1], here[3], after[0], *_gain(here, after)) for here, after in pairwise(fits)]
    enough = [step["p"] > THRESHOLD for step in record] + [True, True]
    record.append(_step(fits[-1][0], fits[-1][1], fits[-1][3]))
    chosen = next(k for k in range(len(record)) if enough[k] and enough[k + 1])
    return record[chosen]["family"], record


def choose_listed(
    window: tuple[float, float],
    names: Sequence[str],
    fit: Callable[[Family], Measured],
    sqrt_s: float = 13000.0,
    threshold: float = THRESHOLD,
) -> tuple[str, list[dict[str, Any]]]:
    """The first of families, in the given order, that the next one does not improve significantly, and the record.

    Fisher's F-test: F = (chi2_1 - chi2_2) / (ndf_1 - ndf_2) / (chi2_2 / ndf_2). Exact for nested families. Raises
    `UserError`: a family without more parameters than the one before, or that cannot be fitted.
    """
    fits: list[tuple[str, float, int]] = []
    for name in names:
        chi2, _, ndf = fit(family(name, *window, sqrt_s))
        if fits and ndf >= fits[-1][2]:
            raise UserError(
                f"{name} is not more flexible than {fits[-1][0]}: list families from few to many parameters"
            )
        fits.append((name, chi2, ndf))
    record = []
    for here, after in pairwise(fits):
        extra, gain = here[2] - after[2], here[1] - after[1]
        p = float(stats.f.sf(max(gain / extra / (after[1] / after[2]), 0.0), extra, after[2]))
        record.append(_step(*here, after[0], gain, p))
        if p > threshold:
            return here[0], record
    return fits[-1][0], [*record, _step(*fits[-1])]


def _gain(lower: tuple[str, float, float, int], higher: tuple[str, float, float, int]) -> tuple[float, float]:
    gain = max(0.0, lower[2] - higher[2])
    return gain, float(stats.chi2.sf(gain, max(1, lower[3] - higher[3])))


def fits_of(bins: Bins, fixed: Sequence[FixedPeak] = ()) -> Callable[[Family], Measured]:
    """What fits a family and the ``fixed`` peaks to these data."""

    def fit(kind: Family) -> Measured:
        problem = binned_problem(bins, kind, fixed)
        best = massfit.fit(problem, problem.start, f"background {kind.name}")
        chi2, ndf = massfit.goodness(bins, problem.expected(best.theta[None])[0], problem.size)
        return chi2, best.value, ndf

    return fit


def spurious_masses(window: tuple[float, float], width: float, most: int = 60) -> np.ndarray:
    """Where the spurious signal is looked for: half a width apart, two widths from the ends of the window."""
    low, high = window[0] + 2 * width, window[1] - 2 * width
    if low >= high:
        return np.array([(window[0] + window[1]) / 2])
    return np.linspace(low, high, min(most, int((high - low) / (width / 2)) + 2))


def choose_by_simulation(bins: Bins, spec: str, simulated: Masses | Spectrum, peak: Peak, sqrt_s: float) -> Choice:
    """Choose among `candidate_names` by the spurious signal on a simulated spectrum, scaled to the data."""
    _, template = match_reference(bins, simulated)
    expected = template.counts * bins.counts.sum() / template.counts.sum()
    names = candidate_names(spec, bins.window[0])
    name, record = spurious_signal(expected, bins, names, spurious_masses(bins.window, peak.width), peak, sqrt_s)
    return Choice(name, "spurious signal", record)


def feigned(choice: Choice, mass: float, width: float) -> float:
    """Largest spurious yield of the chosen background within three widths of a mass (ATLAS: in the range it fits)."""
    (step,) = (step for step in choice.record if step["family"] == choice.family)
    near = [abs(s) for m, s in step["yields"] if abs(m - mass) <= 3 * width and s is not None]
    return max(near or [abs(s) for _, s in step["yields"] if s is not None])


def spurious_signal(
    expected: np.ndarray, bins: Bins, candidates: Sequence[str], masses: np.ndarray, peak: Peak, sqrt_s: float = 13000.0
) -> tuple[str, list[dict[str, Any]]]:
    """The simplest family whose fitted yield on a background-only template stays small, and the record.

    The yield of signal plus background is pure bias: at most `TOLERANCE` of its error, with the ``peak`` at all
    ``masses`` (M,) (ATLAS 1408.7084, 1802.04146). The fewest parameters that pass win; if none does, the least biased.
    ``expected``: (B,) simulated events, scaled to the data.
    """
    template = replace(bins, counts=np.asarray(expected, float), squares=None)
    signals = np.array([replace(peak, mass=m).integral(bins.low, bins.high) for m in masses])
    found: list[dict[str, Any]] = []
    for name in candidates:
        kind = family(name, *bins.window, sqrt_s)
        if kind.size + 1 >= len(bins):
            continue
        problem = binned_problem(template, kind)
        null = massfit.fit(problem, problem.start, f"background {name}")
        local = scan(problem, template.counts[None], signals, null.theta, one_sided=False, tolerance=1e-7)
        bias = np.abs(local.s[0] / local.s_err[0])
        worst = int(np.nanargmax(bias))
        good = bool(bias[worst] <= TOLERANCE and not local.failed.any())
        where = {"largest": float(bias[worst]), "mass": float(masses[worst]), "passed": good}
        where["yields"] = [[float(m), finite(float(s))] for m, s in zip(masses, local.s[0], strict=True)]
        found.append({"family": kind.name, "parameters": kind.size} | where)
    if not found:
        raise UserError(f"no background of {', '.join(candidates)} has fewer parameters than there are bins")
    passing = [f for f in found if f["passed"]]
    best = min(passing or found, key=lambda f: (f["parameters"] if passing else 0, f["largest"]))
    return best["family"], found
