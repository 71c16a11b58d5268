"""Local significance of many peaks in many spectra: the batched core of the bump hunt and of its toys."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from raypipe import seeds
from raypipe.stats.binned import Binned
from raypipe.stats.newton import Solution, follow, minimise, solve

ELEMENTS = 60_000  # Numbers in one working array (rows times nodes): what stays in a core's cache
TOY_BLOCK = 500  # Toys drawn from one random stream; toy k is the same however many are asked for


@dataclass(frozen=True)
class LocalScan:
    """Tests (T, G) of G signals in T spectra: ``q0`` (1007.1727, equation 12), yields, signed roots (two-sided only).

    Where the scan is one-sided, s is zero and s_err undefined for deficits. ``failed``: (T,) spectra in which some fit
    did not converge, ``lost``: (T, G) which. ``null``: (T,) -2 ln L without a signal.
    """

    q0: np.ndarray
    s: np.ndarray
    s_err: np.ndarray
    r: np.ndarray
    failed: np.ndarray
    lost: np.ndarray
    null: np.ndarray


def scan(
    problem: Binned,
    counts: np.ndarray,
    templates: np.ndarray,
    start: np.ndarray,
    auxiliary: np.ndarray | None = None,
    one_sided: bool = True,
    tolerance: float = 1e-5,
) -> LocalScan:
    """q0 of every signal template (G, B) in every spectrum (T, B), the background profiled.

    Pairs whose score at the background's fit says deficit have q0 = 0 in a one-sided scan; all others are minimised
    together. ``start``: (D,) internal parameters; ``auxiliary``: (T, B) toy factors; ``tolerance``: on -2 ln L.
    """
    spectra, signals = len(counts), len(templates)
    q0, s, s_err, r = (np.zeros((spectra, signals)) for _ in range(4))
    s_err[:] = np.nan
    failed, lost = np.zeros(spectra, bool), np.zeros((spectra, signals), bool)
    null = np.zeros(spectra)
    most = max(1, ELEMENTS // max(len(problem.shape.weight), 1))
    base = replace(problem, counts=counts, auxiliary=auxiliary, signals=None, which=None)
    both = replace(base, signals=templates)
    for block in _blocks(spectra, most):
        background = replace(base, data=block)
        size = (len(block), 1)
        fitted = _minimise(background, np.tile(start, size), np.tile(background.start, size), tolerance / 10)
        failed[block[~fitted.converged]] = True
        null[block] = fitted.value
        row, column, first, error = _starting_points(replace(both, data=block), fitted, one_sided)
        if not one_sided:
            s_err[block] = error
        for part in _blocks(len(row), most):
            rows, columns = row[part], column[part]
            pairs = replace(both, data=block[rows], which=columns)
            without = np.c_[fitted.theta[rows], np.zeros(len(rows))]
            best = _minimise(pairs, first[part], without, tolerance, floor=0.0 if one_sided else None)
            where, yields = (block[rows], columns), best.theta[:, -1]
            failed[block[rows[~best.converged]]] = True
            stretch, s_err[where] = _last_error(pairs, best)
            difference = np.maximum(fitted.value[rows] - best.value, 0.0) / stretch
            q0[where] = np.where(yields > 0, difference, 0.0)
            r[where] = np.sign(yields) * np.sqrt(difference)
            s[where], lost[where] = yields, ~best.converged
    return LocalScan(q0, s, s_err, r, failed, lost, null)


def fit_all(problem: Binned, counts: np.ndarray, tolerance: float = 1e-6) -> Solution:
    """The background alone, fitted to many spectra (T, B)."""
    rows = replace(problem, counts=counts, data=np.arange(len(counts)), squares=None)
    start = np.tile(problem.start, (len(counts), 1))
    return _minimise(rows, start, start, tolerance)


def _minimise(
    problem: Binned, start: np.ndarray, fallback: np.ndarray, tolerance: float, floor: float | None = None
) -> Solution:
    """From ``start`` (R, D) and, where that fails, once more from ``fallback`` (R, D), with a longer leash."""
    solution = minimise(problem, start, tolerance, 40, floor)
    lost = np.flatnonzero(~solution.converged)
    if len(lost):
        solution.replace(lost, follow(problem.take(lost), fallback[lost], tolerance, floor))
    return solution


def _starting_points(
    both: Binned, fitted: Solution, one_sided: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pairs (spectrum, signal) to minimise, their one-step estimates from the score at the null fit, errors (R, G)."""
    gradient, cross, curvature = _scores(both, fitted.theta)
    back = solve(fitted.information, cross)  # (R, D, G)
    curvature = np.maximum(curvature - np.einsum("rdg,rdg->rg", cross, back), 1e-300)
    step = -0.5 * gradient / curvature
    row, column = np.nonzero(gradient < 0) if one_sided else np.nonzero(np.ones_like(gradient))
    yields = step[row, column]
    if not one_sided:
        # A negative yield starts half way to where the expectation would vanish, at the most.
        b = both.shape.expected(fitted.theta[:, : both.shape.size])
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            room = np.array([np.nanmin(np.where(t > 0, b / np.where(t > 0, t, 1), np.inf), 1) for t in both.signals]).T
        yields = np.maximum(yields, -0.5 * room[row, column])
        moving = ~replace(both, data=both.data[row], which=column).kinked(fitted.theta[row])
        row, column, yields = row[moving], column[moving], yields[moving]
    theta = fitted.theta[row] - back[row, :, column] * yields[:, None]
    return row, column, np.c_[theta, yields], curvature**-0.5


