"""Fits of a mass spectrum, background alone and with a signal."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy import optimize, stats

from raypipe.errors import UserError
from raypipe.stats.binned import Binned
from raypipe.stats.bins import Bins, groups
from raypipe.stats.limits import Limit, upper_limit
from raypipe.stats.newton import Problem, balanced, curvature, follow, minimise
from raypipe.stats.shape import Shape
from raypipe.stats.unbinned import Unbinned

NEAR = 1e-3  # Further decrease of -2 ln L that is expected at a minimum at the most


@dataclass(frozen=True)
class Minimum:
    """A fit: ``theta`` (D,) internal background parameters, component yields, signal yield; ``status`` in words.

    ``stretch``: variance of the last parameter over its inverse curvature; one unless events are weighted.
    """

    theta: np.ndarray
    covariance: np.ndarray
    value: float
    valid: bool
    status: str
    stretch: float = 1.0

    @property
    def errors(self) -> np.ndarray:
        return np.sqrt(np.maximum(np.diag(self.covariance), 0.0))


def fit(problem: Problem, start: np.ndarray, what: str) -> Minimum:
    """Minimise one row by Fisher scoring; errors from the observed information, of weighted events as in 1911.01303.

    Raises `UserError`: no starting point, parameters that the data do not determine.
    """
    solution = minimise(problem, start[None], most=60)
    if not solution.converged[0] and np.isfinite(solution.value[0]):
        solution = min((solution, follow(problem, start[None], 1e-7)), key=lambda s: (not s.converged[0], s.value[0]))
    if not np.isfinite(solution.value[0]):
        raise UserError(f"{what}: no starting point with a finite likelihood; the background cannot describe the data")
    if _inverse(solution.information[0]) is None:
        raise UserError(f"{what}: degenerate: the data do not determine all parameters; use a simpler background")
    solution = minimise(problem, solution.theta, 1e-6, exact=True)
    theta = solution.theta
    _, gradient, information = problem.evaluate(theta)
    naive = _inverse(curvature(problem, theta, information)[0])
    inside = naive is not None
    if naive is None:
        naive = np.linalg.pinv(information[0], hermitian=True)
    valid = bool(solution.converged[0] or 0.25 * gradient[0] @ naive @ gradient[0] < NEAR)
    status = "converged" if inside else "converged at a boundary (errors from expected information)"
    covariance = naive @ problem.score_variance(theta)[0] @ naive if problem.weighted else naive
    stretch = float(covariance[-1, -1] / naive[-1, -1])
    return Minimum(theta[0], covariance, float(solution.value[0]), valid, status if valid else "not converged", stretch)


def _inverse(information: np.ndarray) -> np.ndarray | None:
    """Inverse of an information matrix; None unless it is positive definite within rounding."""
    if not np.isfinite(information).all() or not (np.diag(information) > 0).all():
        return None
    (unit,), (scale,) = balanced(information[None])
    eigenvalues = np.linalg.eigvalsh(unit)
    if eigenvalues[0] < 1e-10 * eigenvalues[-1]:
        return None
    return np.linalg.inv(unit) * np.outer(scale, scale)


MOST_INFLATION = 300.0
"""Growth of the yield's error by the free background at which signal and background are the same thing."""


class Profile:
    """-2 ln L against the fixed signal yield of ``problem``, every point starting from the nearest known one."""

    def __init__(self, problem: Binned | Unbinned, known: dict[float, np.ndarray]) -> None:
        self._problem, self._known = problem, known

    def __call__(self, s: float) -> float:
        fixed = self._problem.at_yield(s)
        nearest = self._known[min(self._known, key=lambda x: abs(x - s))]
        for start in (nearest, fixed.start):
            solution = minimise(fixed, start[None], tolerance=1e-8)
            if np.isfinite(solution.value[0]):
                self._known[s] = solution.theta[0]
                break
        return float(solution.value[0])


class Hidden:
    """-2 ln L against the yield where a spurious one of the background's may hide in it (ATLAS 1408.7084).

    ``curve``: without it, with its minimum at ``best``. ``spurious``: standard deviation of the hidden yield, whose
    shape is the signal's.
    """

    def __init__(self, curve: Profile, best: float, spurious: float) -> None:
        self._curve, self._best, self._spurious = curve, best, spurious

    def __call__(self, s: float) -> float:
        # What hides takes a part of the way to the minimum, never more.
        cost = lambda share: self._curve(s + share * way) + (share * way / self._spurious) ** 2  # noqa: E731
        way = self._best - s
        found = optimize.minimize_scalar(cost, bounds=(0.0, 1.0), method="bounded", options={"xatol": 1e-4})
        return float(min(found.fun, cost(0.0)))


