"""One feature as a number that a flow can follow: spikes and steps spread out, heavy tails drawn in, and back.

A value that many events share is spread uniformly over an interval as long as its share (dequantisation, 1306.0186).
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from raypipe import seeds
from raypipe.config.table import Preprocess

_EDGE = 1e-9
FEW = 20  # Events below which a stretch has no shape of its own
HEAVY = 1.5  # Standard deviation over that of a Gaussian with the same quartiles above which a tail is heavy


@dataclass(frozen=True)
class Plain:
    """A smooth feature between bounds: the logit of its place between them, or the feature as it is.

    ``bounded``: the nearest value that the sidebands know; ``forward``: to the space of the flow; ``inverse``: back to
    values that occur, where ``uniform`` (n,) in (0, 1) places a value that many share.
    """

    logit: bool
    low: float
    high: float
    said: str = ""

    def bounded(self, x: np.ndarray) -> np.ndarray:
        return np.clip(x, self.low, self.high) if self.logit else x

    def forward(self, x: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        if not self.logit:
            return x
        u = np.clip((x - self.low) / (self.high - self.low), _EDGE, 1 - _EDGE)
        return np.log(u / (1 - u))

    def inverse(self, z: np.ndarray) -> np.ndarray:
        return self.low + (self.high - self.low) / (1 + np.exp(-z)) if self.logit else z


@dataclass(frozen=True)
class Stretch:
    """A continuous part of a feature and a smooth map of it onto (0, 1) under which it is about uniform.

    ``knots``: quantiles of asinh((x - centre) / scale), which makes any power-law tail a short one; ``shares``: their
    images.
    """

    centre: float
    scale: float
    knots: np.ndarray
    shares: np.ndarray

    def forward(self, x: np.ndarray) -> np.ndarray:
        return np.interp(np.arcsinh((x - self.centre) / self.scale), self.knots, self.shares)

    def inverse(self, t: np.ndarray) -> np.ndarray:
        return self.centre + self.scale * np.sinh(np.interp(t, self.shares, self.knots))

    @property
    def ends(self) -> tuple[float, float]:
        first, last = self.inverse(np.array([0.0, 1.0]))
        return float(first), float(last)


@dataclass(frozen=True)
class Pieces:
    """A feature in ascending parts, single values (float) and stretches, each on an interval as long as its share.

    ``edges``: (parts + 1,) from 0 to 1; ``levels``: the values in the stretches, where they lie on a grid.
    """

    parts: tuple[float | Stretch, ...]
    edges: np.ndarray
    levels: np.ndarray | None
    said: str = ""

    @property
    def _ends(self) -> np.ndarray:
        return np.array([part.ends if isinstance(part, Stretch) else (part, part) for part in self.parts])

    def _part_of(self, x: np.ndarray) -> np.ndarray:
        """The part that each value belongs to: the one that holds it, or the nearest."""
        low, high = self._ends.T
        after = np.minimum(np.searchsorted(high, x), len(high) - 1)
        before = np.maximum(after - 1, 0)
        return np.where((x < low[after]) & (x - high[before] < low[after] - x), before, after)

    def bounded(self, x: np.ndarray) -> np.ndarray:
        k = self._part_of(x)
        low, high = self._ends.T
        single = low[k] == high[k]
        inner = x if self.levels is None else nearest(self.levels, x)
        return np.where(single, low[k], np.clip(inner, low[k], high[k]))

    def forward(self, x: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        k = self._part_of(x)
        inner = x if self.levels is None else spread(self.levels, x, uniform)
        t = np.array(uniform)
        for number, part in enumerate(self.parts):
            if isinstance(part, Stretch):
                t[k == number] = part.forward(inner[k == number])
        u = self.edges[k] + t * (self.edges[k + 1] - self.edges[k])
        return ndtri(np.clip(u, _EDGE, 1 - _EDGE))

    def inverse(self, z: np.ndarray) -> np.ndarray:
        u = ndtr(z)
        k = np.clip(np.searchsorted(self.edges, u, side="right") - 1, 0, len(self.parts) - 1)
        t = (u - self.edges[k]) / (self.edges[k + 1] - self.edges[k])
        out = np.empty_like(u)
        for number, part in enumerate(self.parts):
            here = k == number
            if not isinstance(part, Stretch):
                out[here] = part
            else:
                values = part.inverse(t[here])
                out[here] = values if self.levels is None else nearest(self.levels, values)
        return out


def nearest(levels: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The level nearest to each value; levels ascend."""
    return levels[np.searchsorted((levels[1:] + levels[:-1]) / 2, x)]