def _scores(both: Binned, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Score (R, G), cross information (R, D, G) and information (R, G) of every signal at zero yield."""
    shape, signals = both.shape, both.signals.T
    null = replace(both, signals=None, which=None)
    background, rest = null.parts(theta)
    cost = null.cost(background, rest)
    size = (1.0 if cost.beta is None else cost.beta) * (1.0 if shape.matrix is not None else background)
    cross = [(cost.info * size * mean) @ signals for mean in shape.mean_phi.T]
    cross += [(cost.info * c.template) @ signals for c in both.components]
    return cost.slope @ signals, np.stack(cross, 1), cost.info @ signals**2


def _last_error(problem: Binned, best: Solution) -> tuple[np.ndarray | float, np.ndarray]:
    """Of the last parameter of every row: variance over inverse information (one unless weighted), and error (R,)."""
    unit = np.zeros((*best.theta.shape, 1))
    unit[:, -1] = 1.0
    inverse = solve(best.information, unit)[:, :, 0]
    naive = np.maximum(inverse[:, -1], 0.0)
    if not problem.weighted:
        return 1.0, np.sqrt(naive)
    variance = np.einsum("ri,rij,rj->r", inverse, problem.score_variance(best.theta), inverse)
    variance = np.where(problem.at_wall(best.theta), naive, variance)
    return variance / np.maximum(naive, 1e-300), np.sqrt(variance)


def draw_toys(
    problem: Binned, theta: np.ndarray, toys: int, root: int
) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Background-only toy spectra, block by block: counts (t, B) and, for a template, its re-measured factors."""
    background, rest = problem.parts(theta[None])
    cost = problem.cost(background, rest)
    mu, beta = cost.mu[0], cost.beta
    for first in range(0, toys, TOY_BLOCK):
        rng = seeds.generator(root, "hunt", "toys", first // TOY_BLOCK)
        shape = (min(TOY_BLOCK, toys - first), len(mu))
        auxiliary = None
        if beta is not None:
            auxiliary = np.maximum(rng.normal(beta[0], problem.template_error, (TOY_BLOCK, len(mu))), 1e-3)[: shape[0]]
        if problem.errors is not None:
            spread = problem.errors
            if problem.template_error is not None:
                spread = np.hypot(spread, problem.template_error * background[0])
            counts = rng.normal(mu, spread, (TOY_BLOCK, len(mu)))
        else:
            counts = rng.poisson(mu / problem.scale, (TOY_BLOCK, len(mu))) * problem.scale
        yield counts[: shape[0]], auxiliary


def _blocks(total: int, size: int) -> Iterator[np.ndarray]:
    for first in range(0, total, size):
        yield np.arange(first, min(first + size, total))
