"""A peak whose mass, and width, are fitted: where it is, with errors, and how often background alone makes one."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace

import numpy as np

from raypipe.errors import UserError
from raypipe.stats import massfit
from raypipe.stats.likelihood import Binned
from raypipe.stats.lookelsewhere import GlobalP, from_toys
from raypipe.stats.newton import Problem
from raypipe.stats.peaks import CrystalBall, Gaussian, Peak
from raypipe.stats.scan import draw_toys, scan
from raypipe.stats.unbinned import Unbinned

MOST_POINTS = 400
WIDTHS = 7
"""Widths tried before the fit, in equal ratios."""


@dataclass(frozen=True)
class Ranges:
    """What floats.

    Attributes:
        mass, width: (low, high) or None for a fixed one. toys, seed: background-only spectra for the global p-value.
    """

    mass: tuple[float, float] | None = None
    width: tuple[float, float] | None = None
    toys: int = 500
    seed: int = 1

    def __post_init__(self) -> None:
        for name, pair in (("mass", self.mass), ("width", self.width)):
            if pair is not None and not (math.isfinite(pair[0]) and math.isfinite(pair[1]) and pair[0] < pair[1]):
                raise UserError(f"float {name} {pair[0]:g}-{pair[1]:g}: must be two finite numbers, low before high")
        if self.width is not None and self.width[0] <= 0:
            raise UserError(f"float width from {self.width[0]:g}: a width must be positive")

    @property
    def free(self) -> int:
        return (self.mass is not None) + (self.width is not None)


@dataclass(frozen=True)
class Floated:
    """Where the peak is.

    Attributes:
        peak: at the best mass and width. mass_err, width_err: from HESSE of all parameters together, None where fixed.
        s_err: error of the yield with the mass and width free. valid: the fit converged. at_limit: mass or width
        stopped at an end of its range. global_p: of the largest excess in the ranges, None without toys.
    """

    peak: Peak
    mass_err: float | None
    width_err: float | None
    s_err: float
    valid: bool
    at_limit: bool
    global_p: GlobalP | None


def float_peak(
    problem: Binned | Unbinned, counted: Binned, peak: Peak, ranges: Ranges, low: np.ndarray, high: np.ndarray,
    values: np.ndarray | None,
) -> Floated:  # fmt: skip
    """Fit mass and width of ``peak`` with its yield, starting from the best point of a grid.

    At the best mass, q0 is not chi-square distributed: every mass of the range had its chance. The global p-value
    counts background-only toys whose largest q0 on the grid reaches the observed one (Gross and Vitells, 1005.1891).

    Args:
        problem: background only, binned or not. counted: the same data in bins. low, high: (B,) its edges. values:
            masses of an unbinned problem.
    """
    masses, widths = _grid(peak, ranges)
    peaks = [_shaped(peak, m, w) for w in widths for m in masses]
    templates = np.array([p.integral(low, high) for p in peaks])
    if (templates.sum(1) < 0.01).any():
        raise UserError("the floating peak leaves the fitted bins; narrow its ranges")
    null = massfit.fit(counted, np.r_[counted.shape.start, [c.expected for c in counted.components]], "background fit")
    local = scan(counted, counted.counts, templates, null.theta, one_sided=False, tolerance=1e-6)
    top = int(np.argmax(local.r[0]))
    found = _together(problem, peaks[top], float(local.s[0, top]), null.theta, ranges, low, high, values)
    maxima = [scan(counted, counts, templates, null.theta, auxiliary).q0.max(1)
              for counts, auxiliary in draw_toys(counted, null.theta, ranges.toys, ranges.seed)]  # fmt: skip
    judged = from_toys(float(local.q0[0].max()), np.concatenate(maxima)) if maxima else None
    return replace(found, global_p=judged)


def _grid(peak: Peak, ranges: Ranges) -> tuple[np.ndarray, np.ndarray]:
    widths = np.array([peak.width]) if ranges.width is None else np.geomspace(*ranges.width, WIDTHS)
    if ranges.mass is None:
        return np.array([peak.mass]), widths
    number = math.ceil((ranges.mass[1] - ranges.mass[0]) / (widths.min() / 2)) + 1
    return np.linspace(*ranges.mass, min(number, MOST_POINTS)), widths


def _shaped(peak: Peak, mass: float, width: float) -> Peak:
    if isinstance(peak, Gaussian):
        return Gaussian(float(mass), float(width))
    return CrystalBall(float(mass), float(width), peak.a_low, peak.n_low, peak.a_high, peak.n_high)


def _together(
    problem: Binned | Unbinned, start: Peak, s: float, theta: np.ndarray, ranges: Ranges, low: np.ndarray,
    high: np.ndarray, values: np.ndarray | None,
) -> Floated:  # fmt: skip
    """MIGRAD and HESSE over background, yield, mass and width."""
    from iminuit import Minuit

    def at(shape: Peak) -> Problem:
        density = None if values is None else shape.density(values)
        return massfit.with_signal(problem, shape.integral(low, high), density)

    first = massfit.fit(at(start), np.r_[theta, s], "fit at the best mass of the grid")
    unit = np.maximum(first.errors, 1e-9 * (1 + np.abs(first.theta)))
    size = len(unit)
    moving = [k for k, pair in enumerate((ranges.mass, ranges.width)) if pair is not None]

    def shape(x: np.ndarray) -> Peak:
        place = [start.mass, start.width]
        for k, value in zip(moving, x[size:], strict=True):
            place[k] = value
        return _shaped(start, *place)

    def cost(x: np.ndarray) -> float:
        value = at(shape(x)).evaluate((first.theta + x[:size] * unit)[None])[0][0] - first.value
        return float(value) if np.isfinite(value) else 1e9

    def gradient(x: np.ndarray) -> np.ndarray:
        slope = at(shape(x)).evaluate((first.theta + x[:size] * unit)[None])[1][0] * unit
        extra = []
        for k in range(size, size + len(moving)):
            step = np.zeros(len(x))
            step[k] = 1e-3 * start.width
            extra.append((cost(x + step) - cost(x - step)) / (2 * step[k]))
        return np.r_[slope, extra]

    minuit = Minuit(cost, np.r_[np.zeros(size), [(start.mass, start.width)[k] for k in moving]], grad=gradient)
    minuit.errordef = Minuit.LEAST_SQUARES
    for k in range(size):
        minuit.errors[k] = 0.1
    for k, which in enumerate(moving, start=size):
        minuit.limits[k] = (ranges.mass, ranges.width)[which]
        minuit.errors[k] = 0.1 * start.width
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # iminuit warns where it sets validity flags, which are read below
        minuit.migrad(ncall=4000)
        minuit.hesse()
    place = dict(zip(moving, minuit.values[size:], strict=True))
    errors = dict(zip(moving, minuit.errors[size:], strict=True))
    ends = [(ranges.mass, ranges.width)[k] for k in moving]
    at_limit = any(min(v - e[0], e[1] - v) < 1e-3 * (e[1] - e[0]) for v, e in zip(place.values(), ends, strict=True))
    return Floated(
        _shaped(start, place.get(0, start.mass), place.get(1, start.width)),
        errors.get(0), errors.get(1), float(minuit.errors[size - 1] * unit[-1]),
        bool(minuit.valid or at_limit), at_limit, None,
    )  # fmt: skip
