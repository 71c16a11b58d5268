"""Pools of simulated events from which data sets are drawn: features, weights, and the sample of each row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from raypipe.errors import UserError
from raypipe.events.cms_open_data import four_lepton_masses, is_cms_open_data
from raypipe.events.fields import Rows
from raypipe.events.signed import positive_weights, refuse_negative
from raypipe.events.table import read_table
from raypipe.events.text import is_text, open_text


@dataclass(frozen=True)
class Pool(Rows):
    """Events of one or more samples.

    Attributes:
        values: (n, features) float64, in the units of the table (GeV).
        weight: (n,) expected events per fb^-1; all equal within a sample when it comes from raypipe's simulation.
        sample: (n,) int, number of the sample in ``names``.
        names: samples.
    """

    values: np.ndarray
    weight: np.ndarray
    sample: np.ndarray
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.weight)

    @staticmethod
    def concatenate(pools: Sequence[Pool]) -> Pool:
        """Several pools as one."""
        offset = np.cumsum([0, *(len(p.names) for p in pools)])
        return Pool(
            np.concatenate([p.values for p in pools]),
            np.concatenate([p.weight for p in pools]),
            np.concatenate([p.sample + k for p, k in zip(pools, offset, strict=False)]),
            tuple(name for p in pools for name in p.names),
        )

    def draw(self, count: int, rng: np.random.Generator, replace: bool, why: str) -> np.ndarray:
        """``count`` rows with probability proportional to weight, (count,) int.

        Without replacement the samples get multinomial shares and each event is drawn once at most.

        Raises:
            UserError: weights that are all zero, or more events of a sample wanted than there are, with the remedy.
        """
        if not self.weight.sum() > 0:
            raise UserError(f"{why}: no events with a positive weight among {', '.join(self.names) or 'no samples'}")
        if replace:
            return rng.choice(len(self), count, p=self.weight / self.weight.sum())
        shares = np.bincount(self.sample, self.weight, len(self.names))
        drawn = []
        for number, wanted in enumerate(rng.multinomial(count, shares / shares.sum())):
            rows = np.flatnonzero((self.sample == number) & (self.weight > 0))
            if wanted > len(rows):
                raise UserError(
                    f"{why} needs {wanted} events of {self.names[number]!r} but there are {len(rows)}: "
                    "simulate more or ask for less"
                )
            w = self.weight[rows]
            equal = not len(w) or np.ptp(w) < 1e-12 * w.max()
            drawn.append(rows[rng.choice(len(rows), wanted, replace=False, p=None if equal else w / w.sum())])
        return np.concatenate(drawn)

    def order(self, rng: np.random.Generator) -> np.ndarray:
        """Rows of positive weight in random order, heavier ones earlier: a prefix is a draw without replacement.

        Exponential times over weights (Efraimidis & Spirakis 2006); a longer prefix contains every shorter one.
        """
        with np.errstate(divide="ignore"):
            times = rng.exponential(size=len(self)) / self.weight
        return np.argsort(times, kind="stable")[: int((self.weight > 0).sum())]


def read_columns(path: str | Path, columns: Sequence[str], lepton_pt: float = 0.0) -> dict[str, np.ndarray]:
    """Columns of a Parquet or CSV file as float64; a missing or non-numeric one, or NaN, is a one-line `UserError`.

    Args:
        lepton_pt: GeV, smallest pT of the leptons of CMS open-data candidates (`raypipe.events.cms_open_data`).
    """
    path = Path(path)
    if is_text(path):
        if not path.is_file():
            raise UserError(f"{path}: no such file")
        table = open_text(path).read()
        if is_cms_open_data(table):
            table = four_lepton_masses(table, str(path), lepton_pt)
        missing = [name for name in columns if name not in table.column_names]
        if missing:
            raise UserError(f"{path}: column {missing[0]!r} is missing (present: {', '.join(table.column_names)})")
    else:
        table = read_table(path, list(columns))
    out = {}
    for name in columns:
        try:
            values = table[name].cast(pa.float64()).to_numpy(zero_copy_only=False)
        except (pa.ArrowException, ValueError) as error:
            raise UserError(f"{path}: column {name!r} is not numeric ({table[name].type})") from error
        finite = np.isfinite(values)
        if not finite.all():
            row = int(np.argmin(finite))
            raise UserError(f"{path}: column {name!r}, row {row}: {values[row]} is not finite")
        out[name] = values
    return out


def read_pool(
    path: str | Path, name: str, features: Sequence[str], weight: str | None = "weight", weights: str = "file"
) -> Pool:
    """One sample from a file; all weights are 1 when it has no weight column (``weight=None``).

    Args:
        weights: ``sign`` takes negative weights. The sum, which is the yield, keeps them; events are drawn by averages
            over the nearest ones in the features (`raypipe.events.signed.positive_weights`), which have the same sum.

    Raises:
        UserError: see `read_columns`; no rows; a negative weight without ``sign``; a sum that is not positive.
    """
    columns = read_columns(path, [*features, *([weight] if weight else [])])
    values = np.column_stack([columns[f] for f in features])
    if not len(values):
        raise UserError(f"{path}: no events")
    w = columns[weight] if weight else np.ones(len(values))
    refuse_negative(w, weights, "files.weights=", lambda row, x: f"{path}: column {weight!r}, row {row}: {x}")
    return Pool(values, positive_weights(values, w), np.zeros(len(values), dtype=int), (name,))
