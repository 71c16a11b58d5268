"""-2 ln L of one set of unbinned masses, with the interface of the binned likelihood."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from raypipe.stats.likelihood import Likelihood, gram


@dataclass(frozen=True)
class Unbinned(Likelihood):
    """Extended unbinned likelihood (Barlow 1990), one row: 2 [ integral - sum_i w_i ln density(m_i) ] / c.

    c (``scale``) = sum(w^2)/sum(w). ``shape``: over cells that tile the fitted ranges (they only integrate); ``phi``:
    (n, P) its basis at the masses. ``densities``: (C, n) of the components there; ``signal_at``, ``offset_at``: (n,).
    ``weighted``: whether the errors come from squared weights (`score_variance`).
    """

    phi: np.ndarray
    weights: np.ndarray
    scale: float
    densities: tuple[np.ndarray, ...] = ()
    signal_at: np.ndarray | None = None
    offset_at: np.ndarray | float = 0.0
    weighted: bool = False

    def stretched(self, factor: float) -> Unbinned:
        """As `Binned.stretched`."""
        return replace(self, scale=self.scale * factor, weighted=False)

    def take(self, rows: np.ndarray) -> Unbinned:
        """There is only one row."""
        return self

    def with_signal(self, template: np.ndarray, signal_at: np.ndarray | None = None) -> Unbinned:
        """The same with a free yield of a signal: shares (cells,) and densities at the masses (n,)."""
        return replace(super().with_signal(template), signal_at=signal_at)

    def at_yield(self, s: float) -> Unbinned:
        """The same with the yield of its signal fixed."""
        return replace(super().at_yield(s), signal_at=None, offset_at=s * self.signal_at)

    def expected(self, theta: np.ndarray) -> np.ndarray:
        """Total expectation (1, cells)."""
        return self.shape.expected(theta[:, : self.shape.size]) + self._rest(theta)

    def score_variance(self, theta: np.ndarray) -> np.ndarray:
        """As `Binned.score_variance`, (1, D, D)."""
        _, density, columns, _ = self._densities(theta[0])
        slopes = columns * (self.weights / self.scale / density)[:, None]
        found = (slopes.T @ slopes)[None]
        self._constrained(found)
        return found

    def _densities(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """At the masses: background (n,), total (n,), derivatives of the total (n, D); integrals of the latter (D,)."""
        a, log = theta[: self.shape.size], self.shape.family.log
        linear = self.phi @ a
        background = np.exp(np.clip(linear, -700, 300)) if log else linear
        signal = [] if self.signal_at is None else [self.signal_at]
        extra = np.column_stack([*self.densities, *signal, np.empty((len(linear), 0))])
        density = background + extra @ theta[self.shape.size :] + self.offset_at
        columns = np.c_[self.phi * background[:, None] if log else self.phi, extra]
        return background, density, columns, np.r_[self.shape.jacobian(a).sum(0), [t.sum() for t in self._templates()]]

    def _evaluate(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        shape, size = self.shape, self.shape.size
        a = theta[:, :size]
        background, density, columns, integrals = self._densities(theta[0])
        w = self.weights / self.scale
        safe = np.where(density > 0, density, np.nan)
        value = 2 * (self.expected(theta).sum(1) / self.scale - w @ np.log(safe))
        ratio = w / safe
        gradient = 2 * (integrals / self.scale - ratio @ columns)[None]
        information = gram((w / safe**2)[None], columns)[0]
        if shape.family.log:  # the curvature of the exponential: integral minus events, small at the minimum
            curvature = gram(shape.rates(a) / self.scale, shape.phi)[0]
            exact = information.copy()
            exact[:size, :size] += curvature - gram((ratio * background)[None], self.phi)[0]
            if np.isfinite(exact).all() and np.linalg.eigvalsh(exact)[0] > 0:
                information = exact
        sums = value, gradient, information[None]
        self._bounded(theta, *sums)
        if self.signals is not None and theta[0, -1] < 0:
            cells = shape.expected(a)
            mu = cells + theta[:, -1:] * self.signals
            others = [*(np.zeros_like(cells) for _ in self.components), self.signals]
            self._walled_in(sums, np.zeros(1, int), cells, mu, shape.jacobian(a[0])[None], others)
        return sums
