"""A user's files as one stream of event or feature tables, and as Parquet files (`raypipe read`).

Pieces are (file, row range) pairs, a function of the files and `Source.chunk_rows` alone, and the stream keeps their
order: the result does not depend on the number of workers, and no process holds more than a piece.
"""

import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from raypipe.config.read import Columns, EventSource, Source
from raypipe.errors import UserError
from raypipe.events.readers.base import chunks, pieces, resolve
from raypipe.events.readers.features import FeatureTable, event_ids, feature_columns, needed, to_arrays, with_ids
from raypipe.events.readers.pairs import THERE
from raypipe.events.readers.registry import file_format, is_url, reader_for
from raypipe.events.schema import EVENT_SCHEMA
from raypipe.fit.classifier import Mapper

PAUSE = 1.0  # Seconds until the first new try of `again`; each further one waits twice as long
EVENT_FORMATS = ("delphes", "nanoaod")  # Formats of whole events; the others are feature tables


@dataclass(frozen=True)
class Piece:
    """Some consecutive events of one file."""

    file: int
    path: str
    start: int
    stop: int
    first_id: int  # Id of the file's first event, where the file has no ids of its own


@dataclass(frozen=True)
class Plan:
    """All pieces, and the files that could not even be opened."""

    paths: tuple[str, ...]
    pieces: list[Piece]
    rows: dict[int, int]  # Events by file number
    failed: dict[int, str]  # Reason by file number
    schema: pa.Schema  # Of every piece: that of the first file, with uint64 ids where a file has ids beyond 2^63 - 1

    @property
    def files(self) -> tuple[tuple[str, int], ...]:
        """Path and number of events of the files that can be read: ids that are places count through them."""
        return tuple((self.paths[number], rows) for number, rows in sorted(self.rows.items()))


def plan_read(
    paths: Sequence[str | Path], source: Source, columns: Columns | None = None, *, skip: bool = False, retries: int = 0
) -> Plan:
    """Open every file once and cut it into pieces; one that is empty or cannot be used is a `UserError`, or skipped.

    ``retries``: see `again`.
    """
    found, rows, failed = [], {}, {}
    first_id, id_type = 0, pa.int64()
    for number, path in enumerate(map(str, paths)):
        try:
            count, large = again(partial(_opened, path, source, columns), path, retries)
            id_type = pa.uint64() if large else id_type
            if not count:
                raise UserError(f"{path}: the file holds no events")
        except UserError as error:
            if not skip:
                raise
            failed[number] = str(error)
            continue
        found += [Piece(number, path, start, stop, first_id) for start, stop in pieces(count, source.chunk_rows)]
        rows[number] = count
        first_id += count
    wanted = partial(_schema, found[0].path, source, columns, id_type) if found else None
    schema = pa.schema([]) if wanted is None else again(wanted, found[0].path, retries)
    return Plan(tuple(map(str, paths)), found, rows, failed, schema)


def again(call: Callable[[], Any], path: str, retries: int) -> Any:
    """What ``call`` returns; after an error in reading behind a URL it is called anew, ``retries`` times at most."""
    for number in range(retries + 1):
        try:
            return call()
        except UserError as error:
            # fsspec may hand an error on as data, so that it comes to light as another; an absent file stays absent.
            if number == retries or not is_url(path) or isinstance(error.__cause__, FileNotFoundError | None):
                raise
            time.sleep(PAUSE * 2**number)


def _opened(path: str, source: Source, columns: Columns | None) -> tuple[int, bool]:
    """Events of a file, and whether it has ids beyond 2^63 - 1; a missing column is a `UserError`."""
    reader, large = reader_for(path, source), False
    count = reader.rows(path, source)
    check_columns([path], source, columns)
    if columns is not None and columns.event_id is not None and file_format(path, source) not in EVENT_FORMATS:
        name = resolve(columns.event_id, reader.names(path, source), path)
        with contextlib.suppress(UserError):  # what is wrong with its ids is told by the piece that reads them
            parts = chunks(reader, path, source, [name])
            large = any(event_ids(part, name, path, first).dtype == np.uint64 for first, part in parts)
    return count, large


