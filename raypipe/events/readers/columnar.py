"""Parquet and text tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from raypipe.config.read import Source
from raypipe.events.header import distinct
from raypipe.events.readers.base import check_file, readable
from raypipe.events.table import count_rows, read_rows, read_schema
from raypipe.events.text import open_text


class ParquetReader:
    """`raypipe.events.readers.base.Reader` of Parquet; only the row groups of the range are read."""

    def rows(self, path: Path, source: Source) -> int:
        return count_rows(check_file(path))

    def names(self, path: Path, source: Source) -> list[str]:
        return list(distinct(read_schema(check_file(path)).names))

    def read(self, path: Path, source: Source, start: int, stop: int, columns: Sequence[str] | None) -> pa.Table:
        plain = read_schema(path).names
        names = distinct(plain)
        wanted = names if columns is None else columns
        asked = {plain[names.index(name)] for name in wanted}
        table = read_rows(path, [name for name in dict.fromkeys(plain) if name in asked], start, stop)
        return table.rename_columns(distinct(table.column_names)).select(list(wanted))


class CsvReader:
    """`raypipe.events.readers.base.Reader` of text tables: see `raypipe.events.text`."""

    def rows(self, path: Path, source: Source) -> int:
        with readable(check_file(path), "text"):
            return len(open_text(path))

    def names(self, path: Path, source: Source) -> list[str]:
        with readable(check_file(path), "text"):
            return open_text(path).names

    def read(self, path: Path, source: Source, start: int, stop: int, columns: Sequence[str] | None) -> pa.Table:
        with readable(check_file(path), "text"):
            return open_text(path).read(start, stop, columns)
