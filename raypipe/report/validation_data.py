"""A data set in one pass: weighted spectra, means and shares of every sample, piece by piece.

Only sums are kept. The splits of a sample each carry its whole yield (`raypipe.events.schema`); they are averaged in
proportion to their number of events, which leaves every event of a simulated sample with the same weight.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from raypipe.errors import UserError
from raypipe.events.schema import has_signs, tensor_values
from raypipe.events.table import count_rows, stream_table
from raypipe.report.validation_quantities import Batch, Kind, kind_of


@dataclass
class Spectrum:
    """A weighted histogram that remembers what fell outside; ``edges`` (k + 1,) rising."""

    edges: np.ndarray
    sums: np.ndarray = field(init=False)
    squares: np.ndarray = field(init=False)  # (k + 2,) sums of weights and of squared weights: below, the k bins, above

    def __post_init__(self) -> None:
        self.sums, self.squares = np.zeros((2, len(self.edges) + 1))

    def add(self, values: np.ndarray, weights: np.ndarray) -> None:
        """Fill with ``values`` (n,) and ``weights`` (n,); the last bin includes its upper edge, as NumPy's."""
        place = np.searchsorted(self.edges, values, side="right")
        place[values == self.edges[-1]] = len(self.edges) - 1
        self.sums += np.bincount(place, weights, len(self.sums))
        self.squares += np.bincount(place, weights**2, len(self.sums))

    @property
    def counts(self) -> np.ndarray:
        """(k,) sum of weights inside each bin."""
        return self.sums[1:-1]

    @property
    def errors(self) -> np.ndarray:
        """(k,) statistical errors of `counts`, root of the sum of squared weights."""
        return np.sqrt(self.squares[1:-1])

    @property
    def centres(self) -> np.ndarray:
        """(k,) middle of each bin."""
        return (self.edges[:-1] + self.edges[1:]) / 2

    def shape(self) -> tuple[np.ndarray, np.ndarray]:
        """Share of all events in each bin (outside included in the total) and its statistical error."""
        total = self.sums.sum() or 1.0
        return self.counts / total, self.errors / total

    def between(self, low: float, high: float) -> float:
        """Sum of weights between two of the edges."""
        first, last = np.searchsorted(self.edges, [low, high])
        return float(self.counts[first:last].sum())

    def quantiles(self, shares: list[float], inside: np.ndarray) -> np.ndarray:
        """Values below which the given shares of the bins of a mask (k,) lie; linear within a bin, NaN without any."""
        cumulative = np.r_[0.0, np.cumsum(self.counts * inside)]
        if cumulative[-1] <= 0:
            return np.full(len(shares), np.nan)
        return np.interp(np.array(shares) * cumulative[-1], cumulative, self.edges)

    def as_dict(self) -> dict[str, Any]:
        """Plain values; counts are in the unit of the weights."""
        inside = {name: getattr(self, name).tolist() for name in ("edges", "counts", "errors")}
        return inside | {"below": float(self.sums[0]), "above": float(self.sums[-1])}


class Mean:
    """A weighted mean with its statistical error; of a mask it is a weighted share."""

    def __init__(self) -> None:
        self.sums = np.zeros(5)  # Of w, w x, w^2, w^2 x and w^2 x^2

    def add(self, values: np.ndarray, weights: np.ndarray) -> None:
        """Fill with ``values`` (n,), numbers or booleans."""
        w2, x2 = weights**2, np.square(values, dtype=np.float64)
        self.sums += weights.sum(), weights @ values, w2.sum(), w2 @ values, w2 @ x2

    @property
    def value(self) -> float | None:
        """Sum w x / sum w; None where no event was filled."""
        return float(self.sums[1] / self.sums[0]) if self.sums[0] else None

    @property
    def error(self) -> float | None:
        """Root of sum w^2 (x - mean)^2, over sum w."""
        if (mean := self.value) is None:
            return None
        w, _, w2, w2x, w2xx = self.sums
        return float(np.sqrt(max(w2xx - 2 * mean * w2x + mean**2 * w2, 0.0)) / w)

    def as_dict(self) -> dict[str, float | None]:
        """Value and error."""
        return {"value": self.value, "error": self.error}


@dataclass
class SampleSums:
    """All that one pass over a sample's files found."""

    name: str
    kind: Kind
    group: int
    rows: dict[str, int]  # Events of each split
    weight: dict[str, float]  # Their sum of weights
    size: int  # Bytes of the files
    spectra: dict[str, Spectrum]
    means: dict[str, Mean]

    @property
    def events(self) -> int:
        """Rows of all splits."""
        return sum(self.rows.values())

    @property
    def yield_per_fb(self) -> float:
        """Sum of weights, the splits averaged in proportion to their number of events."""
        return sum(self.weight[s] * self.rows[s] / self.events for s in self.rows) if self.events else 0.0


def _batches(path: Path, kind: Kind) -> Iterator[Batch]:
    """The columns of a file, piece by piece, as float64 arrays; tensors, most of the memory, stay float32.

    Raises:
        UserError: a value that is not finite, or a negative weight in a table without signs.
    """
    first = 0
    for table in stream_table(path, kind.columns):
        if not table.num_rows:
            continue
        batch = {}
        for name, column in zip(table.column_names, table.columns, strict=True):
            is_tensor = isinstance(column.type, pa.FixedShapeTensorType)
            values = tensor_values(column) if is_tensor else column.to_numpy().astype(np.float64)
            good = np.isfinite(values)
            if name == "weight" and not has_signs(table):
                good &= values >= 0
            if not good.all():
                where = tuple(int(i) for i in np.argwhere(~good)[0])
                what = "is negative" if np.isfinite(values[where]) else "is not finite"
                raise UserError(f"{path}: column {name!r}, row {first + where[0]}: {values[where]} {what}")
            batch[name] = values
        yield batch
        first += table.num_rows


def collect(name: str, group: int, files: Mapping[str, Sequence[Path]], keep: Kind | None = None) -> SampleSums:
    """One pass over the files (split -> paths) of a sample for the quantities ``keep`` (else those of the first file).

    Raises:
        UserError: a missing, damaged or foreign file, a value that is not finite, a negative weight.
    """
    rows = {split: sum(count_rows(path) for path in paths) for split, paths in files.items()}
    every = [path for paths in files.values() for path in paths]
    kind = keep or kind_of(every[0])
    size, spectra = sum(path.stat().st_size for path in every), {q.name: Spectrum(q.edges) for q in kind.quantities}
    sums = SampleSums(name, kind, group, rows, dict.fromkeys(files, 0.0), size, spectra, defaultdict(Mean))
    for split, paths in files.items():
        for batch in chain.from_iterable(_batches(path, kind) for path in paths):
            sums.weight[split] += float(batch["weight"].sum())
            weights = batch["weight"] * (rows[split] / sums.events)
            filled = [(spectra[q.name], *q.values(batch)) for q in kind.quantities]
            filled += [(sums.means[label], *pair) for label, pair in kind.means(batch).items()]
            for target, values, mask in filled:
                target.add(values[mask], weights[mask])
    return sums
