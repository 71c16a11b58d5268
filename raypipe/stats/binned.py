"""-2 ln L of many binned spectra at once, with gradients and information matrices."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from raypipe.stats.likelihood import Likelihood, gram


@dataclass(frozen=True)
class Cost:
    """Of R data sets in B bins with expectation ``mu`` (R, B): ``value`` (R,) is -2 ln L.

    ``slope``: (R, B) derivative by mu. ``info``: (R, B) half the expected second derivative. ``beta``: (R, B) best
    factors of a simulated background, or None.
    """

    mu: np.ndarray
    value: np.ndarray
    slope: np.ndarray
    info: np.ndarray
    beta: np.ndarray | None = None


def gaussian(n: np.ndarray, mu: np.ndarray, variance: np.ndarray) -> Cost:
    """Chi-square."""
    value = ((n - mu) ** 2 / variance).sum(1)
    return Cost(mu, value, 2 * (mu - n) / variance, np.broadcast_to(1 / variance, mu.shape))


def poisson(n: np.ndarray, mu: np.ndarray, scale: np.ndarray, linear: bool) -> Cost:
    """Ratio to the saturated model (Baker and Cousins 1984, equation 8), of contents n/scale; NaN for mu <= 0.

    ``linear`` (mu in the parameters): information with the observed part n / mu^2, so that steps do not overshoot.
    """
    safe = np.where(mu > 0, mu, np.nan)
    value = (_deviance(n, safe) / scale).sum(1)
    slope, info = 2 * (1 - n / safe) / scale, 1 / (safe * scale)
    return Cost(mu, value, slope, (0.1 + 0.9 * n / safe) * info if linear else info)


def simulated(
    n: np.ndarray, b: np.ndarray, t: np.ndarray, scale: np.ndarray, error: np.ndarray, centre: np.ndarray | float
) -> Cost:
    """Poisson with mu = beta b + t, beta constrained to ``centre`` with the relative ``error`` of the simulation.

    Beta is profiled in closed form (Barlow-Beeston "lite", Conway 1103.0354, section 5). Neither it nor mu becomes
    negative: in an empty bin beta makes up for a negative t, and -2 ln L has a kink at t = 0 where beta is nought.
    """
    error = np.maximum(error, 1e-9)
    v = error**2
    linear = v * b * b / scale + t - centre * b
    constant = v * b * (t - n) / scale - centre * t
    root = np.sqrt(np.maximum(linear**2 - 4 * b * constant, 0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        # The root without cancellation, whichever sign ``linear`` has.
        beta = np.where(linear > 0, -2 * constant / (linear + root), (root - linear) / (2 * b))
        beta = np.where(n == 0, np.maximum(centre - v * b / scale, -t / b), beta)
        beta = np.where(b > 0, np.maximum(beta, 0.0), 1.0)
        mu = np.where(n == 0, np.maximum(beta * b + t, 0.0), beta * b + t)
        value = (_deviance(n, mu) / scale).sum(1) + (((beta - centre) / error) ** 2).sum(1)
        slope = 2 * (1 - n / np.where(n > 0, mu, 1.0)) / scale
        slope = np.where((n == 0) & (t < 0), 2 * (centre - beta) / (v * b), slope)  # of the constraint, at mu = 0
        info = 1 / (mu * scale + (error * b) ** 2)
    return Cost(mu, value, slope, info, beta)


def _deviance(n: np.ndarray, mu: np.ndarray) -> np.ndarray:
    """2 [mu - n + n ln(n / mu)] without cancellation for n near mu."""
    filled = np.where(n > 0, n, 1.0)
    away = (mu - filled) / filled
    with np.errstate(divide="ignore", invalid="ignore"):  # impossible expectations, refused by whoever asks
        return 2 * np.where(n > 0, filled * (away - np.log1p(away)), mu)


@dataclass(frozen=True)
class Binned(Likelihood):
    """-2 ln L of rows r = 1..R, each a data set and a signal template over the same bins and background shape.

    Poisson (scaled by ``scale``), or chi-square with ``errors``. ``counts``: (T, B) data sets, ``data``: (R,) which of
    them. ``signals``: (G, B) templates or None, ``which``: (R,) which of them. ``offset``: (R, B) or 0, fixed
    expectation. ``template_error``: (B,) relative error of a simulated background (see `raypipe.stats.binned`) or
    None, ``auxiliary``: (T, B) its measured factors. ``squares``: (B,) sums of squared weights of the one data set.
    """

    counts: np.ndarray
    data: np.ndarray
    scale: np.ndarray
    auxiliary: np.ndarray | None = None
    squares: np.ndarray | None = None

    @property
    def weighted(self) -> bool:
        """Whether errors come from squared weights, not from the likelihood alone."""
        return self.squares is not None

    def stretched(self, factor: float) -> Binned:
        """The likelihood with all variances of the data times ``factor``, and no other source of errors."""
        return replace(self, scale=self.scale * factor, squares=None)

    def take(self, rows: np.ndarray) -> Binned:
        """The same problem for some of the rows."""
        return replace(
            self,
            data=self.data[rows],
            which=None if self.which is None else self.which[rows],
            offset=self.offset[rows] if np.ndim(self.offset) == 2 else self.offset,
        )

    def expected(self, theta: np.ndarray) -> np.ndarray:
        """Total expectation (R, B), template factors at their best values included."""
        return self.cost(*self.parts(theta)).mu

    def parts(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Expected background (R, B), before template factors, and all the rest."""
        return self.shape.expected(theta[:, : self.shape.size]), self._rest(theta)

    def cost(self, background: np.ndarray, rest: np.ndarray) -> Cost:
        """What the bins add to -2 ln L."""
        n = self.counts[self.data]
        if self.errors is not None:
            variance = self.errors**2
            if self.template_error is not None:
                variance = variance + (self.template_error * self.shape.expected(self.shape.start[None])) ** 2
            return gaussian(n, background + rest, variance)
        if self.template_error is None:
            return poisson(n, background + rest, self.scale, self.shape.matrix is not None)
        centre = 1.0 if self.auxiliary is None else self.auxiliary[self.data]
        return simulated(n, background, rest, self.scale, self.template_error, centre)

    def kinked(self, theta: np.ndarray) -> np.ndarray:
        """Whether (R,) -2 ln L rises from a yield of nought to both sides, the rest at its minimum ``theta`` (R, D-1).

        Over empty bins whose simulated background is best left away: a negative yield has to be made up for.
        """
        if self.template_error is None or self.errors is not None:
            return np.zeros(len(theta), bool)
        background, rest = self.parts(np.c_[theta, np.zeros(len(theta))])
        signal = self.signals[self.which]
        right = (self.cost(background, rest).slope * signal).sum(1)
        left = (self.cost(background, rest - 1e-9 * background).slope * signal).sum(1)
        return (right >= 0) & (left <= 0)

    def score_variance(self, theta: np.ndarray) -> np.ndarray:
        """Variance (R, D, D) of half the gradient; bins vary by their squared weights (1911.01303, equation 18)."""
        background, rest = self.parts(theta)
        cost = self.cost(background, rest)
        slopes = np.stack([self.shape.jacobian(a) for a in theta[:, : self.shape.size]])
        variance = np.broadcast_to(self.squares, background.shape)
        if cost.beta is not None:
            slopes = slopes * cost.beta[:, :, None]
            variance = variance + (self.template_error * background) ** 2
        extra = [np.broadcast_to(template, background.shape)[:, :, None] for template in self._templates()]
        slopes = np.concatenate([slopes, *extra], 2)
        info = cost.info if cost.beta is not None else 1 / (cost.mu * self.scale)
        found = np.einsum("rbi,rb,rbj->rij", slopes, variance * info**2, slopes)
        self._constrained(found)
        return found

    def _evaluate(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        shape, size = self.shape, self.shape.size
        a = theta[:, :size]
        rates = None if shape.matrix is not None else shape.rates(a)
        background = a @ shape.matrix.T if rates is None else shape.nodes.sum(rates)
        cost = self.cost(background, self._rest(theta))
        value, slope, info, beta = cost.value, cost.slope, cost.info, 1.0 if cost.beta is None else cost.beta
        gradient, information = np.zeros_like(theta), np.zeros((*theta.shape, theta.shape[1]))
        mean, unit = shape.mean_phi, 1.0 if rates is None else background  # jacobian: unit times mean
        if rates is None:
            gradient[:, :size] = (slope * beta) @ shape.matrix
        else:
            spread = np.diff(np.r_[shape.nodes.start, rates.shape[1]])
            at_nodes = slope * beta if (spread == 1).all() else np.repeat(slope * beta, spread, axis=1)
            gradient[:, :size] = (at_nodes * rates) @ shape.phi
        information[:, :size, :size] = gram(info * (beta * unit) ** 2, mean)
        cross, extra = info * beta * unit, self._templates()
        for k, template in enumerate(extra, start=size):
            gradient[:, k] = (slope * template).sum(1)
            information[:, k, :size] = information[:, :size, k] = (cross * template) @ mean
            for m, other in enumerate(extra[: k - size + 1], start=size):
                information[:, k, m] = information[:, m, k] = (info * template * other).sum(1)
        self._bounded(theta, value, gradient, information)
        low = np.flatnonzero(theta[:, -1] < 0) if self._walled else ()
        if len(low):  # empty bins under a negative yield
            signal = self.signals[self.which[low]]
            empty = (self.counts[self.data[low]] == 0) & (signal > 0)
            b, mu = (np.where(empty, v[low], 1.0) for v in (background, cost.mu))
            jacobian = (1.0 if rates is None else b[:, :, None]) * np.broadcast_to(mean, (*b.shape, size))
            others = [np.where(empty, template, 0.0) for template in self.take(low)._templates()]
            self._walled_in((value, gradient, information), low, b, mu, jacobian, others)
        return value, gradient, information
