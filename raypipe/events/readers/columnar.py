"""Parquet and text tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from raypipe.config.read import Source
from raypipe.events.header import distinct
from raypipe.events.readers.base import check_file, readable
from raypipe.events.text import open_text


class ParquetReader:
    """`raypipe.events.readers.base.Reader` of Parquet; only the row groups of the range are read."""

    def rows(self, path: Path, source: Source) -> int:
        """Events, from the footer."""
        with readable(check_file(path), "Parquet"):
            return pq.read_metadata(path).num_rows

    def names(self, path: Path, source: Source) -> list[str]:
        """Columns."""
        with readable(check_file(path), "Parquet"):
            return list(distinct(pq.read_schema(path).names))

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
            names = file.schema_arrow.names
            wanted = distinct(names) if columns is None else columns
            plain = {names[distinct(names).index(name)] for name in wanted}
            table = file.read_row_groups(groups, columns=[name for name in dict.fromkeys(names) if name in plain])
            table = table.rename_columns(distinct(table.column_names)).select(list(wanted))
            return table.slice(start - (offset or 0), stop - start)


class CsvReader:
    """`raypipe.events.readers.base.Reader` of text tables: see `raypipe.events.text`."""

    def rows(self, path: Path, source: Source) -> int:
        """Events, by counting."""
        with readable(check_file(path), "text"):
            return len(open_text(path))

    def names(self, path: Path, source: Source) -> list[str]:
        """The header, or the places of the columns."""
        with readable(check_file(path), "text"):
            return open_text(path).names

    def read(self, path: Path, source: Source, start: int, stop: int, columns: Sequence[str] | None) -> pa.Table:
        """The lines of the range, each column typed from its text."""
        with readable(check_file(path), "text"):
            return open_text(path).read(start, stop, columns)
