"""Fisher scoring of many small likelihood problems at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np


class Problem(Protocol):
    """Rows of independent likelihoods of one size; ``score_variance`` is asked for where events are ``weighted``."""

    @property
    def weighted(self) -> bool: ...

    def take(self, rows: np.ndarray) -> Problem: ...

    def evaluate(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]: ...

    def longest(self, theta: np.ndarray, step: np.ndarray) -> np.ndarray: ...

    def softened(self, barrier: float) -> Problem: ...

    def score_variance(self, theta: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class Solution:
    """Minima of R problems: ``theta`` (R, D), ``value`` (R,) -2 ln L, ``information`` (R, D, D), ``converged`` (R,)."""

    theta: np.ndarray
    value: np.ndarray
    information: np.ndarray
    converged: np.ndarray

    def replace(self, rows: np.ndarray, others: Solution) -> None:
        """Put the minima of ``others`` in the place of ``rows``, in place."""
        for name in ("theta", "value", "information", "converged"):
            getattr(self, name)[rows] = getattr(others, name)


def follow(problem: Problem, start: np.ndarray, tolerance: float, floor: float | None = None) -> Solution:
    """Minimise along barriers of falling weight (interior-point method): rows at a boundary that `minimise` gave up."""
    theta = start
    for barrier in (1e-1, 1e-2, 1e-3, 1e-4):
        theta = minimise(problem.softened(barrier), theta, 1e-3, 40, floor, exact=True).theta
    return minimise(problem, theta, tolerance, 100, floor, exact=True)


def minimise(
    problem: Problem,
    start: np.ndarray,
    tolerance: float = 1e-7,
    most: int = 100,
    floor: float | None = None,
    exact: bool = False,
) -> Solution:
    """Minimise -2 ln L of every row by Newton steps from ``start`` (R, D), halved where they do not help.

    ``tolerance``: expected further decrease at which a row is done. ``most``: iterations. ``floor``: lower bound of the
    last parameter; a row whose minimum lies below ends there. ``exact``: steps with the observed information where it
    is positive definite; slower, but near a wall Fisher scoring creeps.
    """
    theta = np.array(start, float)
    if floor is not None:
        theta[:, -1] = np.maximum(theta[:, -1], floor)
    value, gradient, information = problem.evaluate(theta)
    converged = np.zeros(len(theta), bool)
    active = np.flatnonzero(np.isfinite(value))
    for _ in range(most):
        if not len(active):
            break
        g, matrix, at = gradient[active], information[active], theta[active]
        if exact:
            matrix = _positive(curvature(problem.take(active), at, matrix), matrix)
        if floor is not None:  # a row at the bound that wants to go below moves in the other parameters only
            held = (at[:, -1] <= floor) & (g[:, -1] > 0)
            g = g.copy()
            g[held, -1] = 0.0
            matrix = matrix.copy()
            matrix[held, -1, :-1] = matrix[held, :-1, -1] = 0.0
        step = -0.5 * solve(matrix, g[:, :, None])[:, :, 0]
        if floor is not None:
            step[:, -1] = np.maximum(step[:, -1], floor - at[:, -1])
        gain = -0.5 * (g * step).sum(1)
        done = gain < tolerance
        converged[active[done]] = True
        active, step, gain = active[~done], step[~done], gain[~done]
        stuck = _advance(problem, active, step, gain, theta, value, gradient, information)
        # No descent left along a step whose promised gain is in the noise of the sum: that is the minimum.
        small = gain[stuck] < 1e-9 * (1 + np.abs(value[active[stuck]])) + 100 * tolerance
        converged[active[stuck][small]] = True
        active = active[~stuck]
    return Solution(theta, value, information, converged)


def _positive(observed: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """The observed information (R, D, D) where it is positive definite and not nearly flat, else the expected one."""
    flat = np.einsum("rdd->rd", observed) < 1e-4 * np.einsum("rdd->rd", expected)
    good = np.isfinite(observed).all((1, 2)) & ~flat.any(1)
    good[good] = np.linalg.eigvalsh(balanced(observed[good])[0])[:, 0] > 1e-10
    return np.where(good[:, None, None], observed, expected)


def curvature(problem: Problem, theta: np.ndarray, information: np.ndarray, share: float = 1e-4) -> np.ndarray:
    """Observed information (R, D, D) by differences of gradients a ``share`` of an error to either side."""
    observed = np.empty_like(information)
    unit = share / np.sqrt(np.maximum(np.einsum("rdd->rd", information), 1e-300))
    for k in range(theta.shape[1]):
        step = np.zeros_like(theta)
        step[:, k] = unit[:, k]
        (up, above, _), (down, below, _) = problem.evaluate(theta + step), problem.evaluate(theta - step)
        wide = (theta + step)[:, k] - (theta - step)[:, k]
        possible = np.isfinite(up) & np.isfinite(down) & (wide > 0)
        slope = (above - below) / (2 * np.where(possible, wide, 1.0)[:, None])
        observed[:, k] = np.where(possible[:, None], slope, np.inf)
    return (observed + observed.transpose(0, 2, 1)) / 2


def balanced(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Matrices (R, D, D) with a unit diagonal, and the scale (R, D) that made them so."""
    scale = 1 / np.sqrt(np.maximum(np.abs(np.einsum("rdd->rd", matrix)), 1e-200))
    return matrix * scale[:, :, None] * scale[:, None, :], scale


def solve(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """matrix^-1 right of every row, (R, D, D) and (R, D, K), regularised where a matrix is nearly singular."""
    unit, scale = balanced(matrix)
    unit = np.where(np.isfinite(unit), unit + 1e-12 * np.eye(matrix.shape[1]), 0.0)
    try:
        found = np.linalg.solve(unit, right * scale[:, :, None])
    except np.linalg.LinAlgError:
        found = np.linalg.solve(unit + 1e-6 * np.eye(matrix.shape[1]), right * scale[:, :, None])
    return found * scale[:, :, None]


def _advance(problem, active, step, gain, theta, value, gradient, information) -> np.ndarray:  # type: ignore[no-untyped-def]
    """Take the step of every active row, halved until -2 ln L falls; returns which rows found no descent."""
    pending = np.arange(len(active))
    if len(active):
        step = step * problem.take(active).longest(theta[active], step)[:, None]
    length = 1.0
    for _ in range(40):
        if not len(pending):
            break
        rows = active[pending]
        trial = theta[rows] + length * step[pending]
        v, g, m = problem.take(rows).evaluate(trial)
        better = v <= value[rows] - 1e-4 * length * gain[pending] + 1e-12 * np.abs(value[rows])
        good = rows[better]
        theta[good], value[good], gradient[good], information[good] = trial[better], v[better], g[better], m[better]
        pending = pending[~better]
        length *= 0.5 if length > 1e-3 else 0.1
    stuck = np.zeros(len(active), bool)
    stuck[pending] = True
    return stuck