@dataclass(frozen=True)
class SignalFit:
    """Signal plus background against background only.

    ``s``, ``s_err``: unconstrained yield. ``interval``: 68 % likelihood interval. ``q0``: 2 ln [L(s) / L(0)], zero for
    a deficit (1007.1727, equation 12); ``r``: its signed root. ``p0``: one-sided. ``at_boundary``: the yield stopped
    where it would make the expectation negative. ``inflation``: error of the yield over that above a known background.
    ``spurious``: yield that the background may feign, which is in all of these; ``q0_alone``: q0 without it.
    """

    null: Minimum
    best: Minimum
    s: float
    s_err: float
    interval: tuple[float, float]
    q0: float
    r: float
    limit: Limit | None
    at_boundary: bool
    inflation: float
    spurious: float
    q0_alone: float

    @property
    def z(self) -> float:
        return math.sqrt(self.q0)

    @property
    def p0(self) -> float:
        return float(stats.norm.sf(self.z))


def fit_signal(
    problem: Binned | Unbinned,
    template: np.ndarray,
    counted: Binned,
    level: float | None = 0.95,
    signal_at: np.ndarray | None = None,
    spurious: float = 0.0,
) -> SignalFit:
    """Fit the yield of a signal over the background of ``problem`` and test it against nought.

    ``template``: (B,) share of the signal in every bin (or cell). ``counted``: the same data in bins, for Asimov data.
    ``level``: of the limit; None for neither limit nor interval. ``signal_at``: (n,) density of the peak (unbinned).
    ``spurious``: standard deviation of a yield that the background may feign (`Hidden`).
    """
    if not (np.isfinite(template).all() and template.sum() > 1e-6):
        raise UserError("the signal has no share inside the window")
    both, counted = problem.with_signal(template, signal_at), counted.with_signal(template)
    if not problem.weighted:
        return _tested(problem, both, counted, level, spurious)
    found = _tested(problem, both, counted, None, spurious)
    # At a wall the curvature is that of the wall, and no events are left to tell their weights: the error is that of
    # the background alone.
    factor = 1.0 if found.at_boundary else found.best.stretch
    # With this scale the curvature against the yield is its variance, so that q0, interval and limit hold.
    again = _tested(problem.stretched(factor), both.stretched(factor), counted.stretched(factor), level, spurious)
    error = again.s_err
    if found.at_boundary:
        information = both.evaluate(np.r_[found.null.theta, 0.0][None])[2][0]
        error = max(error, math.hypot(math.sqrt(np.linalg.pinv(information, hermitian=True)[-1, -1]), spurious))
    return replace(again, null=found.null, best=found.best, s=found.s, s_err=error)


def _tested(
    problem: Binned | Unbinned, both: Binned | Unbinned, asimov: Binned, level: float | None, spurious: float
) -> SignalFit:
    """`fit_signal` of likelihoods without and with (``both``, ``asimov``) a signal, errors from these alone."""
    null = fit(problem, problem.start, "background-only fit")
    best = _best(both, null)
    inflation = _inflation(both.evaluate(best.theta[None])[2][0])
    s, error = float(best.theta[-1]), float(best.errors[-1])
    alone = difference = max(0.0, null.value - best.value)
    curve = Profile(both, {0.0: null.theta, s: best.theta[:-1]})
    expected: Profile | Hidden = Profile(asimov_data(asimov, null), {0.0: null.theta})
    if spurious:
        curve, expected = Hidden(curve, s, spurious), Hidden(expected, 0.0, spurious)
        error, difference = math.hypot(error, spurious), max(0.0, curve(0.0) - best.value)
    boundary = (s < 0 and best.status != "converged") or bool(both.at_wall(best.theta[None])[0])
    scale = max(error, abs(s), 1.0) if boundary else error
    interval = (math.nan, math.nan)
    if level is not None or boundary:
        interval = likelihood_interval(curve, s, scale, best.value, boundary)
    if boundary:
        error = interval[1] - s
    limit = None
    if level is not None and best.valid and null.valid:
        limit = upper_limit(curve, s, best.value, error, expected, level)
    r, of = math.copysign(math.sqrt(difference), s), float(s > 0)
    return SignalFit(
        null, best, s, error, interval, of * difference, r, limit, boundary, inflation, spurious, of * alone
    )


