"""Read and write event tables as Parquet, whole or not at all."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raypipe.errors import UserError
from raypipe.events.schema import SPLITS
from raypipe.files import atomic_path

ROW_GROUP = 16_384  # Rows a Parquet row group: large enough to compress, small enough that a stream needs little memory


def write_table(table: pa.Table, path: str | Path) -> None:
    """Write ``table`` to ``path`` atomically: zstd, byte-stream-split floats, row groups of `ROW_GROUP`."""
    dictionary = [f.name for f in table.schema if pa.types.is_dictionary(f.type) or pa.types.is_string(f.type)]
    split = [leaf for field in table.schema for leaf in _float_leaves(field)]
    with atomic_path(path) as temporary:
        how = {"compression": "zstd", "compression_level": 3, "row_group_size": ROW_GROUP}
        how |= {"use_dictionary": dictionary or False, "use_byte_stream_split": split or False}
        pq.write_table(table, temporary, **how)


def _float_leaves(field: pa.Field) -> list[str]:
    """Parquet leaf paths of the floating-point values of ``field``."""
    kind = field.type.storage_type if isinstance(field.type, pa.BaseExtensionType) else field.type
    if pa.types.is_fixed_size_list(kind):
        return [f"{field.name}.list.element"] if pa.types.is_floating(kind.value_type) else []
    return [field.name] if pa.types.is_floating(kind) else []


def read_table(path: str | Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a Parquet file; a missing, truncated or foreign file is a one-line `UserError` naming it."""
    with _opened(path, columns) as file:
        return file.read(columns=list(columns) if columns is not None else None)


def count_rows(path: str | Path) -> int:
    """Rows of a Parquet file, from its footer."""
    with _opened(path) as file:
        return file.metadata.num_rows


def read_schema(path: str | Path) -> pa.Schema:
    """Columns and types of a Parquet file, from its footer."""
    with _opened(path) as file:
        return file.schema_arrow


def stream_table(path: str | Path, columns: Sequence[str], rows: int = 2 * ROW_GROUP) -> Iterator[pa.Table]:
    """The file in pieces of at most ``rows`` rows, so that files larger than memory can be read."""
    with _opened(path, columns) as file:
        for batch in file.iter_batches(batch_size=rows, columns=list(columns)):
            yield pa.Table.from_batches([batch])


def read_rows(path: str | Path, columns: Sequence[str], start: int, stop: int) -> pa.Table:
    """Rows ``start`` to ``stop`` of a Parquet file; only the row groups that hold them are read."""
    with _opened(path, columns) as file:
        ends = np.cumsum([file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)])
        first, last = np.searchsorted(ends, [start, stop - 1], side="right")
        offset = start - (int(ends[first - 1]) if first else 0)
        return file.read_row_groups(range(first, last + 1), columns=list(columns)).slice(offset, stop - start)


@contextlib.contextmanager
def _opened(path: str | Path, columns: Sequence[str] | None = None) -> Iterator[pq.ParquetFile]:
    """An open Parquet file that has ``columns``; whatever is wrong with it is a one-line `UserError` naming it."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such file")
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if missing := [name for name in columns or () if name not in names]:
                raise UserError(f"{path}: column {missing[0]!r} is missing (present: {', '.join(names)})")
            yield file
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: not a readable Parquet file: {str(error).splitlines()[0]}") from error


def sample_path(events: str | Path, split: str, sample: str) -> Path:
    """Where a data set folder keeps one sample and split; a sample that was not simulated is a `UserError`."""
    if split not in SPLITS:
        raise UserError(f"split {split!r} does not exist (allowed: {', '.join(SPLITS)})")
    path = Path(events) / split / f"{sample}.parquet"
    if not path.exists():
        there = sorted(p.stem for p in path.parent.glob("*.parquet") if not p.name.startswith("."))
        raise UserError(f"{path}: sample {sample!r} was not simulated (present: {', '.join(there) or 'none'})")
    return path
