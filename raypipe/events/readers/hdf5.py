"""HDF5: a matrix, a group of columns, or a pandas frame (the LHC Olympics layout, Blosc-compressed)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  registers the Blosc filter of PyTables' files
import numpy as np
import pyarrow as pa

from raypipe.config.read import Source
from raypipe.errors import UserError
from raypipe.events.fields import fields, native
from raypipe.events.readers.base import check_file, readable

Place = int | str | None  # A column of a matrix, a field of a compound set, or the whole of a set


class Hdf5Reader:
    """`raypipe.events.readers.base.Reader` of .h5 files, without PyTables; pickled parts are never read."""

    def rows(self, path: Path, source: Source) -> int:
        with readable(check_file(path), "HDF5"), h5py.File(path) as file:
            layout = _layout(file, path, source.key)
            lengths = {len(values) for values, _ in layout.values()}
            if len(lengths) != 1:
                raise UserError(f"{path}: its columns have different lengths {sorted(lengths)}")
            return lengths.pop()

    def names(self, path: Path, source: Source) -> list[str]:
        with readable(check_file(path), "HDF5"), h5py.File(path) as file:
            return list(_layout(file, path, source.key))

    def read(self, path: Path, source: Source, start: int, stop: int, columns: Sequence[str]) -> pa.Table:
        with readable(check_file(path), "HDF5"), h5py.File(path) as file:
            layout = _layout(file, path, source.key)
            sets = {layout[name][0].name: layout[name][0] for name in columns}
            parts = {name: values[start:stop] for name, values in sets.items()}  # a matrix is read once
            table = {}
            for name in columns:
                part, place = parts[layout[name][0].name], layout[name][1]
                of = fields(part) if isinstance(place, str) else {None: part} if place is None else part.T
                table[name] = native(of[place])
            return pa.table(table)

    def matrix(self, path: Path, source: Source, start: int, stop: int) -> np.ndarray:
        """The given rows of a file that is one matrix, (stop - start, columns)."""
        with readable(check_file(path), "HDF5"), h5py.File(path) as file:
            layout = _layout(file, path, source.key)
            values, place = next(iter(layout.values()))
            if len({v.name for v, _ in layout.values()}) != 1 or not isinstance(place, int):
                raise UserError(f"{path}: expected one matrix of particles, found {len(layout)} separate columns")
            return values[start:stop]


def _layout(file: h5py.File, path: Path, key: str | None) -> dict[str, tuple[Any, Place]]:
    """Column name -> (dataset, its place in it)."""
    if key is None:
        tops = list(file)
        if len(tops) != 1 and not all(isinstance(file[k], h5py.Dataset) and file[k].ndim == 1 for k in tops):
            raise UserError(f"{path}: holds {', '.join(tops) or 'nothing'}: say which with the option key")
        node: Any = file if len(tops) != 1 else file[tops[0]]
    elif key not in file:
        raise UserError(f"{path}: key {key!r} is missing (present: {', '.join(file)})")
    else:
        node = file[key]
    if isinstance(node, h5py.Dataset):
        return _columns_of(node, path)
    if "pandas_type" in node.attrs:
        return _pandas(node, path)
    columns = {name: (item, None) for name, item in node.items() if isinstance(item, h5py.Dataset) and item.ndim == 1}
    if not columns:
        raise UserError(f"{path}: group {node.name!r} holds no one-dimensional columns (present: {', '.join(node)})")
    return columns


def _columns_of(data: h5py.Dataset, path: Path) -> dict[str, tuple[Any, Place]]:
    if data.dtype.names and "pandas_type" not in data.parent.attrs and data.ndim == 1:
        return {name: (data, name) for name in fields(np.empty(0, data.dtype))}
    if data.dtype.names:
        raise UserError(f"{path}: dataset {data.name!r} is a compound table (pandas format='table'); save it as fixed")
    if data.ndim == 1:
        return {data.name.lstrip("/"): (data, None)}
    if data.ndim != 2 or data.dtype.kind not in "fiub":
        told = f"has shape {data.shape} and type {data.dtype}, expected numbers of shape (events, columns)"
        raise UserError(f"{path}: dataset {data.name!r} {told}")
    return {str(i): (data, i) for i in range(data.shape[1])}


def _pandas(group: h5py.Group, path: Path) -> dict[str, tuple[Any, Place]]:
    """A fixed frame: ``axis0`` (names), for each block ``block<i>_items`` (names) and ``block<i>_values``."""
    kind = group.attrs["pandas_type"]
    if _text(kind) != "frame":
        told = "only fixed frames can be read (DataFrame.to_hdf(..., format='fixed'))"
        raise UserError(f"{path}: pandas object {group.name!r} is stored as {kind!r}; {told}")
    found = {}
    for block in range(int(group.attrs["nblocks"])):
        values = group[f"block{block}_values"]
        for place, item in enumerate(group[f"block{block}_items"][:]):
            found[_text(item)] = (values, place)
    names = list(map(_text, group["axis0"][:]))
    if len(set(names)) < len(names):
        raise UserError(f"{path}: two columns of {group.name!r} are called {max(names, key=names.count)!r}: rename one")
    return {name: found[name] for name in names if name in found}


def _text(item: Any) -> str:
    return item.decode() if isinstance(item, bytes) else str(item)
