"""One minimum of a likelihood, with errors from its observed curvature."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raypipe.errors import UserError
from raypipe.stats.newton import Problem, balanced, curvature, follow, minimise

NEAR = 1e-3
"""Further decrease of -2 ln L that is expected at a minimum at the most."""


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
