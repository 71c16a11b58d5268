"""What the binned and the unbinned likelihood share: components, their constraints, barriers."""

from dataclasses import KW_ONLY, dataclass, replace
from typing import Self

import numpy as np

from raypipe.stats.shape import Shape

BARRIER = 1e-5  # Weight of the logarithmic barriers that keep densities positive; moves -2 ln L by far less than 1e-3


def to_the_wall(here: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Share (R,) of the way from expectations ``here`` to ``there`` (R, B) after which nine tenths of one are gone."""
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(there < 0.1 * here, 0.9 * here / (here - there), 1.0)
    return np.nanmin(share, 1)


def gram(weight: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Sums (R, P, P) over bins or events of ``weight`` (R, B) times the products of ``columns`` (B, P)."""
    first, second = np.triu_indices(columns.shape[1])
    found = np.empty((len(weight), columns.shape[1], columns.shape[1]))
    found[:, first, second] = found[:, second, first] = weight @ (columns[:, first] * columns[:, second])
    return found


@dataclass(frozen=True)
class Component:
    """A further contribution of known shape: ``template`` (B,) is its share in every bin, ``expected`` its yield.

    ``error``: Gaussian uncertainty of the yield; 0 fixes it, infinity leaves it free.
    """

    name: str
    template: np.ndarray
    expected: float
    error: float

    @property
    def spread(self) -> float:
        """Width of the Gaussian constraint; that of a fixed yield is far below any statistical error."""
        return max(self.error, 1e-9 * max(abs(self.expected), 1e-3))


@dataclass(frozen=True)
class Likelihood:
    """What the `binned.Binned` and `unbinned.Unbinned` likelihoods share: mu = B(a) + sum y_c T_c + s S + offset.

    Parameters: the background's internal ones, the components' yields, and, with ``signals``, its yield.
    """

    shape: Shape
    _: KW_ONLY
    components: tuple[Component, ...] = ()
    signals: np.ndarray | None = None
    which: np.ndarray | None = None
    offset: np.ndarray | float = 0.0
    errors: np.ndarray | None = None
    template_error: np.ndarray | None = None
    barrier: float = BARRIER

    @property
    def size(self) -> int:
        return self.shape.size + len(self.components) + (self.signals is not None)

    @property
    def start(self) -> np.ndarray:
        """Parameters of the background alone to begin with."""
        return np.r_[self.shape.start, [c.expected for c in self.components]]

    def with_signal(self, template: np.ndarray, signal_at: np.ndarray | None = None) -> Self:
        """One row with a free yield of a signal of shares ``template`` (B,); ``signal_at``: of unbinned masses."""
        return replace(self, signals=template[None], which=np.zeros(1, int))

    def at_yield(self, s: float) -> Self:
        """One row with the yield of its signal fixed."""
        return replace(self, signals=None, which=None, offset=s * self.signals)

    def softened(self, barrier: float) -> Self:
        """The same with another weight of the barriers."""
        return replace(self, barrier=barrier)

    def evaluate(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """-2 ln L (R,), gradient (R, D), half the expected second derivative (R, D, D); infinite where impossible."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            value, gradient, information = self._evaluate(theta)
        bad = ~(np.isfinite(value) & np.isfinite(gradient).all(1) & np.isfinite(information).all((1, 2)))
        value[bad], gradient[bad], information[bad] = np.inf, 0.0, np.eye(theta.shape[1])
        return value, gradient, information

    def longest(self, theta: np.ndarray, step: np.ndarray) -> np.ndarray:
        """Share (R,) of a step that takes no expectation more than nine tenths of the way to nought."""
        size, share, positive = self.shape.size, np.ones(len(theta)), self.shape.positive
        if positive is not None:
            here = theta[:, :size] @ positive.T
            share = to_the_wall(here, here + step[:, :size] @ positive.T)
        low = np.flatnonzero(theta[:, -1] + step[:, -1] < 0) if self._walled else ()
        if len(low):
            part = self.take(low)
            wall = to_the_wall(part.expected(theta[low]), part.expected(theta[low] + step[low]))
            share[low] = np.minimum(share[low], wall)
        return share

    def at_wall(self, theta: np.ndarray) -> np.ndarray:
        """Whether (R,) a negative yield leaves less than a hundredth of the background where the signal is."""
        if self.signals is None or self.template_error is not None:
            return np.zeros(len(theta), bool)
        signal, background = self.signals[self.which], self.shape.expected(theta[:, : self.shape.size])
        left = 1 + theta[:, -1:] * signal / np.maximum(background, 1e-300)
        return np.where(signal > 1e-3 * signal.max(1, keepdims=True), left, 1.0).min(1) < 1e-2

    @property
    def _walled(self) -> bool:
        """Whether a negative yield can make an expectation vanish."""
        return self.signals is not None and self.errors is None and self.template_error is None

    def _templates(self) -> list[np.ndarray]:
        """Shapes of the components, (B,), and of the signal, (R, B)."""
        signal = [] if self.signals is None else [self.signals[self.which]]
        return [component.template for component in self.components] + signal

    def _rest(self, theta: np.ndarray) -> np.ndarray:
        """Expectation (R, B) beside the background."""
        rest = np.zeros((len(theta), len(self.shape.nodes.start))) + self.offset
        for k, template in enumerate(self._templates(), start=self.shape.size):
            rest += theta[:, k, None] * template
        return rest

    def _constrained(self, information: np.ndarray) -> tuple[slice, np.ndarray]:
        """Add the Gaussian constraints of the components' yields; returns which parameters they are, and the widths."""
        spread = np.array([component.spread for component in self.components])
        for k, width in enumerate(spread, start=self.shape.size):
            information[:, k, k] += 1 / width**2
        return slice(self.shape.size, self.shape.size + len(spread)), spread

    def _bounded(self, theta: np.ndarray, value: np.ndarray, gradient: np.ndarray, information: np.ndarray) -> None:
        """Add the constraints of the components, and the barrier that keeps a linear family positive."""
        which, spread = self._constrained(information)
        pull = (theta[:, which] - [component.expected for component in self.components]) / spread
        value += (pull**2).sum(1)
        gradient[:, which] += 2 * pull / spread
        size, positive = self.shape.size, self.shape.positive
        if positive is not None:
            rows = theta[:, :size] @ positive.T
            value -= 2 * self.barrier * np.log(np.where(rows > 0, rows, np.nan)).sum(1)
            gradient[:, :size] -= 2 * self.barrier / rows @ positive
            information[:, :size, :size] += gram(self.barrier / rows**2, positive)

    def _walled_in(
        self,
        sums: tuple[np.ndarray, np.ndarray, np.ndarray],
        rows: np.ndarray,
        background: np.ndarray,
        mu: np.ndarray,
        jacobian: np.ndarray,
        others: list[np.ndarray],
    ) -> None:
        """Add to value, gradient and information (``sums``) of ``rows`` the barrier ln(mu / background)."""
        value, gradient, information = sums
        ratio = mu / np.where(background > 0, background, np.nan)
        across = (1 / mu - 1 / background)[:, :, None] * jacobian
        slopes = np.concatenate([across, *((other / mu)[:, :, None] for other in others)], -1)
        value[rows] -= 2 * self.barrier * np.log(np.where(ratio > 0, ratio, np.nan)).sum(1)
        gradient[rows] -= 2 * self.barrier * slopes.sum(1)
        information[rows] += self.barrier * slopes.transpose(0, 2, 1) @ slopes
