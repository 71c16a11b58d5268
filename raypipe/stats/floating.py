"""A peak whose mass, and width, are fitted: where it is, with errors, and how often background alone makes one."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from raypipe.errors import UserError
from raypipe.stats import massfit
from raypipe.stats.binned import Binned
from raypipe.stats.bins import Bins
from raypipe.stats.likelihood import Component
from raypipe.stats.lookelsewhere import GlobalP, from_toys
from raypipe.stats.newton import minimise
from raypipe.stats.peaks import Peak
from raypipe.stats.scan import draw_toys, scan
from raypipe.stats.unbinned import Unbinned

MOST_POINTS = 400
WIDTHS = 7  # Widths tried before the fit, in equal ratios


@dataclass(frozen=True)
class Ranges:
    """(low, high) in which mass and width float, None for a fixed one; ``toys`` for the global p-value."""

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
    """Where the peak is; errors with all parameters free, None where fixed or ``at_limit`` (an end of its range).

    ``global_p``: of the largest excess in the ranges, None without toys.
    """

    peak: Peak
    mass_err: float | None
    width_err: float | None
    s_err: float
    valid: bool
    at_limit: bool
    global_p: GlobalP | None


def float_peak(
    problem: Binned | Unbinned, counted: Binned, peak: Peak, ranges: Ranges, bins: Bins, values: np.ndarray | None
) -> Floated:
    """Fit mass and width of ``peak`` with its yield, starting from the best point of a grid.

    The global p-value counts background-only toys whose largest q0 on the grid reaches the observed one (Gross and
    Vitells, 1005.1891). ``problem``: background only; ``counted``: the same in ``bins``; ``values``: unbinned masses.
    """
    masses, widths = _grid(peak, ranges)
    peaks = [replace(peak, mass=float(m), width=float(w)) for w in widths for m in masses]
    templates = np.array([p.integral(bins.low, bins.high) for p in peaks])
    if (templates.sum(1) < 0.01).any():
        raise UserError("the floating peak leaves the fitted bins; narrow its ranges")
    null = massfit.fit(counted, counted.start, "background fit")
    local = scan(counted, counted.counts, templates, null.theta, one_sided=False, tolerance=1e-6)
    top = int(np.argmax(local.r[0]))
    moving = _Moving(problem, bins, values, peaks[top], {"mass": ranges.mass, "width": ranges.width})
    found = _together(moving.inside(), float(local.s[0, top]), null.theta)
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


@dataclass(frozen=True)
class _Moving:
    """Background, yield and the free ones of mass and width: a `Problem` of one row, parameters in that order."""

    problem: Binned | Unbinned
    bins: Bins
    values: np.ndarray | None
    start: Peak
    ranges: dict[str, tuple[float, float] | None]

    @property
    def weighted(self) -> bool:
        return self.problem.weighted

    @property
    def ends(self) -> dict[str, tuple[float, float]]:
        """Ranges of what moves."""
        return {name: pair for name, pair in self.ranges.items() if pair is not None}

    def take(self, rows: np.ndarray) -> _Moving:
        return self

    def softened(self, barrier: float) -> _Moving:
        return replace(self, problem=self.problem.softened(barrier))

    def longest(self, theta: np.ndarray, step: np.ndarray) -> np.ndarray:
        first = theta.shape[1] - len(self.ends)
        share = self._at(self.peak(theta[0])).longest(theta[:, :first], step[:, :first])
        for k, (low, high) in enumerate(self.ends.values(), start=first):
            room = high - theta[:, k] if step[0, k] > 0 else theta[:, k] - low
            share = np.minimum(share, 0.9 * room / np.maximum(np.abs(step[:, k]), 1e-300))
        return share

    def evaluate(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        problem, x, order = self._tangent(theta[0])
        value, gradient, information = problem.evaluate(x[None])
        information = information[:, order][:, :, order]
        for k, (low, high) in enumerate(self.ends.values(), start=len(order) - len(self.ends)):
            information[:, k, k] += 1 / (high - low) ** 2  # no step beyond the range where a bin hides the whole peak
        return value, gradient[:, order], information

    def score_variance(self, theta: np.ndarray) -> np.ndarray:
        problem, x, order = self._tangent(theta[0])
        return problem.score_variance(x[None])[:, order][:, :, order]

    def place(self, theta: np.ndarray) -> dict[str, float]:
        """Values of what moves."""
        return dict(zip(self.ends, theta[len(theta) - len(self.ends) :].tolist(), strict=True))

    def peak(self, theta: np.ndarray) -> Peak:
        return replace(self.start, **self.place(theta))

    def inside(self) -> _Moving:
        """The same with the peak a little inside its ranges: from an end no step leads on."""
        place = {}
        for name, (low, high) in self.ends.items():
            margin = 0.02 * (high - low)
            place[name] = min(max(getattr(self.start, name), low + margin), high - margin)
        return replace(self, start=replace(self.start, **place))

    def ended(self, theta: np.ndarray) -> dict[str, float]:
        """Those of mass and width that are at an end of their ranges, and which."""
        near = {}
        for name, value in self.place(theta).items():
            low, high = self.ranges[name]
            if min(value - low, high - value) < 1e-3 * (high - low):
                near[name] = low if value - low <= high - value else high
        return near

    def _at(self, peak: Peak) -> Binned | Unbinned:
        """The problem with the signal at one place."""
        return self.problem.with_signal(*self._shares(peak))

    def _shares(self, peak: Peak) -> tuple[np.ndarray, np.ndarray | float]:
        """Of the bins, and densities at the masses."""
        return peak.integral(self.bins.low, self.bins.high), 0.0 if self.values is None else peak.density(self.values)

    def _tangent(self, theta: np.ndarray) -> tuple[Binned | Unbinned, np.ndarray, np.ndarray]:
        """The problem at this mass and width with what a shift adds as components, its parameters, and our order."""
        peak, number = self.peak(theta), len(self.ends)
        size, s, step = len(theta) - number - 1, theta[-number - 1], 1e-4 * peak.width
        fixed = self._at(peak)
        for name in self.ends:
            up, down = (self._shares(replace(peak, **{name: getattr(peak, name) + move})) for move in (step, -step))
            slope, slope_at = (s * (above - below) / (2 * step) for above, below in zip(up, down, strict=True))
            fixed = replace(fixed, components=(*fixed.components, Component("shift", slope, 0.0, math.inf)))
            if isinstance(fixed, Unbinned):
                fixed = replace(fixed, densities=(*fixed.densities, slope_at))
        x = np.r_[theta[:size], np.zeros(number), s]
        return fixed, x, np.r_[np.arange(size), size + number, size + np.arange(number)]


def _together(free: _Moving, s: float, theta: np.ndarray) -> Floated:
    """Background, yield, mass and width together; one that runs to an end of its range is fixed there."""
    x, size, at_limit, best = np.r_[theta, s], len(theta), False, None
    while best is None:
        x = np.r_[x, [getattr(free.start, name) for name in free.ends]]
        while not np.isfinite(free.evaluate(x[None])[0][0]) and abs(x[size]) > 1e-6 * abs(s):
            x[size] /= 2  # a deficit deeper than the background here
        x = minimise(free, x[None], 1e-6, 15).theta[0]
        if not free.ended(x):
            best = massfit.fit(free, x, "fit of the peak's place")
            x = best.theta
        out, peak = free.ended(x), free.peak(x)
        if out:
            at_limit, best = True, None
            fixed = {name: None if name in out else pair for name, pair in free.ranges.items()}
            free, x = replace(free, start=replace(peak, **out), ranges=fixed), x[: size + 1]
    errors = {name: float(best.errors[k]) for k, name in enumerate(free.ends, start=size + 1)}
    return Floated(peak, errors.get("mass"), errors.get("width"), float(best.errors[size]), best.valid, at_limit, None)
