"""NumPy arrays: (events, columns) matrices or structured arrays in .npy files, memory-mapped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from raypipe.config.read import Source
from raypipe.errors import UserError
from raypipe.events.fields import fields, native
from raypipe.events.readers.base import check_file, readable


class NumpyReader:
    """`raypipe.events.readers.base.Reader` of .npy files. Pickled objects are refused."""

    def _open(self, path: Path) -> np.ndarray:
        with readable(check_file(path), "NumPy"):
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise UserError(f"{path}: an archive of several arrays; save the one table as .npy")
        if array.dtype.names is None and (array.ndim != 2 or array.dtype.kind not in "fiub"):
            raise UserError(
                f"{path}: an array of shape {array.shape} and type {array.dtype}, expected numbers of shape "
                "(events, columns)"
            )
        return array

    def rows(self, path: Path, source: Source) -> int:
        return len(self._open(path))

    def names(self, path: Path, source: Source) -> list[str]:
        array = self._open(path)
        return list(fields(array[:0])) if array.dtype.names else list(map(str, range(array.shape[1])))

    def read(self, path: Path, source: Source, start: int, stop: int, columns: Sequence[str] | None) -> pa.Table:
        part = self._open(path)[start:stop]
        found = fields(part) if part.dtype.names else {str(k): part[:, k] for k in range(part.shape[1])}
        return pa.table({name: native(found[name]) for name in (found if columns is None else columns)})