def _best(both: Binned | Unbinned, null: Minimum) -> Minimum:
    """Signal and background together, from the one-step estimate at the background-only fit."""
    first = np.r_[null.theta, 0.0]
    _, gradient, information = both.evaluate(first[None])
    covariance = np.linalg.pinv(information[0], hermitian=True)
    guess = -0.5 * covariance[-1] @ gradient[0]
    if not 0 < _inflation(information[0]) < MOST_INFLATION:
        raise UserError(
            "degenerate: the background can take the shape of the signal; use a narrower peak, a wider window or a "
            "simpler background"
        )
    if isinstance(both, Binned) and both.kinked(null.theta[None])[0]:
        status = "converged at a boundary (errors from expected information)"
        return Minimum(first, covariance, null.value, null.valid, status)
    for share in (1.0, 0.5, 0.1, 0.0):  # where it is possible at all
        trial = np.r_[null.theta, share * guess]
        if np.isfinite(both.evaluate(trial[None])[0][0]):
            break
    best = fit(both, trial, "signal-plus-background fit")
    if best.value > null.value + 1e-6:
        best = min((best, fit(both, first, "signal-plus-background fit")), key=lambda m: m.value)
    return best


def _inflation(information: np.ndarray) -> float:
    """Error of the last parameter over its error with all others known."""
    return math.sqrt(max(0.0, np.linalg.pinv(information, hermitian=True)[-1, -1] * information[-1, -1]))


def likelihood_interval(
    curve: Callable[[float], float], s: float, error: float, least: float, boundary: bool
) -> tuple[float, float]:
    """Where -2 ln L rises by one; NaN where it never does (a boundary)."""

    def rise(x: float) -> float:
        """Above one, ``x`` errors from the minimum; in errors, which are a small part of a large yield."""
        value = curve(s + x * error) - least - 1
        return value if np.isfinite(value) else 1e6

    ends = [math.nan, math.nan]
    for k, sign in enumerate((-1, 1)):
        if sign < 0 and boundary:
            continue
        reach = sign * 1.0
        for _ in range(12):
            if rise(reach) > 0:
                root = reach if abs(rise(reach)) < 1e-3 else optimize.brentq(rise, 0.0, reach, xtol=2e-3, rtol=1e-6)
                ends[k] = s + float(root) * error
                break
            reach *= 1.6
    return ends[0], ends[1]


def asimov_data(counted: Binned, null: Minimum) -> Binned:
    """The likelihood of the background-only Asimov data (1007.1727, section 3.2)."""
    cost = counted.cost(*counted.parts(np.r_[null.theta, 0.0][None]))
    components = tuple(
        replace(c, expected=float(y)) if np.isfinite(c.error) else c
        for c, y in zip(counted.components, null.theta[counted.shape.size :], strict=True)
    )
    return replace(counted, counts=cost.mu, data=np.zeros(1, int), auxiliary=cost.beta, components=components)


def predict(shape: Shape, minimum: Minimum) -> tuple[float, float]:
    """Background expected in all bins of ``shape`` and its error from the fit's covariance."""
    size = shape.size
    gradient = shape.jacobian(minimum.theta[:size]).sum(0)
    value = shape.expected(minimum.theta[None, :size])[0].sum()
    return float(value), float(math.sqrt(max(0.0, gradient @ minimum.covariance[:size, :size] @ gradient)))


def goodness_p(bins: Bins, expected: np.ndarray, parameters: int) -> float | None:
    """Probability of a larger chi-square, in bins joined to five expected events each; None without freedom."""
    chi2, ndf = goodness(bins, expected, parameters, merge=5.0)
    return float(stats.chi2.sf(chi2, ndf)) if ndf > 0 else None


def goodness(bins: Bins, expected: np.ndarray, parameters: int, merge: float = 0.0) -> tuple[float, int]:
    """Chi-square and degrees of freedom; Poisson bins as Baker and Cousins (1984).

    ``merge``: join neighbours until each holds that many expected events; weighted events are joined always.
    """
    if bins.errors is not None:
        return float((((bins.counts - expected) / bins.errors) ** 2).sum()), len(bins) - parameters
    n, mu, scale = bins.counts, np.maximum(expected, 1e-300), bins.scale
    merge = merge if bins.squares is None else max(merge, 5.0)
    if merge > 0:
        starts = groups(mu / scale, merge)
        join = lambda v: np.add.reduceat(v, starts)  # noqa: E731
        scale = join(scale * mu) / join(mu)
        n, mu = join(n), join(mu)
        if bins.squares is not None:  # the weights of the neighbourhood
            scale = np.where(n > 0, join(bins.squares) / np.where(n > 0, n, 1), scale)
    logs = np.where(n > 0, n * np.log(np.where(n > 0, n, 1) / mu), 0.0)
    return float((2 * (mu - n + logs) / scale).sum()), len(n) - parameters
