"""-2 ln L of many binned spectra at once, with gradients and information matrices."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from raypipe.stats.shape import Shape

BARRIER = 1e-5
"""Weight of the logarithmic barriers that keep densities positive; moves -2 ln L by far less than 1e-3."""


def to_the_wall(here: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Share (R,) of the way from expectations ``here`` to ``there`` (R, B) after which nine tenths of one are gone."""
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(there < 0.1 * here, 0.9 * here / (here - there), 1.0)
    return np.nanmin(share, 1)


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
    yield s: mu = beta B(a) + sum_c y_c T_c + s S + offset. Poisson (scaled by ``scale``) as the likelihood ratio to
    the saturated model (Baker and Cousins 1984, equation 8), or chi-square with ``errors``. ``template_error`` (B,)
    is the relative statistical error of a simulated background: one Gaussian-constrained factor beta in every bin,
    profiled in closed form (Barlow-Beeston "lite", Conway 1103.0354, section 5).

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
            self, data=self.data[rows], which=None if self.which is None else self.which[rows],
            offset=self.offset[rows] if np.ndim(self.offset) == 2 else self.offset,
        )  # fmt: skip

    def softened(self, barrier: float) -> Binned:
        """The same with another weight of the barriers."""
        return replace(self, barrier=barrier)

    def longest(self, theta: np.ndarray, step: np.ndarray) -> np.ndarray:
        """Share (R,) of a step that takes no expectation more than nine tenths of the way to nought.

        Only a linear family or a negative yield can do that; without this rule a first step ends on the wall, where
        Newton crawls.
        """
        share = positive_share(self.shape, theta, step)
        if self.signals is None or self.errors is not None:
            return share
        low = np.flatnonzero(theta[:, -1] + step[:, -1] < 0)
        if len(low):
            part = self.take(low)
            wall = to_the_wall(part.expected(theta[low]), part.expected(theta[low] + step[low]))
            share[low] = np.minimum(share[low], wall)
        return share

    def expected(self, theta: np.ndarray) -> np.ndarray:
        """Total expectation (R, B), template factors at their best values included."""
        background, rest = self._parts(theta)
        beta = self._beta(background, rest)
        return background * (1.0 if beta is None else beta) + rest

    def _parts(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        size = self.shape.size
        background = self.shape.expected(theta[:, :size])
        rest = np.zeros_like(background) + self.offset
        for k, component in enumerate(self.components):
            rest += theta[:, size + k, None] * component.template
        if self.signals is not None:
            rest += theta[:, -1:] * self.signals[self.which]
        return background, rest

    def _beta(self, b: np.ndarray, t: np.ndarray) -> np.ndarray | None:
        """Best template factors: the positive root of d(-ln L)/d(beta) = 0."""
        if self.template_error is None or self.errors is not None:
            return None
        n, v = self.counts[self.data], self.template_error**2
        centre = 1.0 if self.auxiliary is None else self.auxiliary[self.data]
        linear = v * b * b / self.scale + t - centre * b
        constant = v * b * (t - n) / self.scale - centre * t
        root = np.sqrt(np.maximum(linear**2 - 4 * b * constant, 0.0))
        # The root without cancellation, whichever sign ``linear`` has.
        with np.errstate(divide="ignore", invalid="ignore"):
            beta = np.where(linear > 0, -2 * constant / (linear + root), (root - linear) / (2 * b))
        # An empty bin's factor does not make room for a negative yield: there the expectation must stay positive.
        beta = np.where(n == 0, centre - v * b / self.scale, beta)
        return np.where(b > 0, np.maximum(beta, 1e-12), 1.0)

    def score_variance(self, theta: np.ndarray) -> np.ndarray:
        """Variance (R, D, D) of half the gradient where a bin varies by its sum of squared weights.

        Between two inverse information matrices it is the covariance of the parameters (Langenbruch, 1911.01303,
        equation 18); it is the information itself where all weights equal ``scale``.
        """
        background, rest = self._parts(theta)
        beta = self._beta(background, rest)
        factor = np.ones_like(background) if beta is None else beta
        shape, size = self.shape, self.shape.size
        slopes = np.stack([np.asarray(shape.jacobian(a)) for a in theta[:, :size]]) * factor[:, :, None]
        columns = [np.broadcast_to(c.template, background.shape) for c in self.components]
        if self.signals is not None:
            columns.append(self.signals[self.which])
        slopes = np.concatenate([slopes, *(c[:, :, None] for c in columns)], 2)
        spread = (factor * background + rest) * self.scale
        variance = np.broadcast_to(self.squares, background.shape)
        if beta is not None:
            uncertain = (self.template_error * background) ** 2
            spread, variance = spread + uncertain, variance + uncertain
        found = np.einsum("rbi,rb,rbj->rij", slopes, variance / spread**2, slopes)
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
        rest = np.zeros_like(background) + self.offset
        for k, component in enumerate(self.components):
            rest += theta[:, size + k, None] * component.template
        signal = None if self.signals is None else self.signals[self.which]
        if signal is not None:
            rest += theta[:, -1:] * signal
        n, beta = self.counts[self.data], self._beta(background, rest)
        scaled = background if beta is None else beta * background
        mu = scaled + rest
        if self.errors is not None:
            variance = self.errors**2
            if self.template_error is not None:
                variance = variance + (self.template_error * shape.expected(shape.start[None])) ** 2
            value = ((n - mu) ** 2 / variance).sum(1)
            slope, info = 2 * (mu - n) / variance, np.broadcast_to(1 / variance, mu.shape)
        else:
            safe = np.where(mu > 0, mu, np.nan)
            value = 2 * ((mu - n + np.where(n > 0, n * np.log(np.where(n > 0, n, 1) / safe), 0.0)) / self.scale).sum(1)
            slope, info = 2 * (1 - n / safe) / self.scale, 1 / (safe * self.scale)
            if rates is None:  # linear: the observed curvature n / mu^2 is exact, and steps do not overshoot
                info = (0.1 + 0.9 * n / safe) * info
        if beta is not None:
            centre = 1.0 if self.auxiliary is None else self.auxiliary[self.data]
            error = np.maximum(self.template_error, 1e-9)
            value = value + (((beta - centre) / error) ** 2).sum(1)
            info = 1 / (safe * self.scale + (self.template_error * background) ** 2)
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
        extra = [component.template for component in self.components] + ([signal] if signal is not None else [])
        for k, template in enumerate(extra, start=size):
            gradient[:, k] = (slope * template).sum(1)
            information[:, k, :size] = information[:, :size, k] = (cross * template) @ mean
            for m, other in enumerate(extra[: k - size + 1], start=size):
                information[:, k, m] = information[:, m, k] = (info * template * other).sum(1)
        value = self._constraints(theta, value, gradient, information)
        value = self._barriers(theta, value, gradient, information, background, rest, mu, n, mean, rates is None)
        bad = ~(np.isfinite(value) & np.isfinite(gradient).all(1) & np.isfinite(information).all((1, 2)))
        value[bad], gradient[bad], information[bad] = np.inf, 0.0, np.eye(theta.shape[1])
        return value, gradient, information

    def _constraints(self, theta, value, gradient, information) -> np.ndarray:  # type: ignore[no-untyped-def]
        """Gaussian constraints of the component yields, added in place."""
        for k, component in enumerate(self.components, start=self.shape.size):
            pull = (theta[:, k] - component.expected) / component.spread
            value = value + pull**2
            gradient[:, k] += 2 * pull / component.spread
            information[:, k, k] += 1 / component.spread**2
        return value

    def _barriers(self, theta, value, gradient, information, b, rest, mu, n, mean, linear) -> np.ndarray:  # type: ignore[no-untyped-def]
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
        if self.signals is None or self.errors is not None:
            return value
        negative = (theta[:, -1] < 0).nonzero()[0]
        if not len(negative):
            return value
        ratio = (mu / np.where(b > 0, b, np.nan))[negative]
        empty = (n[negative] == 0) & (self.signals[self.which[negative]] > 0)
        signal = self.signals[self.which[negative]]
        logs = np.where(empty, np.log(np.where(ratio > 0, ratio, np.nan)), 0.0)
        lever: np.ndarray | float = 1.0  # d(mu)/d(b) of an empty bin, whose template factor falls linearly with b
        if self.template_error is not None:
            centre = 1.0 if self.auxiliary is None else self.auxiliary[self.data[negative]]
            lever = centre - 2 * self.template_error**2 * b[negative] / self.scale
        across = np.where(empty, lever / mu[negative] - 1 / b[negative], 0.0) * (1.0 if linear else b[negative])
        slopes = np.concatenate(
            [across[:, :, None] * mean, np.where(empty, signal / mu[negative], 0.0)[:, :, None]], -1
        )
        among = np.r_[np.arange(size), theta.shape[1] - 1]
        value[negative] -= 2 * self.barrier * logs.sum(1)
        gradient[np.ix_(negative, among)] -= 2 * self.barrier * slopes.sum(1)
        information[np.ix_(negative, among, among)] += self.barrier * slopes.transpose(0, 2, 1) @ slopes
        return value
