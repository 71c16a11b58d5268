"""A user's files as one stream of event or feature tables, and as Parquet files (`raypipe read`).

Pieces are fixed (file, row range) pairs, a function of the files and `Source.chunk_rows` alone, and the stream keeps
their order: the result does not depend on how many workers there are, and no process ever holds more than a piece.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from raypipe.config.read import Columns, EventSource, Source
from raypipe.errors import UserError
from raypipe.events.readers.base import chunks, pieces, resolve
from raypipe.events.readers.features import FeatureTable, event_ids, feature_columns, needed, to_arrays, with_ids
from raypipe.events.readers.registry import file_format, reader_for
from raypipe.events.schema import EVENT_SCHEMA
from raypipe.fit.classifier import Mapper
from raypipe.simulate.imported import diphoton_table

EVENT_FORMATS = ("delphes", "nanoaod")
"""Formats of whole events; the others are feature tables."""


@dataclass(frozen=True)
class Piece:
    """Some consecutive events of one file."""

    file: int
    path: str
    start: int
    stop: int
    first_id: int
    """Id of the file's first event, where the file has no ids of its own."""


@dataclass(frozen=True)
class Plan:
    """All pieces, and the files that could not even be opened."""

    paths: tuple[str, ...]
    pieces: list[Piece]
    rows: dict[int, int]
    """Events by file number."""
    failed: dict[int, str]
    """Reason by file number."""
    id_type: pa.DataType
    """Of the event ids: int64, or uint64 where a file has ids beyond 2^63 - 1."""

    @property
    def files(self) -> tuple[tuple[str, int], ...]:
        """Path and number of events of the files that can be read: ids that are places count through them."""
        return tuple((self.paths[number], rows) for number, rows in sorted(self.rows.items()))


def plan_read(
    paths: Sequence[str | Path], source: Source, columns: Columns | None = None, *, skip: bool = False
) -> Plan:
    """Open every file once and cut it into pieces.

    Raises:
        UserError: a file that cannot be opened, lacks one of the ``columns`` or is empty of events, unless ``skip``.
    """
    found: list[Piece] = []
    rows: dict[int, int] = {}
    failed: dict[int, str] = {}
    first_id, id_type = 0, pa.int64()
    for number, path in enumerate(map(str, paths)):
        try:
            reader = reader_for(path, source)
            rows[number] = reader.rows(Path(path), source)
            if columns is not None and file_format(path, source) not in EVENT_FORMATS:
                needed(columns, reader.names(Path(path), source), path)
                id_type = pa.uint64() if _large_ids(Path(path), source, columns) else id_type
            if not rows[number]:
                raise UserError(f"{path}: the file holds no events")
        except UserError as error:
            if not skip:
                raise
            rows.pop(number, None)
            failed[number] = str(error)
            continue
        ranges = pieces(rows[number], source.chunk_rows)
        found += [Piece(number, path, start, stop, first_id) for start, stop in ranges]
        first_id += rows[number]
    return Plan(tuple(map(str, paths)), found, rows, failed, id_type)


def _large_ids(path: Path, source: Source, columns: Columns) -> bool:
    """Whether a file has ids beyond 2^63 - 1. What is wrong with its ids is told by the piece that reads them."""
    if columns.event_id is None:
        return False
    reader = reader_for(path, source)
    name = resolve(columns.event_id, reader.names(path, source), path)
    with contextlib.suppress(UserError):
        return any(
            event_ids(t, name, path, first).dtype == np.uint64 for first, t in chunks(reader, path, source, [name])
        )
    return False