def spread(levels: np.ndarray, x: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Each level moved uniformly between the middles to its neighbours."""
    if len(levels) < 2:
        return x
    middles = (levels[1:] + levels[:-1]) / 2
    edges = np.r_[2 * levels[0] - middles[0], middles, 2 * levels[-1] - middles[-1]]
    k = np.searchsorted(middles, x)
    return edges[k] + uniform * (edges[k + 1] - edges[k])


def fit_feature(x: np.ndarray, *, logit: bool, margin: float) -> Plain | Pieces:
    """Find what is not smooth in a feature (n,) and how to make it so; ``said`` tells the user, or is empty."""
    values, counts = np.unique(x, return_counts=True)
    n = len(x)
    if len(values) <= max(16, n // 100):
        atoms, levels = values, None
    else:
        atoms = values[_spikes(counts, n)]
        rest = values[~np.isin(values, atoms)]
        levels = rest if 4 * len(rest) <= np.isin(x, rest).sum() else None
    wider = margin * (values[-1] - values[0])
    plain = Plain(logit, float(values[0] - wider), float(values[-1] + wider))
    if not len(atoms) and levels is None:
        z = plain.forward(x, x)
        quartiles = np.quantile(z, [0.25, 0.75])
        if z.std() <= HEAVY * np.ptp(quartiles) / 1.349:
            return plain
    parts, events = _parts(x, atoms, levels, margin)
    said = _said(values, counts, atoms, levels, n)
    return Pieces(tuple(parts), np.r_[0.0, np.cumsum(events)] / sum(events), levels, said)


def _spikes(counts: np.ndarray, n: int) -> np.ndarray:
    """Which values stand out from their neighbours: five times as frequent as one of the two next on either side."""
    padded = np.r_[[n, n], counts, [n, n]]
    lowest = np.min([padded[i : i + len(counts)] for i in (0, 1, 3, 4)], axis=0)
    return (counts >= max(FEW, 0.002 * n)) & (counts >= 5 * lowest)


def _parts(
    x: np.ndarray, atoms: np.ndarray, levels: np.ndarray | None, margin: float
) -> tuple[list[float | Stretch], list[int]]:
    """Values and stretches between them in ascending order, with their numbers of events."""
    parts: list[float | Stretch] = []
    events: list[int] = []
    for low, high in zip(np.r_[-np.inf, atoms], np.r_[atoms, np.inf], strict=True):
        if np.isfinite(low):
            parts.append(float(low))
            events.append(int((x == low).sum()))
        inner = x[(x > low) & (x < high)]
        values, counts = np.unique(inner, return_counts=True)
        if len(inner) < FEW or len(values) < 2:  # no shape: single values
            parts += values.tolist()
            events += counts.tolist()
        else:
            parts.append(_stretch(inner, *_ends(inner, levels, low, high, margin)))
            events.append(len(inner))
    return parts, events


def _ends(inner: np.ndarray, levels: np.ndarray | None, low: float, high: float, margin: float) -> tuple[float, float]:
    """Where a stretch between two single values begins and ends: a margin beyond its events, or half a step."""
    first, last = inner.min(), inner.max()
    if levels is None:
        below = above = margin * (last - first)
    else:
        here = levels[(levels >= first) & (levels <= last)]
        below, above = (here[1] - here[0]) / 2, (here[-1] - here[-2]) / 2
    return max(first - below, (first + low) / 2), min(last + above, (last + high) / 2)


def _stretch(x: np.ndarray, low: float, high: float) -> Stretch:
    """The map of a stretch from its quantiles: eighths and, as far as there are events, finer ones in the tails."""
    quartiles = np.quantile(x, [0.25, 0.5, 0.75])
    centre, scale = float(quartiles[1]), float(quartiles[2] - quartiles[0]) / 2 or float(x.std())
    tail = np.array([1 / 64, 1 / 32, 1 / 16])
    shares = np.r_[tail, np.arange(1, 8) / 8, 1 - tail[::-1]]
    shares = shares[np.minimum(shares, 1 - shares) * len(x) >= FEW]
    y = np.arcsinh((np.r_[low, np.quantile(x, shares), high] - centre) / scale)
    keep = np.r_[True, np.diff(y) > 0]  # on a grid quantiles may coincide
    return Stretch(centre, scale, y[keep], np.r_[0.0, shares, 1.0][keep])


def _said(values: np.ndarray, counts: np.ndarray, atoms: np.ndarray, levels: np.ndarray | None, n: int) -> str:
    """What was found, in words."""
    if len(atoms) == len(values):
        return f"{len(values)} values"
    words = [f"{counts[values == a][0] / n:.1%} at {a:g}" for a in atoms[:3]]
    words += [f"{len(atoms) - 3} more values"] if len(atoms) > 3 else []
    if levels is not None:
        words.append(f"{len(levels)} values on a grid")
    return ", ".join(words) or "heavy tails"


@dataclass(frozen=True)
class Scaler:
    """Maps features (n, d) to the space of the flow; the flow itself standardises."""

    names: tuple[str, ...]
    features: tuple[Plain | Pieces, ...]

    def bounded(self, features: np.ndarray) -> np.ndarray:
        """The nearest values that the sidebands know: what lies beyond them must not be seen as such."""
        return self._each("bounded", features)

    def forward(self, features: np.ndarray, seed: int) -> np.ndarray:
        """To the space of the flow; ``seed``: of what spreads values that many events share."""
        noise = seeds.generator(seed, "dequantise").random(features.shape)
        columns = zip(self.features, features.T, noise.T, strict=True)
        return np.column_stack([feature.forward(x, uniform) for feature, x, uniform in columns])

    def inverse(self, values: np.ndarray) -> np.ndarray:
        """Back to features, with the values that they take; float64."""
        return self._each("inverse", values.astype(np.float64))

    def _each(self, what: str, values: np.ndarray) -> np.ndarray:
        return np.column_stack([getattr(f, what)(column) for f, column in zip(self.features, values.T, strict=True)])

    @property
    def said(self) -> str:
        """Which features were not smooth, and how; empty where all are."""
        return "; ".join(f"{name}: {f.said}" for name, f in zip(self.names, self.features, strict=True) if f.said)


def fit_scaler(features: np.ndarray, names: tuple[str, ...], config: Preprocess) -> Scaler:
    """The maps of all features from the sideband events (n, d), of which each varies."""
    logit = config.kind == "logit"
    return Scaler(names, tuple(fit_feature(x, logit=logit, margin=config.margin) for x in features.T))
