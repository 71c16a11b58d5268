"""From a user's columns to a feature table: mass, features, weight, label, id, checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa

from raypipe.config.read import Columns
from raypipe.errors import UserError
from raypipe.events.fields import Rows
from raypipe.events.header import is_number
from raypipe.events.readers.base import resolve
from raypipe.events.schema import refuse_repeated
from raypipe.events.signed import SOURCE, refuse_negative
from raypipe.events.text import at_line, is_text, not_a_number, open_text
from raypipe.events.twins import first_twin, rows_of_files, settle

OWN = ("event_id", "mass", "weight", "label")  # What a feature table holds beside the features


@dataclass(frozen=True)
class FeatureTable(Rows):
    """Events as arrays: ``mass`` (n,) float64 in the unit of the window, ``features`` (n, d) float64 called ``names``.

    ``weight``: (n,), negative only where the source says so. ``label``: (n,) bool, True for signal, or None. ``place``:
    (n,) in the ``files`` (path and number of events), counted through all of them.
    """

    event_id: np.ndarray
    mass: np.ndarray
    features: np.ndarray
    weight: np.ndarray
    label: np.ndarray | None
    names: tuple[str, ...]
    place: np.ndarray | None = None
    files: tuple[tuple[str, int], ...] = ()

    def distinct(self, policy: str | None, source: str, option: str) -> tuple[FeatureTable, int]:
        """The table with or without repeated events, see `raypipe.events.twins.settle`, and how many there are."""
        first = first_twin(np.c_[self.mass, self.features])
        place = np.arange(len(self)) if self.place is None else self.place
        name = rows_of_files(self.files or [(source, len(self))])
        kept = settle(first, policy, lambda row: name(place[row]), option)
        return self.take(kept) if not kept.all() else self, int((first != np.arange(len(first))).sum())

    def only(self, columns: np.ndarray) -> FeatureTable:
        """The features of a (d,) mask."""
        names = tuple(name for name, kept in zip(self.names, columns, strict=True) if kept)
        return replace(self, features=self.features[:, columns], names=names)


def numbers(table: pa.Table, column: str, source: str | Path, first: int = 0) -> np.ndarray:
    """A column as float64; text, a missing value, NaN or infinity is a `UserError` naming column and row."""
    values = table[column]
    kind = values.type
    numeric = (pa.types.is_floating, pa.types.is_integer, pa.types.is_boolean, pa.types.is_decimal)
    if not any(is_kind(kind) for is_kind in numeric):
        told = ""
        if is_text(source) and pa.types.is_string(kind):  # one cell makes it so
            row = not_a_number(values.to_pylist()) or 0
            told = f": row {first + row} holds {values[row].as_py()!r}{at_line(source, first + row)}"
        raise UserError(f"{source}: column {column!r} has type {kind}, expected numbers{told}")
    _refuse_missing(values, column, source, first)
    array = values.to_numpy().astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(array))
    if len(bad):
        row = first + int(bad[0])
        raise UserError(f"{source}: column {column!r}, row {row}: {array[bad[0]]} is not finite{at_line(source, row)}")
    return array


def event_ids(table: pa.Table, column: str, source: str | Path, first: int = 0) -> np.ndarray:
    """A column as exact integers, int64 or uint64; any other value is a `UserError` with its row."""
    values = table[column]
    _refuse_missing(values, column, source, first)
    if pa.types.is_integer(values.type):
        ids = values.to_numpy()
    else:  # floats from text may have been exact integers there
        from_text = is_text(source) and table.num_rows
        cells = open_text(source).cells(first, first + table.num_rows, [column])[column] if from_text else values
        exact = {pa.float16(): 2**11, pa.float32(): 2**24}.get(values.type, 2**53)
        found = [_whole(cell, exact) for cell in cells.to_pylist()]
        if None in found:
            row = found.index(None)
            told = f"{cells[row].as_py()!r} is no event id: write integers below 2^64, stored as integers"
            raise UserError(f"{source}: column {column!r}, row {first + row}: {told}{at_line(source, first + row)}")
        ids = np.array(found, dtype=object)
    large = bool(len(ids)) and ids.max() >= 2**63
    if large and ids.min() < 0:
        row = first + int(np.argmin(ids))
        told = f"{ids.min()} is negative, beside ids beyond 2^63"
        raise UserError(f"{source}: column {column!r}, row {row}: {told}{at_line(source, row)}")
    return ids.astype(np.uint64 if large else np.int64)


def _whole(cell: object, exact: int) -> int | None:
    """The integer that a cell is, or None; of floats only those below ``exact`` in size are certain."""
    if isinstance(cell, str) and cell.lstrip("+-").isdecimal():
        cell = int(cell)
    elif isinstance(cell, str | float):
        value = float(cell) if is_number(cell) else np.nan
        cell = int(value) if abs(value) < exact and value == int(value) else None
    elif isinstance(cell, Decimal):
        cell = int(cell) if cell == int(cell) else None
    is_integer = isinstance(cell, int) and not isinstance(cell, bool)
    return cell if is_integer and -(2**63) <= cell < 2**64 else None


def _refuse_missing(values: pa.ChunkedArray, column: str, source: str | Path, first: int) -> None:
    if values.null_count:
        row = first + int(np.flatnonzero(values.is_null().to_numpy())[0])
        raise UserError(f"{source}: column {column!r}, row {row}: the value is missing{at_line(source, row)}")


def feature_columns(
    table: pa.Table, columns: Columns, names: Sequence[str], source: str | Path, first: int, weights: str = "file"
) -> pa.Table:
    """One chunk as a plain table: ``event_id`` an integer, ``mass``, ``weight``, features float64, ``label`` bool.

    Values that cannot be used are a `UserError` naming file, column and row; ``weights``: see `Source.weights`.
    """

    def column(name: str | int) -> np.ndarray:
        return numbers(table, resolve(name, names, source), source, first)

    result = {"event_id": np.arange(first, first + table.num_rows)}
    if columns.event_id is not None:
        result["event_id"] = event_ids(table, resolve(columns.event_id, names, source), source, first)
    result["mass"] = column(columns.mass) * columns.mass_scale
    weight = np.ones(table.num_rows) if columns.weight is None or weights == "one" else column(columns.weight)
    place = lambda row, w: f"{source}: column {columns.weight!r}, row {first + row}: the weight {w}"  # noqa: E731
    refuse_negative(weight, weights, SOURCE, place)
    result["weight"] = weight
    for feature in columns.features:
        name = resolve(feature, names, source)
        if name in OWN:
            raise UserError(f"{source}: a feature is called {name!r}, as a column of every table is: rename it")
        result[name] = column(feature)
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


def with_ids(table: pa.Table, kind: pa.DataType, source: str | Path) -> pa.Table:
    """The table with ``event_id`` of the type that the ids of all pieces need: see `event_ids`."""
    try:
        ids = table["event_id"].cast(kind)
    except pa.ArrowInvalid as problem:
        raise UserError(f"{source}: column 'event_id': a negative id, beside ids beyond 2^63") from problem
    return table.set_column(table.schema.get_field_index("event_id"), "event_id", ids)


def to_arrays(table: pa.Table, source: str | Path) -> FeatureTable:
    """The arrays of a plain table made by `feature_columns`; a duplicated id is a `UserError`."""
    names = tuple(name for name in table.column_names if name not in OWN)
    ids = table["event_id"].to_numpy()
    refuse_repeated(ids, source)
    label = table["label"].to_numpy(zero_copy_only=False) if "label" in table.column_names else None
    features = np.stack([table[name].to_numpy() for name in names], axis=1)
    return FeatureTable(ids, table["mass"].to_numpy(), features, table["weight"].to_numpy(), label, names)