class ReadPiece:
    """One piece as an Arrow table: event table for Delphes and NanoAOD, else the feature table of ``columns``."""

    def __init__(self, source: Source, columns: Columns | None) -> None:
        self.source, self.columns = source, columns

    def __call__(self, piece: Piece) -> pa.Table:
        path = Path(piece.path)
        if file_format(path, self.source) in EVENT_FORMATS:
            source = EventSource.model_validate(self.source.model_dump())
            batch = reader_for(path, source).objects(path, source, piece.start, piece.stop)
            return diphoton_table(batch, source, first=piece.first_id + piece.start)[0]
        if self.columns is None:
            raise UserError(f"{path}: say which column is what (columns.mass, columns.features)")
        reader = reader_for(path, self.source)
        names = reader.names(path, self.source)
        table = reader.read(path, self.source, piece.start, piece.stop, needed(self.columns, names, path))
        made = feature_columns(table, self.columns, names, path, piece.start, self.source.weights)
        if self.columns.event_id is None:
            ids = pa.array(np.arange(piece.first_id + piece.start, piece.first_id + piece.stop))
            made = made.set_column(made.schema.get_field_index("event_id"), "event_id", ids)
        return made

    def schema(self, plan: Plan) -> pa.Schema:
        """What every piece of the plan looks like, from its first file."""
        first = plan.pieces[0]
        if file_format(first.path, self.source) in EVENT_FORMATS:
            return EVENT_SCHEMA
        if self.columns is None:
            raise UserError(f"{first.path}: say which column is what (columns.mass, columns.features)")
        names = reader_for(first.path, self.source).names(Path(first.path), self.source)
        features = [resolve(f, names, first.path) for f in self.columns.features]
        kinds = {"event_id": plan.id_type, "mass": pa.float64(), "weight": pa.float64()}
        kinds |= dict.fromkeys(features, pa.float64())
        return pa.schema(list((kinds | ({} if self.columns.label is None else {"label": pa.bool_()})).items()))


def _cast(table: pa.Table, schema: pa.Schema, path: str) -> pa.Table:
    if table.column_names != schema.names:
        raise UserError(
            f"{path}: columns {', '.join(table.column_names)} differ from the first file's {', '.join(schema.names)}"
        )
    table = with_ids(table, schema.field("event_id").type, path) if "event_id" in schema.names else table
    return table.cast(schema)


class _Part:
    """What a worker makes of a piece: (number of its file, table, why it cannot be read).

    The reader of the stream, not a worker far away, decides what a bad file means.
    """

    def __init__(self, read: ReadPiece, schema: pa.Schema) -> None:
        self.read, self.schema = read, schema

    def __call__(self, piece: Piece) -> tuple[int, pa.Table, str | None]:
        try:
            return piece.file, _cast(self.read(piece), self.schema, piece.path), None
        except UserError as reason:
            return piece.file, self.schema.empty_table(), str(reason)


def batches(
    plan: Plan, source: Source, columns: Columns | None = None, mapper: Mapper = map
) -> Iterable[tuple[int, pa.Table, str | None]]:
    """All pieces as (file number, table, reason why it could not be read), in the order of the plan.

    Args:
        mapper: reads the pieces, a few ahead of what is taken: here, or on many cores (`tasks.spread`).
    """
    read = ReadPiece(source, columns)
    return mapper(_Part(read, read.schema(plan)), plan.pieces)


def check_columns(paths: Sequence[str], source: Source, columns: Columns | None) -> None:
    """Refuse feature files that are not there or lack a column, before any of them is read.

    Raises:
        UserError: naming file and column.
    """
    for path in paths if columns is not None else ():
        if file_format(path, source) not in EVENT_FORMATS:
            needed(columns, reader_for(path, source).names(Path(path), source), path)


def collect(paths: Sequence[str], source: Source, columns: Columns, mapper: Mapper = map) -> FeatureTable:
    """All events of feature files in memory.

    Raises:
        UserError: a file that cannot be read, a bad value, a duplicated event id.
    """
    parts, plan = [], plan_read(paths, source, columns)
    for _, table, reason in batches(plan, source, columns, mapper):
        if reason is not None:
            raise UserError(reason)
        parts.append(table)
    made = to_arrays(pa.concat_tables(parts), ", ".join(paths))
    return replace(made, place=np.arange(len(made)), files=plan.files)
