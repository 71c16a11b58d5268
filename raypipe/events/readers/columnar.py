"""Parquet and CSV."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from raypipe.config.read import Source
from raypipe.events.readers.base import check_file, readable


class ParquetReader:
    """`raypipe.events.readers.base.Reader` of Parquet; only the row groups of the range are read."""

    def rows(self, path: Path, source: Source) -> int:
        """Events, from the footer."""
        with readable(check_file(path), "Parquet"):
            return pq.read_metadata(path).num_rows

    def names(self, path: Path, source: Source) -> list[str]:
        """Columns."""
        with readable(check_file(path), "Parquet"):
            return pq.read_schema(path).names

    def read(self, path: Path, source: Source, start: int, stop: int, columns: Sequence[str] | None) -> pa.Table:
        """The row groups that overlap the range, cut to it."""
        with readable(check_file(path), "Parquet"), pq.ParquetFile(path) as file:
            first, groups, offset = 0, [], None
            for group in range(file.num_row_groups):
                size = file.metadata.row_group(group).num_rows
                if first < stop and first + size > start:
                    groups.append(group)
                    offset = first if offset is None else offset
                first += size
            table = file.read_row_groups(groups, columns=None if columns is None else list(columns))
            return table.slice(start - (offset or 0), stop - start)


class CsvReader:
    """`raypipe.events.readers.base.Reader` of CSV with a header line, streamed: a range is reached by reading on."""

    def rows(self, path: Path, source: Source) -> int:
        """Events, by counting."""
        names = self.names(path, source)
        text = dict.fromkeys(names, pa.string())  # counting needs no types, and must not stumble over them
        with readable(check_file(path), "CSV"), self._open(path, names[:1], text) as stream:
            return sum(batch.num_rows for batch in stream)

    def names(self, path: Path, source: Source) -> list[str]:
        """The header line."""
        with readable(check_file(path), "CSV"), self._open(path, None) as stream:
            return stream.schema.names

    def read(self, path: Path, source: Source, start: int, stop: int, columns: Sequence[str] | None) -> pa.Table:
        """Batches are dropped up to the range and kept within it.

        Arrow takes the types from the first megabyte; where that looked like integers and is not, all are floats.
        """
        with readable(check_file(path), "CSV"):
            try:
                return self._range(path, start, stop, columns, {})
            except pa.ArrowInvalid:
                names = self.names(path, source) if columns is None else columns
                return self._range(path, start, stop, columns, dict.fromkeys(names, pa.float64()))

    def _range(
        self, path: Path, start: int, stop: int, columns: Sequence[str] | None, types: dict[str, pa.DataType]
    ) -> pa.Table:
        kept, first = [], 0
        with self._open(path, columns, types) as stream:
            for batch in stream:
                low, high = max(start - first, 0), min(stop - first, batch.num_rows)
                if low < high:
                    kept.append(batch.slice(low, high - low))
                first += batch.num_rows
                if first >= stop:
                    break
            return pa.Table.from_batches(kept, stream.schema)

    def _open(
        self, path: Path, columns: Sequence[str] | None, types: dict[str, pa.DataType] | None = None
    ) -> pc.CSVStreamingReader:
        wanted = None if columns is None else list(columns)
        convert = pc.ConvertOptions(include_columns=wanted, column_types=types or {})
        return pc.open_csv(path, pc.ReadOptions(use_threads=False), convert_options=convert)
