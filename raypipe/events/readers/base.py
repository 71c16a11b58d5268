"""What a reader is: rows of a file, by range, as an Arrow table of plain columns."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from raypipe.config.read import Column, Source
from raypipe.errors import UserError
from raypipe.events.header import twins

TREES = ("TTree", "TNtuple", "TNtupleD", "ROOT::RNTuple")  # Classes of ROOT trees


class Reader(Protocol):
    """Reads one format. Pure and stateless: the same (path, range) gives the same table anywhere, in any order.

    A URL comes as text for the path, since a `Path` would lose one of its slashes.
    """

    def rows(self, path: Path, source: Source) -> int:
        """Number of events of the file, from its header or a scan; another format is a `UserError` naming the file."""

    def names(self, path: Path, source: Source) -> list[str]:
        """The columns that the file offers, in its order; numbers as strings where it has no names."""

    def read(self, path: Path, source: Source, start: int, stop: int, columns: Sequence[str]) -> pa.Table:
        """Events ``start <= row < stop`` with the given columns, as one Arrow table."""


def chunks(reader: Reader, path: Path, source: Source, columns: Sequence[str]) -> Iterator[tuple[int, pa.Table]]:
    """The whole file, ``source.chunk_rows`` events at a time, as (first row, table): bounded memory."""
    for start, stop in pieces(reader.rows(path, source), source.chunk_rows):
        yield start, reader.read(path, source, start, stop, columns)


def pieces(rows: int, size: int) -> list[tuple[int, int]]:
    """Fixed row ranges that cover ``rows``: they depend on nothing but the two numbers."""
    return [(start, min(start + size, rows)) for start in range(0, rows, size)]


def resolve(column: Column, names: Sequence[str], source: str | Path) -> str:
    """The name of ``column``, given by name or by place; where there is none, a `UserError` lists those there are."""
    if str(column) in names and not isinstance(column, int):
        return str(column)
    if isinstance(column, int):
        if -len(names) <= column < len(names):
            return names[column]
        raise UserError(f"{source}: column {column} is missing (the file has {len(names)} columns)")
    if alike := twins(column, names):
        which = f"name the place ({' or '.join(str(names.index(name)) for name in alike)}), or {alike[0]!r}"
        raise UserError(f"{source}: {len(alike)} columns are called {column!r}: {which}")
    shown = ", ".join(names[:12]) + (f", ... {len(names) - 12} more" if len(names) > 12 else "")
    raise UserError(f"{source}: column {column!r} is missing (present: {shown})")


@contextlib.contextmanager
def readable(path: Path, what: str) -> Iterator[None]:
    """Turns whatever a library says about a broken file into one line naming it."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # libraries raise anything on foreign bytes: OSError, KeyError, struct.error, ...
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise UserError(f"{path}: not a readable {what} file: {reason}") from error


def check_file(path: str | Path) -> Path:
    """The path of a file that is there and not empty; else a `UserError`."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such file")
    if path.is_dir():
        raise UserError(f"{path}: is a folder, not a file")
    if path.stat().st_size == 0:
        raise UserError(f"{path}: the file is empty (0 bytes)")
    return path
