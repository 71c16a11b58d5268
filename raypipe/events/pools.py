"""Pools of simulated events from which data sets are drawn: features, weights, and the sample of each row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from raypipe.errors import UserError
from raypipe.events.fields import Rows
from raypipe.events.objects import invariant_mass
from raypipe.events.readers.base import check_file, resolve
from raypipe.events.readers.features import numbers
from raypipe.events.signed import positive_weights, refuse_negative
from raypipe.events.table import read_table
from raypipe.events.text import is_text, open_text


@dataclass(frozen=True)
class Pool(Rows):
    """Events of one or more samples: ``values`` (n, features) float64 (GeV), ``weight`` (n,) events per fb^-1.

    ``sample``: (n,) int, number of the sample in ``names``.
    """

    values: np.ndarray
    weight: np.ndarray
    sample: np.ndarray
    names: tuple[str, ...]

    @staticmethod
    def concatenate(pools: Sequence[Pool]) -> Pool:
        """Several pools as one."""
        offset = np.cumsum([0, *(len(p.names) for p in pools)])
        moved = [replace(p, sample=p.sample + k) for p, k in zip(pools, offset, strict=False)]
        return replace(super(Pool, Pool).concatenate(moved), names=tuple(name for p in pools for name in p.names))

    def draw(self, count: int, rng: np.random.Generator, replace: bool, why: str) -> np.ndarray:
        """``count`` rows with probability proportional to weight, (count,) int; too few rows are a `UserError`.

        Without replacement the samples get multinomial shares and each event is drawn once at most.
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
                told = f"needs {wanted} events of {self.names[number]!r} but there are {len(rows)}"
                raise UserError(f"{why} {told}: simulate more or ask for less")
            w = self.weight[rows]
            equal = not len(w) or np.ptp(w) < 1e-12 * w.max()
            drawn.append(rows[rng.choice(len(rows), wanted, replace=False, p=None if equal else w / w.sum())])
        return np.concatenate(drawn)

    def order(self, rng: np.random.Generator) -> np.ndarray:
        """Rows in random order, heavier ones earlier: a prefix is a draw without replacement (Efraimidis 2006)."""
        with np.errstate(divide="ignore"):
            times = rng.exponential(size=len(self)) / self.weight
        return np.argsort(times, kind="stable")[: int((self.weight > 0).sum())]


def read_columns(path: str | Path, columns: Sequence[str], lepton_pt: float = 0.0) -> dict[str, np.ndarray]:
    """Columns of a Parquet or CSV file as float64; a missing or non-numeric one, or NaN, is a one-line `UserError`."""
    path = Path(path)
    if is_text(path):
        table = open_text(check_file(path)).read()
        names = set(table.column_names)
        if {"PID1", "PID4", "E1", "px1", "M"} <= names and "m_ee" not in names:  # what CMS gives to schools
            table = _four_lepton_masses(table, str(path), lepton_pt)
    else:
        table = read_table(path, list(columns))
    return {name: numbers(table, resolve(name, table.column_names, path), path) for name in columns}


def read_pool(
    path: str | Path, name: str, features: Sequence[str], weight: str | None = "weight", weights: str = "file"
) -> Pool:
    """One sample from a file; all weights are 1 when it has no weight column (``weight=None``).

    ``weights="sign"`` takes negative weights (`positive_weights`). No rows, or a sum that is not positive: `UserError`.
    """
    columns = read_columns(path, [*features, *([weight] if weight else [])])
    values = np.column_stack([columns[f] for f in features])
    if not len(values):
        raise UserError(f"{path}: no events")
    w = columns[weight] if weight else np.ones(len(values))
    refuse_negative(w, weights, "files.weights=", lambda row, x: f"{path}: column {weight!r}, row {row}: {x}")
    return Pool(values, positive_weights(values, w), np.zeros(len(values), dtype=int), (name,))


def _four_lepton_masses(table: pa.Table, source: str, lepton_pt: float = 0.0) -> pa.Table:
    """``m_4l``, ``m_ee`` and ``m_mumu`` [GeV] of e+e-mu+mu- in CMS open data, whose mZ1 and mZ2 are not by flavour."""
    column = lambda name: numbers(table, name, source)  # noqa: E731
    flavour = np.abs(np.column_stack([table[f"PID{i}"].to_numpy() for i in range(1, 5)]))
    momenta = np.stack([np.column_stack([column(f"{q}{i}") for q in ("E", "px", "py", "pz")]) for i in range(1, 5)], 1)
    mixed = ((flavour == 11).sum(1) == 2) & ((flavour == 13).sum(1) == 2)
    mixed &= (np.hypot(momenta[:, :, 1], momenta[:, :, 2]) >= lepton_pt).all(1)
    if not mixed.any():
        raise UserError(f"{source}: none of {len(table)} candidates is e+e-mu+mu- with pT above {lepton_pt:g} GeV")
    flavour, momenta = flavour[mixed], momenta[mixed]
    mass = lambda chosen: invariant_mass((momenta * chosen[:, :, None]).sum(1))  # noqa: E731
    every = np.ones_like(flavour, dtype=float)
    return pa.table({"m_4l": mass(every), "m_ee": mass(flavour == 11), "m_mumu": mass(flavour == 13)})
