"""From a user's columns to a feature table: mass, features, weight, label, id, checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from raypipe.config.read import Columns, Source
from raypipe.errors import UserError
from raypipe.events.readers.base import chunks, resolve
from raypipe.events.readers.registry import reader_for


@dataclass(frozen=True)
class FeatureTable:
    """Events as arrays."""

    event_id: np.ndarray
    mass: np.ndarray
    """(n,) float64, the conditional mass in the unit of the window."""
    features: np.ndarray
    """(n, d) float64."""
    weight: np.ndarray
    """(n,) float64, not negative."""
    label: np.ndarray | None
    """(n,) bool, True for signal; None where the files do not say."""
    names: tuple[str, ...]
    """Names of the d features."""

    def __len__(self) -> int:
        return len(self.mass)

    def take(self, rows: np.ndarray) -> FeatureTable:
        """The given rows (indices or mask)."""
        label = None if self.label is None else self.label[rows]
        parts = (self.event_id[rows], self.mass[rows], self.features[rows], self.weight[rows])
        return FeatureTable(*parts, label, self.names)

    def only(self, columns: np.ndarray) -> FeatureTable:
        """The features of a (d,) mask."""
        names = tuple(name for name, kept in zip(self.names, columns, strict=True) if kept)
        return replace(self, features=self.features[:, columns], names=names)


def numbers(table: pa.Table, column: str, source: str | Path, first: int = 0) -> np.ndarray:
    """A column as float64; text, a missing value, NaN or infinity is a `UserError` naming column and row."""
    values = table[column]
    if not (pa.types.is_floating(values.type) or pa.types.is_integer(values.type) or pa.types.is_boolean(values.type)):
        raise UserError(f"{source}: column {column!r} has type {values.type}, expected numbers")
    if values.null_count:
        row = first + int(np.flatnonzero(values.is_null().to_numpy())[0])
        raise UserError(f"{source}: column {column!r}, row {row}: the value is missing")
    array = values.to_numpy().astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(array))
    if len(bad):
        raise UserError(f"{source}: column {column!r}, row {first + int(bad[0])}: {array[bad[0]]} is not finite")
    return array


def feature_columns(
    table: pa.Table, columns: Columns, names: Sequence[str], source: str | Path, first: int
) -> pa.Table:
    """One chunk as a plain table: ``event_id`` int64, ``mass``, ``weight`` and every feature float64, ``label`` bool.

    Raises:
        UserError: missing or not numeric columns, NaN, negative weights, labels other than 0 and 1; one line naming
            file, column and row.
    """

    def column(name: str | int) -> np.ndarray:
        return numbers(table, resolve(name, names, source), source, first)

    result = {}
    if columns.event_id is None:
        result["event_id"] = np.arange(first, first + table.num_rows)
    else:
        result["event_id"] = table[resolve(columns.event_id, names, source)].to_numpy().astype(np.int64)
    result["mass"] = column(columns.mass) * columns.mass_scale
    weight = np.ones(table.num_rows) if columns.weight is None else column(columns.weight)
    if len(weight) and weight.min() < 0:
        row = int(np.argmax(weight < 0))
        raise UserError(f"{source}: column {columns.weight!r}, row {first + row}: the weight {weight[row]} is negative")
    result["weight"] = weight
    for feature in columns.features:
        result[resolve(feature, names, source)] = column(feature)
    if columns.label is not None:
        result["label"] = as_labels(column(columns.label), str(columns.label), source, first)
    return pa.table(result)


def as_labels(values: np.ndarray, name: str, source: str | Path, first: int = 0) -> np.ndarray:
    """Labels as bool; anything but 0 and 1 is a `UserError`."""
    bad = np.flatnonzero((values != 0) & (values != 1))
    if len(bad):
        raise UserError(f"{source}: column {name!r}, row {first + int(bad[0])}: label {values[bad[0]]:g} is not 0 or 1")
    return values == 1


def needed(columns: Columns, names: Sequence[str], source: str | Path) -> list[str]:
    """The columns of the file that a mapping reads."""
    wanted = [columns.mass, *columns.features, columns.label, columns.weight, columns.event_id]
    return list(dict.fromkeys(resolve(c, names, source) for c in wanted if c is not None))


def read_features(path: str | Path, source: Source, columns: Columns) -> FeatureTable:
    """A whole file as a feature table, read chunk by chunk.

    Raises:
        UserError: a file that cannot be read, a bad value, a duplicated event id, or no event at all.
    """
    path = Path(path)
    reader = reader_for(path, source)
    names = reader.names(path, source)
    wanted = needed(columns, names, path)
    parts = [feature_columns(t, columns, names, path, first) for first, t in chunks(reader, path, source, wanted)]
    if not parts:
        raise UserError(f"{path}: the file holds no events")
    return to_arrays(pa.concat_tables(parts), path)


def to_arrays(table: pa.Table, source: str | Path) -> FeatureTable:
    """The arrays of a plain table made by `feature_columns`; a duplicated id is a `UserError`."""
    own = ("event_id", "mass", "weight", "label")
    names = tuple(name for name in table.column_names if name not in own)
    ids = table["event_id"].to_numpy()
    _check_unique(ids, source)
    label = table["label"].to_numpy(zero_copy_only=False) if "label" in table.column_names else None
    features = np.stack([table[name].to_numpy() for name in names], axis=1)
    return FeatureTable(ids, table["mass"].to_numpy(), features, table["weight"].to_numpy(), label, names)


def _check_unique(ids: np.ndarray, source: str | Path) -> None:
    unique, firsts = np.unique(ids, return_index=True)
    if len(unique) != len(ids):
        row = int(np.setdiff1d(np.arange(len(ids)), firsts)[0])
        raise UserError(f"{source}: column 'event_id', row {row}: {ids[row]} occurs more than once")
