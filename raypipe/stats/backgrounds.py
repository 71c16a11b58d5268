"""Smooth background families for a mass spectrum: what they are, and their integrals over bins."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from raypipe.errors import UserError

Basis = Callable[[np.ndarray], np.ndarray]
_QUADRATURE = {k: np.polynomial.legendre.leggauss(k) for k in (1, 2, 3, 4, 6, 8, 12, 16, 32, 64)}
HIGHEST_ORDER = 12


@dataclass(frozen=True)
class Family:
    """A background of ``exp(basis @ a)`` (``log``) or ``basis @ a`` events per unit of mass; ``labels`` (P,).

    ``basis`` takes masses (n,) to (n, P).
    """

    name: str
    log: bool
    labels: tuple[str, ...]
    basis: Basis
    positive: np.ndarray | None = None
    """(K, P) rows whose product with the parameters must stay positive (linear families only)."""

    @property
    def size(self) -> int:
        return len(self.labels)


FAMILIES = {
    "exp": "exp(a + b m); exp:N is exppoly:N",
    "exppoly": "exponential of a polynomial of degree N",
    "poly": "polynomial of degree N (Chebyshev), positive over the window",
    "bernstein": "Bernstein polynomial of degree N with positive coefficients",
    "power": "power law m^p; power:N exponential of a polynomial of degree N in ln m",
    "dijet": "p0 (1-x)^p1 x^(p2 + p3 ln x + ...) with N parameters, x = m / sqrt(s)",
    "diphoton": "p0 (1-x^(1/3))^p1 x^(p2 + p3 ln x + ...) with N parameters, x = m / sqrt(s)",
    "flat": "a constant",
}
ORDERS = {
    **{"exppoly": (1, 1), "poly": (0, 2), "bernstein": (0, 3), "power": (1, 1)},
    **{"dijet": (2, 4), "diphoton": (2, 3), "flat": (0, 0)},
}
"""Lowest and default order."""
ALIASES = {"exponential": "exppoly", "chebyshev": "poly", "powerlaw": "power", "exp": "exppoly"}


def family(spec: str, low: float, high: float, sqrt_s: float = 13000.0) -> Family:
    """The family named ``NAME`` or ``NAME:N`` for masses from ``low`` to ``high``, in the unit of ``sqrt_s``.

    Dijet: CDF, ATLAS and CMS (0812.4036, equation 1; N counts p0); diphoton: ATLAS (1606.03833, equation 1; N counts
    p0). Raises `UserError`: an unknown name, an order out of range, or masses where the function does not exist.
    """
    name, _, text = spec.strip().lower().partition(":")
    name = ALIASES.get(name, name)
    if name not in FAMILIES:
        raise UserError(f"background {spec!r}: there are {', '.join(f'{k} ({v})' for k, v in FAMILIES.items())}")
    least, default = ORDERS[name]
    try:
        order = int(text) if text else default
    except ValueError as problem:
        raise UserError(f"background {spec!r}: the part after the colon must be a whole number") from problem
    if not least <= order <= HIGHEST_ORDER:
        raise UserError(f"background {spec!r}: the order must be between {least} and {HIGHEST_ORDER}")
    full = f"{name}:{order}" if name != "flat" else "flat"
    middle, half = (high + low) / 2, (high - low) / 2
    scaled = lambda m: (m - middle) / half  # noqa: E731
    powers = np.polynomial.polynomial.polyvander
    if name == "flat":
        return Family(full, True, ("ln_rate",), lambda m: np.ones((len(m), 1)))
    if name == "exppoly" and order == 1:
        return Family("exp", True, ("ln_rate", "slope"), lambda m: np.stack([np.ones_like(m), m - middle], -1))
    if name == "exppoly":
        labels = tuple(f"a{k}" for k in range(order + 1))
        return Family(full, True, labels, lambda m: powers(scaled(m), order))
    if name == "power":
        if low <= 0:
            raise UserError(f"background {spec!r} needs positive masses: the window begins at {low:g}")
        labels = ("ln_rate", "power", *(f"p{k}" for k in range(2, order + 1)))
        return Family(full, True, labels, lambda m: powers(np.log(m / middle), order))
    if name in ("dijet", "diphoton"):
        if low <= 0 or high >= sqrt_s:
            raise UserError(
                f"background {spec!r} needs masses between 0 and sqrt(s) = {sqrt_s:g}, in the unit of the "
                f"masses: the window is {low:g}-{high:g} (--sqrt-s)"
            )
        labels = ("ln_p0", *(f"p{k}" for k in range(1, order)))
        root = 1.0 if name == "dijet" else 1 / 3
        return Family(full, True, labels, lambda m: _dijet(m / sqrt_s, order, root))
    grid = np.linspace(low, high, 201)  # finer than bins: between two points a touching parabola dips below nought
    labels = tuple(f"c{k}" for k in range(order + 1))
    if name == "poly":
        basis: Basis = lambda m: np.polynomial.chebyshev.chebvander(scaled(m), order)  # noqa: E731
        return Family(full, False, labels, basis, basis(grid))
    return Family(full, False, labels, lambda m: _bernstein((scaled(m) + 1) / 2, order), np.eye(order + 1))


def template_family(order: int, low: float, high: float) -> Family:
    """The factor on a simulated shape: a free normalisation times the exponential of a polynomial without constant."""
    if not 0 <= order <= 6:
        raise UserError(f"reference order {order}: between 0 and 6")
    middle, half = (high + low) / 2, (high - low) / 2
    labels = ("ln_scale", *(f"a{k}" for k in range(1, order + 1)))
    name = "reference" + (f"*exppoly:{order}" if order else "")
    return Family(name, True, labels, lambda m: np.polynomial.polynomial.polyvander((m - middle) / half, order))


def _dijet(x: np.ndarray, size: int, root: float) -> np.ndarray:
    columns = [np.ones_like(x), np.log1p(-(x**root)), *(np.log(x) ** k for k in range(1, size - 1))]
    return np.stack(columns[:size], -1)


def _bernstein(x: np.ndarray, order: int) -> np.ndarray:
    return np.stack([math.comb(order, k) * x**k * (1 - x) ** (order - k) for k in range(order + 1)], -1)


@dataclass(frozen=True)
class Nodes:
    """Quadrature over bins: ``mass`` and ``weight`` (Q,) of the nodes; ``start`` (B,): the first node of every bin."""

    mass: np.ndarray
    weight: np.ndarray
    start: np.ndarray

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Sum of node values (..., Q) over the nodes of every bin: (..., B)."""
        return values if len(self.start) == values.shape[-1] else np.add.reduceat(values, self.start, axis=-1)

    def sum_rows(self, values: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Sum of ``weight`` (Q,) times node values (Q, P) over the nodes of every bin: (B, P)."""
        return self.sum((values * weight[:, None]).T).T


def gauss_legendre(low: np.ndarray, high: np.ndarray, points: np.ndarray | int) -> Nodes:
    """Gauss-Legendre nodes over bins with ``points`` nodes in each (one number or (B,) from the tabulated orders)."""
    points = np.broadcast_to(points, len(low))
    mass, weight = [], []
    for a, b, k in zip(low, high, points, strict=True):
        x, w = _QUADRATURE[int(k)]
        mass.append((a + b) / 2 + (b - a) / 2 * x)
        weight.append((b - a) / 2 * w)
    return Nodes(np.concatenate(mass), np.concatenate(weight), np.r_[0, np.cumsum(points)[:-1]].astype(int))


def adaptive_nodes(low: np.ndarray, high: np.ndarray, log_density: Callable[[np.ndarray], np.ndarray]) -> Nodes:
    """The cheapest nodes whose bin integrals are off by less than 1e-4 of a bin's Poisson error and 1e-5 of itself."""
    exact = gauss_legendre(low, high, 64)
    peak = np.max(log_density(exact.mass), initial=-700.0)
    density = lambda nodes: nodes.weight * np.exp(np.clip(log_density(nodes.mass) - peak, -700, 0))  # noqa: E731
    target, scale = exact.sum(density(exact)), math.exp(min(peak, 700))
    chosen = np.full(len(low), 64)
    for more, k in pairwise(sorted(_QUADRATURE, reverse=True)):
        nodes = gauss_legendre(low, high, k)
        error = np.abs(nodes.sum(density(nodes)) - target)
        allowed = np.minimum(1e-4 * np.sqrt(np.maximum(target, 1e-30) / scale), 1e-5 * target + 1e-12 / scale)
        chosen = np.where((error <= allowed) & (chosen == more), k, chosen)
    return gauss_legendre(low, high, chosen)
