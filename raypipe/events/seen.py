"""What is remembered of events that streamed by: enough to know one again, in 32 bytes each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from raypipe.errors import UserError
from raypipe.events.schema import tensor_values
from raypipe.events.twins import fingerprint, first_twin_by, rows_of_files, settle

NOT_MEASURED = ("event_id", "sample", "group", "split", "weight", "label")
"""Columns of a table that say nothing about what was measured."""
MASSES = ("mass", "m_yy")


class Seen:
    """Ids, masses and fingerprints of the events of several files, filled table by table."""

    def __init__(self) -> None:
        self.parts: list[tuple[int, tuple[np.ndarray, ...]]] = []

    def add(self, file: int, table: pa.Table) -> None:
        """The events of a feature or event table, which belong to the file of that number."""
        if not table.num_rows:
            return
        mass = next(name for name in MASSES if name in table.column_names)
        others = [name for name in table.column_names if name not in NOT_MEASURED and name != mass]
        key, rest = _matrix(table[mass]), np.concatenate([_matrix(table[name]) for name in others], axis=1)
        ids = table["event_id"].to_numpy()
        self.parts.append((file, (ids, key[:, 0], fingerprint(np.c_[key, rest]), fingerprint(rest))))

    def refuse_equal_ids(self, files: Sequence[int], column: str) -> None:
        """An id that occurs twice in the given files is a `UserError`."""
        ids = np.sort(np.concatenate([part[0] for file, part in self.parts if file in files] or [np.empty(0)]))
        twice = np.flatnonzero(ids[1:] == ids[:-1])
        if len(twice):
            raise UserError(f"column {column!r}: event id {ids[twice[0]]} occurs more than once in these files")

    def distinct(
        self, files: Sequence[int], policy: str | None, rows: Sequence[tuple[str, int]], option: str
    ) -> tuple[dict[int, np.ndarray], int]:
        """Which events of each file to keep (bool), and how many are repeated; see `raypipe.events.twins.settle`."""
        chosen = [(file, part) for file, part in self.parts if file in files]
        if not chosen:
            return {file: np.empty(0, bool) for file in files}, 0
        number = np.repeat([file for file, _ in chosen], [len(part[0]) for _, part in chosen])
        ids, key, whole, rest = (np.concatenate(column) for column in zip(*(part for _, part in chosen), strict=True))
        first, name = first_twin_by(key, whole, rest), rows_of_files(rows)
        kept = settle(first, policy, lambda row: name(int(ids[row])), option)
        return {file: kept[number == file] for file in files}, int((first != np.arange(len(first))).sum())


def _matrix(column: pa.ChunkedArray) -> np.ndarray:
    """(n, numbers of an event)."""
    values = tensor_values(column) if isinstance(column.type, pa.FixedShapeTensorType) else column.to_numpy()
    return values.reshape(len(values), -1)
