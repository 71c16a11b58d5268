"""Tables as one matrix of features, for classifiers that are not told about masses and regions."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from raypipe.config.read import Column, Source
from raypipe.errors import UserError
from raypipe.events.header import twins
from raypipe.events.readers.base import chunks, resolve
from raypipe.events.readers.features import as_labels, numbers
from raypipe.events.readers.registry import reader_for
from raypipe.events.signed import refuse_negative
from raypipe.files import digest

LABEL_NAMES = ("label", "is_signal", "truth", "target", "signal")  # Column names that mean truth


@dataclass(frozen=True)
class Columnar:
    """All rows of one or several files, column by column (float64); ``file``: (n,) number of the file of each row."""

    columns: dict[str, np.ndarray]
    file: np.ndarray
    paths: tuple[str, ...]

    @property
    def name(self) -> str:
        return ", ".join(self.paths)

    def __len__(self) -> int:
        return len(self.file)

    def take(self, rows: np.ndarray) -> Columnar:
        """The given rows."""
        return Columnar({k: v[rows] for k, v in self.columns.items()}, self.file[rows], self.paths)

    def digests(self) -> list[str]:
        """For each file, a hash of its values, whatever its format."""
        of = lambda mask: [hashlib.blake2b(v[mask].tobytes()).hexdigest() for v in self.columns.values()]  # noqa: E731
        return [digest(of(self.file == number)) for number in range(len(self.paths))]

    def column(self, column: Column) -> np.ndarray:
        """A column by name or place; a missing one is a `UserError`."""
        return self.columns[resolve(column, list(self.columns), self.name)]

    def has(self, column: Column | None) -> bool:
        """Whether there is such a column, by name or place."""
        if isinstance(column, int):
            return -len(self.columns) <= column < len(self.columns)
        return column in self.columns

    def matrix(self, features: Sequence[Column]) -> np.ndarray:
        """(n, d) of the given columns."""
        return np.stack([self.column(f) for f in features], axis=1)


def read_columns(paths: Sequence[str | Path], source: Source, bad: dict[str, str] | None = None) -> Columnar:
    """Read files of the same columns; an unreadable one, NaN, text, no rows or other columns are a `UserError`.

    With ``bad`` a column that cannot be used is left out, and ``bad`` says why.
    """
    parts: dict[str, list[np.ndarray]] = {}
    counts: list[int] = []
    for path in map(Path, paths):
        reader = reader_for(path, source)
        if not hasattr(reader, "names"):
            raise UserError(f"{path}: holds whole events, not a table: make one of it with `raypipe read`")
        names = reader.names(path, source)
        # Of two columns of one name one could be the truth: they are refused.
        asked = [base if twins(base := name.removesuffix(" (1)"), names) else name for name in names]
        names = list(dict.fromkeys(resolve(column, names, path) for column in asked))
        if parts and list(parts) != names:
            raise UserError(f"{path}: columns {', '.join(names)} differ from those of {paths[0]}: {', '.join(parts)}")
        tables = [(first, t) for first, t in chunks(reader, path, source, names)]
        if not tables:
            raise UserError(f"{path}: the file holds no events")
        for name in names:
            try:
                parts.setdefault(name, []).extend(numbers(t, name, path, first) for first, t in tables)
            except UserError as error:
                if bad is None:
                    raise
                bad[name] = str(error).removeprefix(f"{path}: column {name!r}").lstrip(", ")
        counts.append(sum(t.num_rows for _, t in tables))
    columns = {name: np.concatenate(values) for name, values in parts.items() if name not in (bad or {})}
    return Columnar(columns, np.repeat(np.arange(len(counts)), counts), tuple(str(p) for p in paths))


def find_label(table: Columnar) -> str | None:
    """The column that is truth: called so, or the last one without a name that holds nothing but 0 and 1."""
    binary = [name for name, values in table.columns.items() if ((values == 0) | (values == 1)).all()]
    last = list(table.columns)[-1]
    unnamed = [last] if last in binary and last.isdigit() and len(table.columns) > 1 else []
    return next((name for name in binary if name.lower() in LABEL_NAMES), next(iter(unnamed), None))


def labels_of(table: Columnar, label: str | None) -> np.ndarray | None:
    """(n,) bool truth of a table, None where it has no such column."""
    return as_labels(table.columns[label], label, table.name) if label in table.columns else None


def weights_of(table: Columnar, weight: Column | None, policy: str = "file") -> np.ndarray:
    """(n,) weights, one where none are named or the table has no such column; their sum must be positive."""
    if weight is None or not table.has(weight):
        return np.ones(len(table))
    values = table.column(weight)
    where = f"{table.name}: column {weight!r}"
    refuse_negative(values, policy, "--weights ", lambda row, w: f"{where}, row {row}: the weight {w:g}")
    if not values.any():
        raise UserError(f"{where}: all weights are zero")
    if values.sum() <= 0:
        raise UserError(f"{where}: the weights sum to {values.sum():g}: there is no event")
    return values


def as_table(table: Columnar) -> pa.Table:
    """Back to Arrow, with the number of the row and the file it came from."""
    files = pa.DictionaryArray.from_arrays(pa.array(table.file.astype(np.int32)), pa.array(list(table.paths)))
    return pa.table({"row": np.arange(len(table)), "file": files})
