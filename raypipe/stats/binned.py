"""-2 ln L of many binned spectra at once, with gradients and information matrices."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from raypipe.stats import contents
from raypipe.stats.likelihood import BARRIER, Component, Likelihood, gram
from raypipe.stats.shape import Shape


@dataclass(frozen=True)
class Binned(Likelihood):
    """-2 ln L of rows r = 1..R, each a data set and a signal template over the same bins and background shape.

    Poisson (scaled by ``scale``), or chi-square with ``errors``. ``counts``: (T, B) data sets, ``data``: (R,) which of
    them. ``signals``: (G, B) templates or None, ``which``: (R,) which of them. ``offset``: (R, B) or 0, fixed
    expectation. ``template_error``: (B,) relative error of a simulated background (see `raypipe.stats.contents`) or
    None, ``auxiliary``: (T, B) its measured factors. ``squares``: (B,) sums of squared weights of the one data set.
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

    def with_signal(self, template: np.ndarray, signal_at: np.ndarray | None = None) -> Binned:
        """One row with a free yield of a signal of shares ``template`` (B,)."""
        return replace(self, signals=template[None], which=np.zeros(1, int))

    def at_yield(self, s: float) -> Binned:
        """One row with the yield of its signal fixed."""
        return replace(self, signals=None, which=None, offset=s * self.signals)

    def expected(self, theta: np.ndarray) -> np.ndarray:
        """Total expectation (R, B), template factors at their best values included."""
        return self.cost(*self.parts(theta)).mu

    def parts(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Expected background (R, B), before template factors, and all the rest."""
        return self.shape.expected(theta[:, : self.shape.size]), self._rest(theta)

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
