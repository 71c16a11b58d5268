"""-2 ln L of many binned spectra at once, with gradients and information matrices."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from raypipe.stats import contents
from raypipe.stats.shape import Shape

BARRIER = 1e-5
"""Weight of the logarithmic barriers that keep densities positive; moves -2 ln L by far less than 1e-3."""


def to_the_wall(here: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Share (R,) of the way from expectations ``here`` to ``there`` (R, B) after which nine tenths of one are gone."""
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(there < 0.1 * here, 0.9 * here / (here - there), 1.0)
    return np.nanmin(share, 1)


def near_nothing(background: np.ndarray, yields: np.ndarray, signal: np.ndarray) -> np.ndarray:
    """Whether (R,) background and ``yields`` (R,) times ``signal`` (R, B) nearly cancel where the signal is."""
    left = 1 + yields[:, None] * signal / np.maximum(background, 1e-300)
    return np.where(signal > 1e-3 * signal.max(1, keepdims=True), left, 1.0).min(1) < 1e-2


def positive_share(shape: Shape, theta: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Share (R,) of a step that keeps a linear family's positivity conditions away from nought."""
    if shape.positive is None:
        return np.ones(len(theta))
    here = theta[:, : shape.size] @ shape.positive.T
    return to_the_wall(here, here + step[:, : shape.size] @ shape.positive.T)


@dataclass(frozen=True)
class Component:
    """A further contribution of known shape, such as the simulated SM Higgs.

    Attributes:
        name: for the report. template: (B,) share of it in every bin. expected: its yield.
        error: uncertainty of the yield: a Gaussian constraint; 0 fixes it, infinity leaves it free.
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
class Binned:
    """-2 ln L of rows r = 1..R, each a data set and a signal template over the same bins and background shape.

    A row's parameters are the background's internal ones, the yields of the components, and, with ``signal``, its
    yield s: mu = beta B(a) + sum_c y_c T_c + s S + offset. Poisson (scaled by ``scale``), or chi-square with
    ``errors``. ``template_error`` (B,) is the relative statistical error of a simulated background, one
    Gaussian-constrained factor beta in every bin. See `raypipe.stats.contents`.

    Attributes:
        shape, scale, errors: of the bins. counts: (T, B) data sets. data: (R,) which of them.
        signals: (G, B) signal templates or None. which: (R,) which of them. offset: (R, B) or 0, fixed expectation.
        components: with free or constrained yields. template_error: (B,) or None. auxiliary: (T, B) measured beta.
        squares: (B,) sums of squared weights of the one data set, where the weights differ (see `score_variance`).
    """

    shape: Shape
    counts: np.ndarray
    data: np.ndarray
    scale: np.ndarray
    errors: np.ndarray | None = None
    signals: np.ndarray | None = None
    which: np.ndarray | None = None
    offset: np.ndarray | float = 0.0
    components: tuple[Component, ...] = ()
    template_error: np.ndarray | None = None
    auxiliary: np.ndarray | None = None
    barrier: float = BARRIER
    squares: np.ndarray | None = None

    @property
    def rows(self) -> int:
        return len(self.data)

    @property
    def weighted(self) -> bool:
        """Whether errors come from squared weights, not from the likelihood alone."""
        return self.squares is not None

    def stretched(self, factor: float) -> Binned:
        """The likelihood with all variances of the data times ``factor``, and no other source of errors."""
        return replace(self, scale=self.scale * factor, squares=None)

    @property
    def size(self) -> int:
        return self.shape.size + len(self.components) + (self.signals is not None)

    def take(self, rows: np.ndarray) -> Binned:
        """The same problem for some of the rows."""
        return replace(
            self,
            data=self.data[rows],
            which=None if self.which is None else self.which[rows],
            offset=self.offset[rows] if np.ndim(self.offset) == 2 else self.offset,
        )

    def softened(self, barrier: float) -> Binned:
        """The same with another weight of the barriers."""
        return replace(self, barrier=barrier)

    @property
    def _walled(self) -> bool:
        """Whether a negative yield can make an expectation vanish."""
        return self.signals is not None and self.errors is None and self.template_error is None

    def longest(self, theta: np.ndarray, step: np.ndarray) -> np.ndarray:
        """Share (R,) of a step that takes no expectation more than nine tenths of the way to nought.

        Only a linear family or a negative yield can do that; without this rule a first step ends on the wall, where
        Newton crawls.
        """
        share = positive_share(self.shape, theta, step)
        if not self._walled:
            return share
        low = np.flatnonzero(theta[:, -1] + step[:, -1] < 0)
        if len(low):
            part = self.take(low)
            wall = to_the_wall(part.expected(theta[low]), part.expected(theta[low] + step[low]))
            share[low] = np.minimum(share[low], wall)
        return share

    def expected(self, theta: np.ndarray) -> np.ndarray:
        """Total expectation (R, B), template factors at their best values included."""
        return self.cost(*self.parts(theta)).mu

    def parts(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Expected background (R, B), before template factors, and all the rest."""
        size = self.shape.size
        return self.shape.expected(theta[:, :size]), self._rest(theta)

    def _rest(self, theta: np.ndarray) -> np.ndarray:
        rest = np.zeros((len(theta), len(self.scale))) + self.offset
        for k, component in enumerate(self.components, start=self.shape.size):
            rest += theta[:, k, None] * component.template
        if self.signals is not None:
            rest += theta[:, -1:] * self.signals[self.which]
        return rest

    def cost(self, background: np.ndarray, rest: np.ndarray) -> contents.Cost:
        """What the bins add to -2 ln L."""
        n = self.counts[self.data]
        if self.errors is not None:
            variance = self.errors**2
            if self.template_error is not None:
                variance = variance + (self.template_error * self.shape.expected(self.shape.start[None])) ** 2
            return contents.gaussian(n, background + rest, variance)
        if self.template_error is None:
            return contents.poisson(n, background + rest, self.scale, self.shape.matrix is not None)
        centre = 1.0 if self.auxiliary is None else self.auxiliary[self.data]
        return contents.simulated(n, background, rest, self.scale, self.template_error, centre)

    def at_wall(self, theta: np.ndarray) -> np.ndarray:
        """Whether (R,) a negative yield leaves less than a hundredth of the background where the signal is."""
        if self.signals is None or self.template_error is not None:
            return np.zeros(len(theta), bool)
        return near_nothing(self.shape.expected(theta[:, : self.shape.size]), theta[:, -1], self.signals[self.which])

    def kinked(self, theta: np.ndarray) -> np.ndarray:
        """Whether (R,) -2 ln L rises from a yield of nought to both sides, the rest at its minimum ``theta`` (R, D-1).

        So it may over empty bins whose simulated background is best left away (`contents.simulated`): a yield above
        nought adds to nothing, one below has to be made up for.
        """
        if self.template_error is None or self.errors is not None:
            return np.zeros(len(theta), bool)
        background, rest = self.parts(np.c_[theta, np.zeros(len(theta))])
        signal = self.signals[self.which]
        right = (self.cost(background, rest).slope * signal).sum(1)
        left = (self.cost(background, rest - 1e-9 * background).slope * signal).sum(1)
        return (right >= 0) & (left <= 0)

    def score_variance(self, theta: np.ndarray) -> np.ndarray:
        """Variance (R, D, D) of half the gradient where a bin varies by its sum of squared weights.

        Between two inverse information matrices it is the covariance of the parameters (Langenbruch, 1911.01303,
        equation 18); it is the information itself where all weights equal ``scale``.
        """
        background, rest = self.parts(theta)
        cost = self.cost(background, rest)
        size = self.shape.size
        slopes = np.stack([self.shape.jacobian(a) for a in theta[:, :size]])
        variance = np.broadcast_to(self.squares, background.shape)
        if cost.beta is not None:
            slopes = slopes * cost.beta[:, :, None]
            variance = variance + (self.template_error * background) ** 2
        extra = [np.broadcast_to(template, background.shape) for template in self._templates()]
        slopes = np.concatenate([slopes, *(template[:, :, None] for template in extra)], 2)
        info = cost.info if cost.beta is not None else 1 / (cost.mu * self.scale)
        found = np.einsum("rbi,rb,rbj->rij", slopes, variance * info**2, slopes)
        for k, component in enumerate(self.components, start=size):
            found[:, k, k] += 1 / component.spread**2
        return found

    def evaluate(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """-2 ln L (R,), its gradient (R, D) and the expected information (R, D, D); infinite where impossible.

        The information is half the expected second derivative, so that its inverse is the covariance.
        """
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return self._evaluate(theta)

    def _evaluate(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        shape, size = self.shape, self.shape.size
        a = theta[:, :size]
        rates = None if shape.matrix is not None else shape.rates(a)
        background = a @ shape.matrix.T if rates is None else shape.nodes.sum(rates)
        cost = self.cost(background, self._rest(theta))
        value, slope, info, beta = cost.value, cost.slope, cost.info, cost.beta
        gradient, information = np.zeros_like(theta), np.zeros((*theta.shape, theta.shape[1]))
        weight = slope if beta is None else slope * beta
        block = info if beta is None else info * beta**2
        if rates is None:
            gradient[:, :size] = weight @ shape.matrix
            mean, per = shape.matrix, block
        else:
            spread = np.diff(np.r_[shape.nodes.start, rates.shape[1]])
            at_nodes = weight if (spread == 1).all() else np.repeat(weight, spread, axis=1)
            gradient[:, :size] = (at_nodes * rates) @ shape.phi
            mean, per = shape.mean_phi, block * background**2
        first, second = np.triu_indices(size)
        upper = per @ (mean[:, first] * mean[:, second])
        information[:, first, second] = information[:, second, first] = upper
        cross = (info if beta is None else info * beta) * (1.0 if rates is None else background)
        extra = self._templates()
        for k, template in enumerate(extra, start=size):
            gradient[:, k] = (slope * template).sum(1)
            information[:, k, :size] = information[:, :size, k] = (cross * template) @ mean
            for m, other in enumerate(extra[: k - size + 1], start=size):
                information[:, k, m] = information[:, m, k] = (info * template * other).sum(1)
        value = self._constraints(theta, value, gradient, information)
        value = self._barriers(theta, value, gradient, information, background, cost.mu, mean, rates is None)
        bad = ~(np.isfinite(value) & np.isfinite(gradient).all(1) & np.isfinite(information).all((1, 2)))
        value[bad], gradient[bad], information[bad] = np.inf, 0.0, np.eye(theta.shape[1])
        return value, gradient, information

    def _templates(self) -> list[np.ndarray]:
        """Shapes of the components, (B,), and of the signal, (R, B)."""
        signal = [] if self.signals is None else [self.signals[self.which]]
        return [component.template for component in self.components] + signal

    def _constraints(self, theta, value, gradient, information) -> np.ndarray:  # type: ignore[no-untyped-def]
        """Gaussian constraints of the component yields, added in place."""
        for k, component in enumerate(self.components, start=self.shape.size):
            pull = (theta[:, k] - component.expected) / component.spread
            value = value + pull**2
            gradient[:, k] += 2 * pull / component.spread
            information[:, k, k] += 1 / component.spread**2
        return value

    def _barriers(self, theta, value, gradient, information, b, mu, mean, linear) -> np.ndarray:  # type: ignore[no-untyped-def]
        """Keep linear families positive, and empty bins under a negative yield from going below nothing."""
        size, positive = self.shape.size, self.shape.positive
        if positive is not None:
            rows = theta[:, :size] @ positive.T
            value = value - 2 * self.barrier * np.log(np.where(rows > 0, rows, np.nan)).sum(1)
            inverse = 1 / rows
            gradient[:, :size] -= 2 * self.barrier * inverse @ positive
            first, second = np.triu_indices(size)
            extra = self.barrier * inverse**2 @ (positive[:, first] * positive[:, second])
            information[:, first, second] += extra
            lower = first != second
            information[:, second[lower], first[lower]] += extra[:, lower]
        if not self._walled:
            return value
        negative = (theta[:, -1] < 0).nonzero()[0]
        if not len(negative):
            return value
        ratio = (mu / np.where(b > 0, b, np.nan))[negative]
        signal = self.signals[self.which[negative]]
        empty = (self.counts[self.data[negative]] == 0) & (signal > 0)
        logs = np.where(empty, np.log(np.where(ratio > 0, ratio, np.nan)), 0.0)
        across = np.where(empty, 1 / mu[negative] - 1 / b[negative], 0.0) * (1.0 if linear else b[negative])
        slopes = np.concatenate(
            [across[:, :, None] * mean, np.where(empty, signal / mu[negative], 0.0)[:, :, None]], -1
        )
        among = np.r_[np.arange(size), theta.shape[1] - 1]
        value[negative] -= 2 * self.barrier * logs.sum(1)
        gradient[np.ix_(negative, among)] -= 2 * self.barrier * slopes.sum(1)
        information[np.ix_(negative, among, among)] += self.barrier * slopes.transpose(0, 2, 1) @ slopes
        return value
