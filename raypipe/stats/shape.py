"""A background family over given bins, in parameters that are well conditioned, with starting values."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from raypipe.errors import UserError
from raypipe.stats.backgrounds import Family, Nodes, adaptive_nodes, gauss_legendre
from raypipe.stats.bins import Bins, groups


@dataclass(frozen=True)
class Shape:
    """Expected background in bins for internal parameters ``a``: physical parameters are ``transform @ a``.

    The basis is orthonormal under the expected counts, so that a Newton step is safe. ``weight``: (Q,) of the nodes,
    for a template its expected events. ``positive``: (K, P) rows or None.
    """

    family: Family
    nodes: Nodes
    weight: np.ndarray
    transform: np.ndarray
    positive: np.ndarray | None
    start: np.ndarray

    @property
    def size(self) -> int:
        return len(self.start)

    @cached_property
    def phi(self) -> np.ndarray:
        """(Q, P) basis at the nodes."""
        return self.family.basis(self.nodes.mass) @ self.transform

    @cached_property
    def matrix(self) -> np.ndarray | None:
        """(B, P) bin integrals of a linear family, else None."""
        return None if self.family.log else self.nodes.sum_rows(self.phi, self.weight)

    @cached_property
    def mean_phi(self) -> np.ndarray:
        """(B, P) bin averages of the basis at the start, for information matrices; of a linear family `matrix`."""
        if self.matrix is not None:
            return self.matrix
        rates = np.exp(np.clip(self.phi @ self.start, -700, 300)) * self.weight
        total = self.nodes.sum(rates)
        return self.nodes.sum_rows(self.phi, rates) / np.where(total > 0, total, 1)[:, None]

    def rates(self, a: np.ndarray) -> np.ndarray:
        """Expected events at every node, (R, P) -> (R, Q), of a log family."""
        return np.exp(np.clip(a @ self.phi.T, -700.0, 300.0)) * self.weight

    def expected(self, a: np.ndarray) -> np.ndarray:
        """Expected events in every bin, (R, P) -> (R, B)."""
        return a @ self.matrix.T if self.matrix is not None else self.nodes.sum(self.rates(a))

    def jacobian(self, a: np.ndarray) -> np.ndarray:
        """Derivative of `expected` of one parameter vector, (P,) -> (B, P)."""
        if self.matrix is not None:
            return self.matrix
        return self.nodes.sum_rows(self.phi, self.rates(a[None])[0])

    def over(self, low: np.ndarray, high: np.ndarray) -> Shape:
        """The same function and parameters over other bins (not for templates)."""
        nodes = gauss_legendre(low, high, 32)
        return Shape(self.family, nodes, nodes.weight, self.transform, self.positive, self.start)


def make_shape(family: Family, bins: Bins, template: np.ndarray | None = None) -> Shape:
    """The family over ``bins``, starting from a least-squares fit; ``template`` (B,): expected events it multiplies."""
    widths = bins.high - bins.low
    floor = 0.5 * np.mean(bins.scale) if bins.errors is None else 0.0
    centres = (bins.low + bins.high) / 2
    if template is not None:
        nodes = Nodes(centres, template, np.arange(len(bins)))
        return _finish(family, nodes, template, _least_squares(family, centres, bins, template), bins)
    physical = _least_squares(family, centres, bins, widths)
    if family.log:
        guess = family.basis(centres) @ physical
        if not np.isfinite(guess).all() or guess.max() > 600:
            raise UserError(f"background {family.name}: no sensible starting point; try a lower order")
        nodes = adaptive_nodes(bins.low, bins.high, lambda m: family.basis(m) @ physical)
    else:
        nodes = gauss_legendre(bins.low, bins.high, 8)
        if (np.maximum(bins.counts, floor) <= 0).all():
            raise UserError(f"background {family.name}: all contents are negative or zero")
    return _finish(family, nodes, nodes.weight, physical, bins)


def _least_squares(family: Family, centres: np.ndarray, bins: Bins, size: np.ndarray) -> np.ndarray:
    """Weighted least squares of ln(content / size) (log families; sparse bins merged) or content (linear ones)."""
    counts, scale = bins.counts, bins.scale
    events = np.maximum(counts, 0) / scale  # groups of eight events, but at least two groups a parameter
    group = groups(events, min(8.0, max(events.sum() / (2 * family.size), 1e-9)), join_rest=False)
    total = lambda v: np.add.reduceat(v, group)  # noqa: E731
    n, s = total(counts), total(size)
    c = np.maximum(total(counts * scale) / np.where(n > 0, n, 1), np.min(scale))
    variance = total(bins.errors**2) if bins.errors is not None else np.maximum(n, 0) * c + 0.5 * c**2
    if family.log:
        value = np.maximum(n, 0.5 * np.sqrt(variance)) + (0.1 * c if bins.errors is None else 0.0)
        weight = value / np.sqrt(variance)
        x = total(centres * size) / s
        basis = family.basis(x)
        good = s > 0
        target = np.log(value[good] / s[good])
        return np.linalg.lstsq(basis[good] * weight[good, None], target * weight[good], rcond=1e-12)[0]
    nodes = gauss_legendre(bins.low, bins.high, 8)
    matrix = nodes.sum_rows(family.basis(nodes.mass), nodes.weight)
    merged = np.add.reduceat(matrix, group, axis=0)
    weight = 1 / np.sqrt(variance + 1e-300)
    physical = np.linalg.lstsq(merged * weight[:, None], n * weight, rcond=1e-12)[0]
    rows = family.positive if family.positive is not None else matrix
    flat = n.sum() / (bins.high - bins.low).sum()
    others = flat if family.name.startswith("bernstein") else 0.0
    constant = np.r_[flat, np.full(family.size - 1, others)]
    # Pull the line towards a constant until it is positive everywhere.
    for share in (0.0, 0.02, 0.1, 0.3, 0.6, 0.9, 1.0):
        mixed = (1 - share) * physical + share * constant
        if (rows @ mixed > 1e-3 * abs(flat) * (rows @ constant / flat)).all() and (matrix @ mixed > 0).all():
            return mixed
    return constant


def _finish(family: Family, nodes: Nodes, weight: np.ndarray, physical: np.ndarray, bins: Bins) -> Shape:
    phi = family.basis(nodes.mass)
    if family.log:
        rates = np.exp(np.clip(phi @ physical, -700, 300)) * weight
        # The expected information of every node; a floor keeps empty regions from making the basis singular.
        info = np.sqrt(rates / np.mean(bins.scale) + 1e-9 * rates.max() + 1e-300)
        if bins.errors is not None:
            spread = np.repeat(bins.errors, np.diff(np.r_[nodes.start, len(phi)]))
            info = rates / np.maximum(spread, 1e-12 * spread.max())
        rows = phi * info[:, None]
    else:
        rows = nodes.sum_rows(phi, weight) / np.sqrt(bins.variance + np.mean(bins.scale) ** 2)[:, None]
    scale = np.sqrt((rows**2).sum(0))
    if not (scale > 0).all():
        raise UserError(f"background {family.name}: a parameter has no effect in this window; try a lower order")
    _, upper = np.linalg.qr(rows / scale)
    diagonal = np.abs(np.diag(upper))
    if len(rows) < family.size or diagonal.min() < 1e-10 * diagonal.max():
        raise UserError(
            f"background {family.name}: {family.size} parameters cannot be told apart with {len(bins)} bins in this "
            "window; use a lower order or a wider window"
        )
    transform = np.linalg.inv(upper) / scale[:, None]
    positive = None if family.positive is None else family.positive @ transform
    return Shape(family, nodes, weight, transform, positive, upper @ (scale * physical))
