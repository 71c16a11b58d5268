"""Published histograms: assembled from columns or mappings, bin edges from centres, densities to counts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from raypipe.errors import UserError
from raypipe.events.columns import ERROR, VARIANCE, Y
from raypipe.events.fields import Rows


@dataclass(frozen=True)
class Spectrum(Rows):
    """A histogram as published: ascending edges ``low``, ``high`` (b,), gaps allowed, contents and errors or None.

    ``upper``: (b,) upper side of errors published with two sides, or None. ``source``: file and names.
    """

    low: np.ndarray
    high: np.ndarray
    counts: np.ndarray
    errors: np.ndarray | None
    source: str
    upper: np.ndarray | None = None

    def scaled(self, factor: float, density: bool) -> Spectrum:
        """Counts and errors times ``factor`` and, for a density, times the bin widths."""
        if factor == 1 and not density:
            return self
        if not (np.isfinite(factor) and factor > 0):
            raise UserError(f"a scale of {factor:g} makes no spectrum: it must be positive")
        by = factor * (self.high - self.low if density else np.ones(len(self.low)))
        times = lambda values: None if values is None else values * by  # noqa: E731
        return replace(self, counts=self.counts * by, errors=times(self.errors), upper=times(self.upper))


def spectrum_from_mapping(columns: dict[str, Any], name: str | None, source: str) -> Spectrum | None:
    """A histogram ``{edges, name: {values, ...}}``, or several added (``name``: ``ZZ+DY``); else None."""
    found = [k for k in ("edges", "bin_edges", "bins") if k in columns and np.ndim(columns[k]) == 1]
    if not found:
        return None
    edges, there = np.asarray(columns[found[0]], float), f"there are {', '.join(map(str, columns))}"
    if name is None:
        candidates = [k for k in (*Y, "data") if k in columns]
        if not candidates:
            raise UserError(f"{source}: which histogram (--column)? {there}")
        name = candidates[0]
    counts, variance, known = np.zeros(len(edges) - 1), np.zeros(len(edges) - 1), True
    for part in (p.strip() for p in name.split("+")):
        if part not in columns:
            raise UserError(f"{source}: no column {part!r}: {there}")
        entry = columns[part] if isinstance(columns[part], dict) else {**columns, Y[0]: columns[part]}
        values = next((entry[k] for k in Y if k in entry), None)
        errors = next((np.asarray(entry[k], float) for k in ERROR if k in entry), None)
        squares = next((np.asarray(entry[k], float) for k in VARIANCE if k in entry), None)
        squares = errors**2 if squares is None and errors is not None else squares
        if values is None or np.shape(values) != counts.shape:
            raise UserError(f"{source}: {part!r} must have {len(counts)} values, one less than the edges")
        counts = counts + np.asarray(values, float)
        known = known and squares is not None
        variance = variance + squares if known else variance
    errors = np.sqrt(variance) if known else None
    return _checked(Spectrum(edges[:-1], edges[1:], counts, errors, f"{source}:{name}"))


def spectrum_from_columns(columns: dict[str, Any], wanted: dict[str, str], source: str) -> Spectrum:
    """Assemble and check the histogram."""
    values = {}
    for role, name in wanted.items():
        try:
            values[role] = np.asarray(columns[name], float)
        except (TypeError, ValueError) as problem:
            raise UserError(f"{source}: column {name!r} is not numeric") from problem
    if "x" in values:
        if len(values["x"]) > 1 and (np.diff(values["x"]) < 0).all():  # written from the right to the left
            values = {role: array[::-1] for role, array in values.items()}
        half = values["half"] if "half" in values else values["width"] / 2 if "width" in values else None
        x = values["x"]
        low, high = edges_from_centres(x, source) if half is None else (x - half, x + half)
    else:
        low, high = values["low"], values["high"]
    errors, upper = values.get("error"), None
    if "up" in values:
        upper = np.abs(values["up"])
        errors = (upper + np.abs(values["down"])) / 2
    return _checked(Spectrum(low, high, values["y"], errors, f"{source}:{wanted['y']}", upper))


def edges_from_centres(centres: np.ndarray, source: str) -> tuple[np.ndarray, np.ndarray]:
    """Bin edges whose centres are given: equal bins, adjoining unequal bins, or equal bins with some left out."""
    step = np.diff(centres)
    if len(centres) < 2 or not np.isfinite(centres).all() or (step <= 0).any():
        raise UserError(f"{source}: the bin centres must be at least two, finite and ascending")
    width = step.min()
    equal = float(np.median(step[step < 1.5 * width]))
    if (step < 1.02 * width).all():
        return centres - equal / 2, centres + equal / 2
    edges = _adjoining(centres)
    sensible = (np.diff(edges) > 0).all() and (edges[1:] > centres).all() and (edges[:-1] < centres).all()
    growing = sensible and (np.diff(edges, 2) > -0.02 * width).all()
    if not growing and np.allclose(step / width, np.round(step / width), atol=0.02):
        return centres - equal / 2, centres + equal / 2
    if not sensible:  # no adjoining bins have these centres: split half way
        edges = np.r_[centres[0] - step[0] / 2, (centres[1:] + centres[:-1]) / 2, centres[-1] + step[-1] / 2]
    return edges[:-1], edges[1:]


def _adjoining(centres: np.ndarray) -> np.ndarray:
    """Edges of adjoining bins, edge[i+1] = 2 c[i] - edge[i], with steps of the widths equal, on the printed grid."""
    sign = np.where(np.arange(len(centres) + 1) % 2, -1.0, 1.0)
    base = np.zeros(len(centres) + 1)
    for i, c in enumerate(centres):
        base[i + 1] = 2 * c - base[i]
    order = min(3, len(centres))
    free = float(np.median(-np.diff(base, order) / np.diff(sign, order)))
    grid = _printed_grid(2 * centres)
    if grid is not None and abs(round(free / grid) * grid - free) < 0.25 * np.diff(centres).min():
        free = round(free / grid) * grid
    return base + sign * free


def _printed_grid(values: np.ndarray) -> float | None:
    """The coarsest of 10, 5, 1, 0.5 ... of which all values are multiples, or None."""
    grids = (g * 10.0**-k for k in range(-1, 5) for g in (1.0, 0.5))
    return next((g for g in grids if np.allclose(values / g, np.round(values / g), rtol=0, atol=1e-3)), None)


def _checked(found: Spectrum) -> Spectrum:
    """The same in ascending order, or a `UserError`."""
    if len({len(values) for values in found.arrays().values()}) != 1:
        raise UserError(f"{found.source}: edges, contents and errors have different lengths")
    if not (np.isfinite(found.low).all() and np.isfinite(found.high).all() and (found.high > found.low).all()):
        raise UserError(f"{found.source}: every bin needs finite edges, low below high")
    found = found.take(np.argsort(found.low))
    low, high = found.low, found.high
    if (low[1:] < high[:-1] - 1e-6 * (high - low)[1:]).any():
        raise UserError(f"{found.source}: bins overlap")
    bad = ~np.isfinite(found.counts) if found.errors is None else ~np.isfinite(found.counts + found.errors)
    if bad.any():
        k = int(np.argmax(bad))
        raise UserError(f"{found.source}: bin {low[k]:g}-{high[k]:g} has a content or error that is not a number")
    if found.errors is not None and (found.errors < 0).any():
        raise UserError(f"{found.source}: an error is negative")
    return found