def _schema(path: str, source: Source, columns: Columns | None, id_type: pa.DataType) -> pa.Schema:
    """Of an event table for Delphes and NanoAOD, else of the feature table of ``columns``."""
    if file_format(path, source) in EVENT_FORMATS:
        return EVENT_SCHEMA
    if columns is None:
        raise UserError(f"{path}: say which column is what (columns.mass, columns.features)")
    names = reader_for(path, source).names(path, source)
    features = [resolve(feature, names, path) for feature in columns.features]
    kinds = {"event_id": id_type, "mass": pa.float64(), "weight": pa.float64(), **dict.fromkeys(features, pa.float64())}
    return pa.schema([*kinds.items(), *([] if columns.label is None else [("label", pa.bool_())])])


@dataclass(frozen=True)
class _Read:
    """What a worker makes of a piece: (number of its file, table of ``schema``, why it cannot be read)."""

    source: Source
    columns: Columns | None
    schema: pa.Schema
    retries: int = 0  # See `again`

    def __call__(self, piece: Piece) -> tuple[int, pa.Table, str | None]:
        try:
            table = again(partial(self._table, piece), piece.path, self.retries)
            found, first = table.column_names, self.schema.names
            if found != first:
                told = f"columns {', '.join(found)} differ from the first file's {', '.join(first)}"
                raise UserError(f"{piece.path}: {told}")
            if "event_id" in first:
                table = with_ids(table, self.schema.field("event_id").type, piece.path)
            return piece.file, table.cast(self.schema), None
        except UserError as reason:
            return piece.file, self.schema.empty_table(), str(reason)

    def _table(self, piece: Piece) -> pa.Table:
        path = piece.path
        if file_format(path, self.source) in EVENT_FORMATS:
            from raypipe.simulate.table import diphoton_table  # needs awkward, which feature tables do not

            source = EventSource.model_validate(self.source.model_dump())
            batch = reader_for(path, source).objects(path, source, piece.start, piece.stop)
            return diphoton_table(batch, source, first=piece.first_id + piece.start)[0]
        if (columns := self.columns) is None:
            raise UserError(f"{path}: say which column is what (columns.mass, columns.features)")
        reader = reader_for(path, self.source)
        names = reader.names(path, self.source)
        wanted, paired = needed(columns, names, path), [THERE] if self.source.pairs else []
        table = reader.read(path, self.source, piece.start, piece.stop, [*wanted, *paired])
        made = feature_columns(table, columns, names, path, piece.start, self.source.weights)
        if columns.event_id is None:
            ids = pa.array(np.arange(piece.first_id + piece.start, piece.first_id + piece.stop))
            made = made.set_column(made.schema.get_field_index("event_id"), "event_id", ids)
        return made.filter(table[THERE]) if paired else made


def batches(
    plan: Plan, source: Source, columns: Columns | None = None, mapper: Mapper = map, retries: int = 0
) -> Iterable[tuple[int, pa.Table, str | None]]:
    """All pieces as (file number, table, reason why it could not be read), in the order of the plan.

    ``mapper`` reads the pieces, a few ahead of what is taken: here, or on many cores (`tasks.spread`).
    """
    return mapper(_Read(source, columns, plan.schema, retries), plan.pieces)


def check_columns(paths: Sequence[str], source: Source, columns: Columns | None) -> None:
    """Refuse feature files that are not there or lack a column, before any of them is read."""
    for path in paths if columns is not None else ():
        if file_format(path, source) not in EVENT_FORMATS:
            needed(columns, reader_for(path, source).names(path, source), path)


def collect(paths: Sequence[str], source: Source, columns: Columns, mapper: Mapper = map) -> FeatureTable:
    """All events of feature files in memory."""
    parts, plan = [], plan_read(paths, source, columns)
    for _, table, reason in batches(plan, source, columns, mapper):
        if reason is not None:
            raise UserError(reason)
        parts.append(table)
    made = to_arrays(pa.concat_tables(parts), ", ".join(paths))
    return replace(made, place=np.arange(len(made)), files=plan.files)
