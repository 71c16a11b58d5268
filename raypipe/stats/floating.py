"""A peak whose mass, and width, are fitted: where it is, with errors, and how often background alone makes one."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from raypipe.errors import UserError
from raypipe.stats import massfit
from raypipe.stats.likelihood import Binned, Component
from raypipe.stats.lookelsewhere import GlobalP, from_toys
from raypipe.stats.newton import minimise
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
        peak: at the best mass and width. mass_err, width_err: all parameters together, None where fixed or at a limit.
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
    problem: Binned | Unbinned,
    counted: Binned,
    peak: Peak,
    ranges: Ranges,
    low: np.ndarray,
    high: np.ndarray,
    values: np.ndarray | None,
) -> Floated:
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
    plain = replace(counted, squares=None)
    maxima = [
        scan(plain, counts, templates, null.theta, auxiliary).q0.max(1)
        for counts, auxiliary in draw_toys(plain, null.theta, ranges.toys, ranges.seed)
    ]
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


@dataclass(frozen=True)
class _Moving:
    """Background, yield and the free ones of mass and width: a `Problem` of one row, parameters in that order.

    Attributes:
        problem: background only. start: the peak where nothing moves. moving: which of (mass, width). ends: their
            ranges. low, high: (B,) edges. values: masses of an unbinned problem.
    """

    problem: Binned | Unbinned
    start: Peak
    moving: tuple[int, ...]
    ends: tuple[tuple[float, float], ...]
    low: np.ndarray
    high: np.ndarray
    values: np.ndarray | None

    rows = 1

    @property
    def weighted(self) -> bool:
        return self.problem.weighted

    def take(self, rows: np.ndarray) -> _Moving:
        return self

    def softened(self, barrier: float) -> _Moving:
        return replace(self, problem=self.problem.softened(barrier))

    def longest(self, theta: np.ndarray, step: np.ndarray) -> np.ndarray:
        first = len(theta[0]) - len(self.moving)
        share = self._fixed(theta[0])[0].longest(theta[:, :first], step[:, :first])
        for k, (low, high) in enumerate(self.ends, start=first):
            room = high - theta[:, k] if step[0, k] > 0 else theta[:, k] - low
            share = np.minimum(share, 0.9 * room / np.maximum(np.abs(step[:, k]), 1e-300))
        return share

    def evaluate(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        problem, x, order = self._tangent(theta[0])
        value, gradient, information = problem.evaluate(x[None])
        information = information[:, order][:, :, order]
        for k, (low, high) in enumerate(self.ends, start=len(order) - len(self.ends)):
            information[:, k, k] += 1 / (high - low) ** 2  # no step beyond the range where a bin hides the whole peak
        return value, gradient[:, order], information

    def score_variance(self, theta: np.ndarray) -> np.ndarray:
        problem, x, order = self._tangent(theta[0])
        return problem.score_variance(x[None])[:, order][:, :, order]

    def peak(self, theta: np.ndarray) -> Peak:
        place = [self.start.mass, self.start.width]
        for which, value in zip(self.moving, theta[len(theta) - len(self.moving) :], strict=True):
            place[which] = float(value)
        return _shaped(self.start, *place)

    def ended(self, theta: np.ndarray) -> list[int]:
        """Which of mass and width are at an end of their ranges."""
        place = theta[len(theta) - len(self.moving) :]
        return [
            k
            for k, v, (low, high) in zip(self.moving, place, self.ends, strict=True)
            if min(v - low, high - v) < 1e-3 * (high - low)
        ]

    def _fixed(self, theta: np.ndarray) -> tuple[Binned | Unbinned, Peak]:
        peak = self.peak(theta)
        density = None if self.values is None else peak.density(self.values)
        return self.problem.with_signal(peak.integral(self.low, self.high), density), peak

    def _tangent(self, theta: np.ndarray) -> tuple[Binned | Unbinned, np.ndarray, np.ndarray]:
        """The problem at this mass and width with what a shift adds as components, its parameters, and our order.

        The derivatives by the yield of such a component, at nought, are those by mass or width.
        """
        fixed, peak = self._fixed(theta)
        number = len(self.moving)
        s = theta[-number - 1]
        components, densities = list(fixed.components), []
        for which in self.moving:
            step = 1e-4 * peak.width
            up, down = (
                _shaped(peak, peak.mass + sign * step * (which == 0), peak.width + sign * step * (which == 1))
                for sign in (1, -1)
            )
            slope = s * (up.integral(self.low, self.high) - down.integral(self.low, self.high)) / (2 * step)
            components.append(Component("shift", slope, 0.0, math.inf))
            if self.values is not None:
                densities.append(s * (up.density(self.values) - down.density(self.values)) / (2 * step))
        fixed = replace(fixed, components=tuple(components))
        if isinstance(fixed, Unbinned):
            fixed = replace(fixed, densities=(*fixed.densities, *densities))
        size = len(theta) - number - 1
        x = np.r_[theta[:size], np.zeros(number), s]
        return fixed, x, np.r_[np.arange(size), size + number, size + np.arange(number)]


def _together(
    problem: Binned | Unbinned,
    start: Peak,
    s: float,
    theta: np.ndarray,
    ranges: Ranges,
    low: np.ndarray,
    high: np.ndarray,
    values: np.ndarray | None,
) -> Floated:
    """Background, yield, mass and width together; one that runs to an end of its range is fixed there."""
    pairs = (ranges.mass, ranges.width)
    peak, moving, x = _inside(start, ranges), [k for k, pair in enumerate(pairs) if pair is not None], np.r_[theta, s]
    at_limit, best = False, None
    while best is None:
        free = _Moving(problem, peak, tuple(moving), tuple(pairs[k] for k in moving), low, high, values)
        x = np.r_[x, [(peak.mass, peak.width)[k] for k in moving]]
        while not np.isfinite(free.evaluate(x[None])[0][0]) and abs(x[len(theta)]) > 1e-6 * abs(s):
            x[len(theta)] /= 2  # a deficit deeper than the background here
        x = minimise(free, x[None], 1e-6, 15).theta[0]
        if not free.ended(x):
            best = massfit.fit(free, x, "fit of the peak's place")
            x = best.theta
        peak = free.peak(x)
        x, out = x[: len(theta) + 1], free.ended(x)
        if out:
            at_limit, best = True, None
            place = [peak.mass, peak.width]
            for k in out:
                place[k] = min(pairs[k], key=lambda end, at=place[k]: abs(end - at))
            peak, moving = _shaped(peak, *place), [k for k in moving if k not in out]
    errors = {k: float(best.errors[len(x) + i]) for i, k in enumerate(moving)}
    return Floated(peak, errors.get(0), errors.get(1), float(best.errors[len(theta)]), best.valid, at_limit, None)


def _inside(peak: Peak, ranges: Ranges) -> Peak:
    """The peak with mass and width a little inside their ranges: from an end no step leads on."""
    place = []
    for value, pair in ((peak.mass, ranges.mass), (peak.width, ranges.width)):
        margin = 0.0 if pair is None else 0.02 * (pair[1] - pair[0])
        place.append(value if pair is None else min(max(value, pair[0] + margin), pair[1] - margin))
    return _shaped(peak, *place)
