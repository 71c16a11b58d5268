"""-2 ln L of one set of unbinned masses, with the interface of the binned likelihood."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from raypipe.stats.likelihood import BARRIER, Component, near_nothing, positive_share, to_the_wall
from raypipe.stats.shape import Shape


@dataclass(frozen=True)
class Unbinned:
    """Extended unbinned likelihood (Barlow 1990) of one data set: 2 [ integral - sum_i w_i ln density(m_i) ] / c.

    Parameters as in `raypipe.stats.likelihood.Binned`; one row. Weights are scaled by c = sum(w^2)/sum(w).

    Attributes:
        shape: over cells that tile the fitted ranges (they only integrate). phi: (n, P) its basis at the masses.
        weights: (n,). scale: c. signal: (n,) peak density at the masses, or None. signal_cells: (cells,) its integrals.
        components: as binned, over the cells. densities: (C, n) their densities. fixed: a fixed yield of the signal
            (then it is no parameter). weighted: whether the errors come from squared weights (`score_variance`).
    """

    shape: Shape
    phi: np.ndarray
    weights: np.ndarray
    scale: float
    signal: np.ndarray | None = None
    signal_cells: np.ndarray | None = None
    components: tuple[Component, ...] = ()
    densities: tuple[np.ndarray, ...] = ()
    fixed: float | None = None
    barrier: float = BARRIER
    weighted: bool = False

    def stretched(self, factor: float) -> Unbinned:
        """As `Binned.stretched`."""
        return replace(self, scale=self.scale * factor, weighted=False)

    @property
    def rows(self) -> int:
        return 1

    @property
    def size(self) -> int:
        return self.shape.size + len(self.components) + (self.signal is not None and self.fixed is None)

    def take(self, rows: np.ndarray) -> Unbinned:
        """There is only one row."""
        return self

    def softened(self, barrier: float) -> Unbinned:
        """The same with another weight of the barriers."""
        return replace(self, barrier=barrier)

    def longest(self, theta: np.ndarray, step: np.ndarray) -> np.ndarray:
        """As `Binned.longest`, over the cells."""
        share = positive_share(self.shape, theta, step)
        if self.signal_cells is None or self.fixed is not None or theta[0, -1] + step[0, -1] >= 0:
            return share
        size = self.shape.size
        here, there = (self.shape.expected(t[:, :size]) + t[0, -1] * self.signal_cells for t in (theta, theta + step))
        return np.minimum(share, to_the_wall(here, there))

    def at_wall(self, theta: np.ndarray) -> np.ndarray:
        """As `Binned.at_wall`, over the cells."""
        if self.signal_cells is None:
            return np.zeros(1, bool)
        return near_nothing(self.shape.expected(theta[:, : self.shape.size]), theta[:, -1], self.signal_cells[None])

    def evaluate(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """-2 ln L (1,), gradient (1, D) and observed information (1, D, D)."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            value, gradient, information = self._evaluate(theta[0])
        if not (np.isfinite(value) and np.isfinite(gradient).all() and np.isfinite(information).all()):
            return np.array([np.inf]), np.zeros_like(theta), np.eye(theta.shape[1])[None]
        return np.array([value]), gradient[None], information[None]

    def score_variance(self, theta: np.ndarray) -> np.ndarray:
        """As `Binned.score_variance`, (1, D, D)."""
        _, density, columns, _ = self._densities(theta[0])
        slopes = columns * (self.weights / self.scale / density)[:, None]
        found = slopes.T @ slopes
        for k, component in enumerate(self.components, start=self.shape.size):
            found[k, k] += 1 / component.spread**2
        return found[None]

    def _densities(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """At the masses: background (n,), total (n,), derivatives of the total (n, D); integrals of the latter (D,)."""
        shape, size = self.shape, self.shape.size
        a = theta[:size]
        linear = self.phi @ a
        background = np.exp(np.clip(linear, -700, 300)) if shape.family.log else linear
        density = background.copy()
        columns = [self.phi * background[:, None] if shape.family.log else self.phi]
        integrals = [shape.jacobian(a).sum(0)]
        for k, (component, shape_at) in enumerate(zip(self.components, self.densities, strict=True), start=size):
            density += theta[k] * shape_at
            columns.append(shape_at[:, None])
            integrals.append(component.template.sum(keepdims=True))
        if self.signal is not None and self.signal_cells is not None:
            density += (theta[-1] if self.fixed is None else self.fixed) * self.signal
            if self.fixed is None:
                columns.append(self.signal[:, None])
                integrals.append(self.signal_cells.sum(keepdims=True))
        return background, density, np.concatenate(columns, 1), np.concatenate(integrals)

    def _total(self, theta: np.ndarray, cells: np.ndarray) -> float:
        """Expected events in all cells."""
        total = cells.sum() + sum(theta[self.shape.size + k] * c.template.sum() for k, c in enumerate(self.components))
        if self.signal_cells is not None:
            total += (theta[-1] if self.fixed is None else self.fixed) * self.signal_cells.sum()
        return float(total)

    def _evaluate(self, theta: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        shape, size = self.shape, self.shape.size
        a, family = theta[:size], self.shape.family
        cells = shape.expected(a[None])[0]
        background, density, columns, integrals = self._densities(theta)
        w = self.weights / self.scale
        safe = np.where(density > 0, density, np.nan)
        value = 2 * (self._total(theta, cells) / self.scale - w @ np.log(safe))
        ratio = w / safe
        gradient = 2 * (integrals / self.scale - ratio @ columns)
        information = (columns * (w / safe**2)[:, None]).T @ columns
        if family.log:  # the curvature of the exponential: integral minus events, small at the minimum for many events
            nodes = shape.rates(a[None])[0] / self.scale
            curvature = (shape.phi * nodes[:, None]).T @ shape.phi
            events = (self.phi * (ratio * background)[:, None]).T @ self.phi
            exact = information.copy()
            exact[:size, :size] += curvature - events
            if np.isfinite(exact).all() and np.linalg.eigvalsh(exact)[0] > 0:
                information = exact
        for k, component in enumerate(self.components, start=size):
            pull = (theta[k] - component.expected) / component.spread
            value += pull**2
            gradient[k] += 2 * pull / component.spread
            information[k, k] += 1 / component.spread**2
        if shape.positive is not None:
            rows = shape.positive @ a
            value -= 2 * self.barrier * np.log(np.where(rows > 0, rows, np.nan)).sum()
            gradient[:size] -= 2 * self.barrier * (1 / rows) @ shape.positive
            information[:size, :size] += self.barrier * (shape.positive / rows[:, None] ** 2).T @ shape.positive
        if self.signal is not None and self.fixed is None and theta[-1] < 0 and self.signal_cells is not None:
            ratio_cells = 1 + theta[-1] * self.signal_cells / cells
            value -= 2 * self.barrier * np.log(np.where(ratio_cells > 0, ratio_cells, np.nan)).sum()
            bend = -(theta[-1] * self.signal_cells / (cells**2 * ratio_cells))[:, None] * shape.jacobian(a)
            slopes = np.column_stack([bend, self.signal_cells / (cells * ratio_cells)])
            among = np.r_[np.arange(size), len(theta) - 1]
            gradient[among] -= 2 * self.barrier * slopes.sum(0)
            information[np.ix_(among, among)] += self.barrier * slopes.T @ slopes
        return float(value), gradient, information
