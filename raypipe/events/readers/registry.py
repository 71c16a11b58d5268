"""Which reader a file needs."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from raypipe.config.read import Source
from raypipe.errors import UserError
from raypipe.events.readers.base import Reader, check_file

READERS = {
    "numpy": "numpy_file.NumpyReader", "hdf5": "hdf5.Hdf5Reader", "parquet": "columnar.ParquetReader",
    "csv": "columnar.CsvReader", "root": "root.RootReader", "delphes": "delphes.DelphesReader",
    "nanoaod": "nanoaod.NanoAodReader", "lhco": "lhco.LhcoReader",
}  # fmt: skip
"""Format -> class in this package; loaded when first needed, so that a CSV user needs no ROOT library."""

EXTENSIONS = {
    ".npy": "numpy", ".h5": "hdf5", ".hdf5": "hdf5", ".hdf": "hdf5", ".parquet": "parquet", ".pq": "parquet",
    ".csv": "csv",
}  # fmt: skip


def file_format(path: str | Path, source: Source) -> str:
    """The format of ``path``: as the source says, else by extension.

    Raises:
        UserError: a missing or empty file, or an extension that no reader knows.
    """
    path = check_file(path)
    if source.format != "auto":
        return source.format
    if path.suffix.lower() not in EXTENSIONS:
        raise UserError(
            f"{path}: unknown extension {path.suffix!r} (known: {', '.join(EXTENSIONS)}); or name the format "
            f"({', '.join(READERS)})"
        )
    return EXTENSIONS[path.suffix.lower()]


def reader_for(path: str | Path, source: Source) -> Reader:
    """The reader of one file."""
    module, _, name = READERS[file_format(path, source)].partition(".")
    return getattr(import_module(f"raypipe.events.readers.{module}"), name)()
