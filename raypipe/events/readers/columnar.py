"""Parquet, text and NumPy tables."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from raypipe.config.read import Source
from raypipe.errors import UserError
from raypipe.events.fields import fields, native
from raypipe.events.header import distinct
from raypipe.events.readers.base import check_file, readable
from raypipe.events.table import count_rows, read_rows, read_schema
from raypipe.events.text import TextTable, open_text


class ParquetReader:
    """`raypipe.events.readers.base.Reader` of Parquet; only the row groups of the range are read."""

    def rows(self, path: Path, source: Source) -> int:
        return count_rows(check_file(path))

    def names(self, path: Path, source: Source) -> list[str]:
        return list(distinct(read_schema(check_file(path)).names))

    def read(self, path: Path, source: Source, start: int, stop: int, columns: Sequence[str]) -> pa.Table:
        plain = read_schema(path).names
        names = distinct(plain)
        asked = {plain[names.index(name)] for name in columns}
        table = read_rows(path, [name for name in dict.fromkeys(plain) if name in asked], start, stop)
        return table.rename_columns(distinct(table.column_names)).select(list(columns))


class CsvReader:
    """`raypipe.events.readers.base.Reader` of text tables: see `raypipe.events.text`."""

    def rows(self, path: Path, source: Source) -> int:
        return len(self._open(path))

    def names(self, path: Path, source: Source) -> list[str]:
        return self._open(path).names

    def read(self, path: Path, source: Source, start: int, stop: int, columns: Sequence[str]) -> pa.Table:
        with readable(path, "text"):
            return self._open(path).read(start, stop, columns)

    def _open(self, path: Path) -> TextTable:
        with readable(check_file(path), "text"):
            return open_text(path)


class NumpyReader:
    """`raypipe.events.readers.base.Reader` of .npy files. Pickled objects are refused."""

    def _open(self, path: Path) -> np.ndarray:
        with readable(check_file(path), "NumPy"):
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise UserError(f"{path}: an archive of several arrays; save the one table as .npy")
        if array.dtype.names is None and (array.ndim != 2 or array.dtype.kind not in "fiub"):
            told = f"of shape {array.shape} and type {array.dtype}, expected numbers of shape (events, columns)"
            raise UserError(f"{path}: an array {told}")
        return array

    def rows(self, path: Path, source: Source) -> int:
        return len(self._open(path))

    def names(self, path: Path, source: Source) -> list[str]:
        array = self._open(path)
        return list(fields(array[:0])) if array.dtype.names else list(map(str, range(array.shape[1])))

    def read(self, path: Path, source: Source, start: int, stop: int, columns: Sequence[str]) -> pa.Table:
        part = self._open(path)[start:stop]
        found = fields(part) if part.dtype.names else {str(k): part[:, k] for k in range(part.shape[1])}
        return pa.table({name: native(found[name]) for name in columns})
