"""Published histograms: which columns are what, bin edges from centres, densities to counts."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from raypipe.errors import UserError

_X = ("x", "mass", "m", "centre", "center", "bin_centre", "bin_center", "bincenter", "mid", "mjj", "mgg", "myy", "mll")
_LOW = ("low", "xlow", "x_low", "xmin", "x_min", "lo", "bin_low", "edge_low", "left", "low_edge", "bin_lo")
_HIGH = ("high", "xhigh", "x_high", "xmax", "x_max", "hi", "bin_high", "edge_high", "right", "high_edge", "bin_hi")
_Y = ("y", "n", "counts", "count", "events", "entries", "n_events", "nevents", "observed", "data", "content", "value",
      "values", "yield", "contents", "weighted_events")  # fmt: skip
_ERROR = ("error", "err", "errors", "yerr", "y_err", "dy", "ey", "sigma", "stat", "uncertainty", "e", "unc", "y_error",
          "stat_error", "error_y", "std")  # fmt: skip
_VARIANCE = ("variance", "variances", "stat_variance", "sumw2")


@dataclass(frozen=True)
class Spectrum:
    """A histogram as published.

    Attributes:
        low, high: (b,) bin edges, ascending; gaps between bins are allowed. counts: (b,) events (or weighted events).
        errors: (b,) one standard deviation, or None where none was published. source: file and names.
    """

    low: np.ndarray
    high: np.ndarray
    counts: np.ndarray
    errors: np.ndarray | None
    source: str

    def scaled(self, factor: float, density: bool) -> Spectrum:
        """Counts and errors times ``factor`` and, for a density, times the bin widths."""
        if factor == 1 and not density:
            return self
        if not (np.isfinite(factor) and factor > 0):
            raise UserError(f"a scale of {factor:g} makes no spectrum: it must be positive")
        by = factor * (self.high - self.low if density else np.ones(len(self.low)))
        return replace(self, counts=self.counts * by, errors=None if self.errors is None else self.errors * by)


def spectrum_from_mapping(columns: dict[str, Any], name: str | None, source: str) -> Spectrum | None:
    """A histogram given by ``edges`` (one more than bins) and values, also nested: ``{edges, name: {values, ...}}``.

    ``name`` picks what to take and may add histograms (``ZZ+DY``). None if there are no edges.
    """
    edges = next(
        (columns[k] for k in ("edges", "bin_edges", "bins") if k in columns and np.ndim(columns[k]) == 1), None
    )
    if edges is None:
        return None
    edges = np.asarray(edges, float)
    if name is None:
        candidates = [k for k in (*_Y, "data") if k in columns]
        if not candidates:
            raise UserError(f"{source}: which histogram (--column)? there are {', '.join(map(str, columns))}")
        name = candidates[0]
    counts, variance, known = np.zeros(len(edges) - 1), np.zeros(len(edges) - 1), True
    for part in (p.strip() for p in name.split("+")):
        if part not in columns:
            raise UserError(f"{source}: no column {part!r}: there are {', '.join(map(str, columns))}")
        entry = columns[part]
        if isinstance(entry, dict):
            values = next((entry[k] for k in _Y if k in entry), None)
            errors = next((np.asarray(entry[k], float) for k in _ERROR if k in entry), None)
            squares = next((np.asarray(entry[k], float) for k in _VARIANCE if k in entry), None)
            squares = errors**2 if squares is None and errors is not None else squares
        else:
            values = entry
            single = next((np.asarray(columns[k], float) for k in _ERROR if k in columns), None)
            squares = None if single is None else single**2
            squares = next((np.asarray(columns[k], float) for k in _VARIANCE if k in columns), squares)
        if values is None or np.shape(values) != counts.shape:
            raise UserError(f"{source}: {part!r} must have {len(counts)} values, one less than the edges")
        counts = counts + np.asarray(values, float)
        known = known and squares is not None
        variance = variance + squares if known else variance
    return _checked(edges[:-1], edges[1:], counts, np.sqrt(variance) if known else None, f"{source}:{name}")


def find_columns(
    columns: dict[str, Any], x: str | None, y: str | None, error: str | None, source: str
) -> dict[str, str] | None:
    """The columns of a histogram: ``low`` and ``high`` or ``x``, ``y``, and ``error`` or ``up``/``down``; else None.

    Names are matched without case; HEPData's ``m [GeV] LOW`` and ``stat +`` are understood. Bare numbers are a
    histogram if they are sorted pairs, triples or adjoining low-high edges.
    """
    for wanted in (x, y, error):
        if wanted is not None and wanted not in columns:
            raise UserError(f"{source}: no column {wanted!r}: there are {', '.join(map(str, columns))}")
    short = {re.sub(r"[\s]+", "_", re.sub(r"[\[(].*?[\])]", "", str(k)).strip()).lower().strip("_"): k for k in columns}
    pick = lambda names: next((short[n] for n in names if n in short), None)  # noqa: E731
    low, high, found_x, found_y = pick(_LOW), pick(_HIGH), x or pick(_X), y or pick(_Y)
    lows = [k for k in columns if str(k).upper().endswith(" LOW")]
    highs = [k for k in columns if str(k).upper().endswith(" HIGH")]
    if lows and highs:  # HEPData's CSV: x, x LOW, x HIGH, y, stat +, stat -
        low, high = lows[0], highs[0]
        others = [
            k for k in columns if k not in (low, high, str(low)[:-4]) and not str(k).rstrip().endswith(("+", "-"))
        ]
        found_y = y or (others[0] if others else None)
    elif all(str(k).isdigit() for k in columns) and len(columns) > 1 and y is None:
        return _bare(columns)
    if x is not None:
        low = high = None
    if found_y is None or (found_x is None and (low is None or high is None)):
        if y is not None:
            raise UserError(
                f"{source}: which column is x of the histogram (--x)? there are {', '.join(map(str, columns))}"
            )
        return None
    result = {"y": found_y, **({"low": low, "high": high} if low is not None and high is not None else {"x": found_x})}
    up = next((k for k in columns if str(k).rstrip().endswith("+")), None)
    down = next((k for k in columns if str(k).rstrip().endswith("-")), None)
    if error or pick(_ERROR):
        result["error"] = error or pick(_ERROR)
    elif up is not None and down is not None:
        result |= {"up": up, "down": down}
    return result


def _bare(columns: dict[str, Any]) -> dict[str, str] | None:
    first, second = (np.asarray(columns[k], float) for k in list(columns)[:2])
    if len(first) < 3 or not (np.diff(first) > 0).all():
        return None
    if len(columns) > 2 and np.allclose(first[1:], second[:-1]):
        return {"low": "0", "high": "1", "y": "2", **({"error": "3"} if len(columns) > 3 else {})}
    return {"x": "0", "y": "1", **({"error": "2"} if len(columns) == 3 else {}),
            **({"up": "2", "down": "3"} if len(columns) == 4 else {})}  # fmt: skip


def spectrum_from_columns(columns: dict[str, Any], wanted: dict[str, str], source: str) -> Spectrum:
    """Assemble and check the histogram."""
    values = {}
    for role, name in wanted.items():
        try:
            values[role] = np.asarray(columns[name], float)
        except (TypeError, ValueError) as problem:
            raise UserError(f"{source}: column {name!r} is not numeric") from problem
    if "x" in values:
        low, high = edges_from_centres(values["x"], source)
    else:
        low, high = values["low"], values["high"]
    errors = values.get("error")
    if "up" in values:
        errors = (np.abs(values["up"]) + np.abs(values["down"])) / 2
    return _checked(low, high, values["y"], errors, f"{source}:{wanted['y']}")


def edges_from_centres(centres: np.ndarray, source: str) -> tuple[np.ndarray, np.ndarray]:
    """Bin edges whose centres are given: equal bins (also with bins left out), else adjoining unequal bins."""
    step = np.diff(centres)
    if len(centres) < 2 or not np.isfinite(centres).all() or (step <= 0).any():
        raise UserError(f"{source}: the bin centres must be at least two, finite and ascending")
    width = step.min()
    if np.allclose(step / width, np.round(step / width), atol=0.02):
        width = float(np.median(step[step < 1.5 * width]))
        return centres - width / 2, centres + width / 2
    # Adjoining bins: edge[i+1] = 2 c[i] - edge[i]; the one free edge is the closest to midpoints between centres.
    sign = np.where(np.arange(len(centres) + 1) % 2, -1.0, 1.0)
    base = np.zeros(len(centres) + 1)
    for i, c in enumerate(centres):
        base[i + 1] = 2 * c - base[i]
    middle = np.r_[centres[0] - step[0] / 2, (centres[1:] + centres[:-1]) / 2, centres[-1] + step[-1] / 2]
    edges = base + sign * np.mean(sign * (middle - base))
    if (np.diff(edges) <= 0).any() or (edges[1:] <= centres).any() or (edges[:-1] >= centres).any():
        edges = middle  # no adjoining bins have these centres: split half way
    return edges[:-1], edges[1:]


def _checked(low: np.ndarray, high: np.ndarray, counts: np.ndarray, errors: np.ndarray | None, source: str) -> Spectrum:
    if len({len(low), len(high), len(counts)} | ({len(errors)} if errors is not None else set())) != 1:
        raise UserError(f"{source}: edges, contents and errors have different lengths")
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (high > low).all()):
        raise UserError(f"{source}: every bin needs finite edges, low below high")
    order = np.argsort(low)
    low, high, counts = low[order], high[order], counts[order]
    errors = errors[order] if errors is not None else None
    if (low[1:] < high[:-1] - 1e-6 * (high - low)[1:]).any():
        raise UserError(f"{source}: bins overlap")
    if not np.isfinite(counts).all() or (errors is not None and not np.isfinite(errors).all()):
        bad = int(np.flatnonzero(~np.isfinite(counts) | (~np.isfinite(errors) if errors is not None else False))[0])
        raise UserError(f"{source}: bin {low[bad]:g}-{high[bad]:g} has a content or error that is not a number")
    if errors is not None and (errors < 0).any():
        raise UserError(f"{source}: an error is negative")
    return Spectrum(low, high, counts, errors, source)
