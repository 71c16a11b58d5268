"""A user's files as one Ray Data stream of event or feature tables, and as Parquet files (`raypipe read`).

Pieces are fixed (file, row range) pairs, a function of the files and `Source.chunk_rows` alone, and the stream keeps
their order: the result does not depend on how many workers there are, and no process ever holds more than a piece.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from raypipe.cluster.runtime import limit_threads
from raypipe.config.read import Columns, EventSource, Source
from raypipe.errors import UserError
from raypipe.events.readers.base import chunks, pieces, resolve
from raypipe.events.readers.features import FeatureTable, event_ids, feature_columns, needed, to_arrays, with_ids
from raypipe.events.readers.registry import file_format, reader_for
from raypipe.events.schema import EVENT_SCHEMA, tensor_column
from raypipe.simulate.imported import diphoton_table

EVENT_FORMATS = ("delphes", "nanoaod")
"""Formats of whole events; the others are feature tables."""

MARKS = [pa.field("_file", pa.int32()), pa.field("_error", pa.string())]
"""Columns of the raw stream: the file of a row; for a piece that could not be read, one row with the reason."""


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


def stream(plan: Plan, source: Source, columns: Columns | None = None) -> Any:
    """A Ray Data dataset of all events of the plan, in order. Ray must be running.

    Its rows have the columns of the table and `MARKS`: a piece that cannot be read is one row with the reason in
    ``_error``, so that the reader of the stream, not a worker far away, decides what a bad file means.
    """
    import ray

    read = ReadPiece(source, columns)
    schema = read.schema(plan)
    parts = plan.pieces

    def load(batch: pa.Table) -> pa.Table:
        limit_threads(1)
        return pa.concat_tables([_marked(read, parts[i], schema) for i in batch["id"].to_pylist()])

    ray.data.DataContext.get_current().execution_options.preserve_order = True
    numbers = ray.data.range(len(parts), override_num_blocks=len(parts))
    return numbers.map_batches(load, batch_size=1, batch_format="pyarrow", num_cpus=1)


def _marked(read: ReadPiece, piece: Piece, schema: pa.Schema) -> pa.Table:
    try:
        table, error = _cast(read(piece), schema, piece.path), None
    except UserError as reason:
        table, error = _blank(schema), str(reason)
    marks = (pa.array([value] * table.num_rows, f.type) for f, value in zip(MARKS, (piece.file, error), strict=True))
    for field, values in zip(MARKS, marks, strict=True):
        table = table.append_column(field, values)
    return table


def _cast(table: pa.Table, schema: pa.Schema, path: str) -> pa.Table:
    if table.column_names != schema.names:
        raise UserError(f"{path}: columns {', '.join(table.column_names)} differ from the first file's "
                        f"{', '.join(schema.names)}")  # fmt: skip
    table = with_ids(table, schema.field("event_id").type, path) if "event_id" in schema.names else table
    return table.cast(schema)


def _blank(schema: pa.Schema) -> pa.Table:
    """One row of zeros."""
    columns = []
    for field in schema:
        if isinstance(field.type, pa.FixedShapeTensorType):
            columns.append(tensor_column(np.zeros((1, *field.type.shape), field.type.value_type.to_pandas_dtype())))
        else:
            kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
            zero = "" if pa.types.is_string(kind) else False if pa.types.is_boolean(kind) else 0
            columns.append(pa.array([zero], kind).cast(field.type))
    return pa.Table.from_arrays(columns, schema=schema)


def batches(plan: Plan, source: Source, columns: Columns | None = None) -> Iterator[tuple[int, pa.Table, str | None]]:
    """The stream as (file number, table, reason why a piece of it could not be read), in the order of the plan."""
    schema = ReadPiece(source, columns).schema(plan)
    for block in stream(plan, source, columns).iter_batches(batch_format="pyarrow", batch_size=None):
        files = block["_file"].to_numpy()
        edges = np.flatnonzero(np.r_[True, files[1:] != files[:-1], True]) if len(files) else [0]
        for start, stop in pairwise(edges):
            part = block.slice(start, stop - start)
            reasons = [reason for reason in part["_error"].to_pylist() if reason is not None]
            table = part.select(schema.names).cast(schema)
            yield int(files[start]), table, reasons[0] if reasons else None


def collect(paths: Sequence[str], source: Source, columns: Columns) -> FeatureTable:
    """All events of feature files in memory. Ray must be running.

    Raises:
        UserError: a file that cannot be read, a bad value, a duplicated event id.
    """
    parts, plan = [], plan_read(paths, source, columns)
    for _, table, reason in batches(plan, source, columns):
        if reason is not None:
            raise UserError(reason)
        parts.append(table)
    made = to_arrays(pa.concat_tables(parts), ", ".join(paths))
    return replace(made, place=np.arange(len(made)), files=plan.files)
