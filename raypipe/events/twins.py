"""The same event twice: equal rows that are no coincidence (overlapping triggers, a file read twice)."""

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa

from raypipe.errors import UserError
from raypipe.events.fields import fingerprint, first_equal
from raypipe.events.schema import tensor_values

SHARE = 0.001  # Share of repeated events above which nobody may be left unaware of them
FEW = 20  # A column of fewer different values than this says nothing about events
SPIKE = 10
"""A value that occurs so many times as often as the column's usual one is a spike, such as zero where nothing is."""


def first_twin(values: np.ndarray) -> np.ndarray:
    """(n,) number of the first row that is the same event, its own number where no earlier one is.

    Each row of ``values`` (n, d) is judged by the column with the most different values in which its own is no spike.
    """
    first = first_equal(fingerprint(values))
    found, left = np.arange(len(values)), np.ones(len(values), bool)
    if (first == found).all():
        return found
    for k in np.argsort([-len(np.unique(column)) for column in values.T], kind="stable"):
        left &= ~_judge(found, values[:, k], first, fingerprint(np.delete(values, k, axis=1)), left)
    return found


def _judge(found: np.ndarray, key: np.ndarray, first: np.ndarray, rest: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Enter into ``found`` the twins ``among`` the rows (bool), by a column; the rows that it can judge."""
    _, inverse, counts = np.unique(key, return_inverse=True, return_counts=True)
    usual = among & (counts[inverse] <= SPIKE * max(1.0, float(np.median(counts))))
    if is_evidence(key[usual], first[usual], rest[usual]):
        found[usual] = first[usual]
    return usual


def is_evidence(key: np.ndarray, first: np.ndarray, rest: np.ndarray) -> bool:
    """Whether equal rows are so many more than chance makes that they must be the same events.

    Chance is read off rows with the same value in the column ``key`` (n,) that differ in others (``rest``,
    fingerprints), and off neighbouring values. Where all rows with the same ``key`` are equal (``first``, from
    `first_equal`), what counts is how densely the lattice of a rounded column is filled.
    """
    lattice, place, counts = np.unique(key, return_inverse=True, return_counts=True)
    if len(lattice) < FEW:
        return False
    equal = _pairs(np.unique(first, return_counts=True)[1])
    differing = _pairs(counts) - equal
    expected = _chance_pairs(lattice, counts)
    if differing <= 0.1 * expected:
        return expected < 0.5 * equal
    order = np.lexsort((place, rest))
    place, rest = place[order], rest[order]
    edges = np.flatnonzero(np.r_[True, (place[1:] != place[:-1]) | (rest[1:] != rest[:-1]), True])
    start, number = edges[:-1], np.diff(edges).astype(float)
    beside = (place[start[1:]] == place[start[:-1]] + 1) & (rest[start[1:]] == rest[start[:-1]])
    agreeing, neighbours = (number[1:] * number[:-1])[beside].sum(), float((counts[1:] * counts[:-1]).sum())
    return differing * agreeing < 0.5 * equal * (neighbours - agreeing)


def _pairs(counts: np.ndarray) -> float:
    return float((counts.astype(float) * (counts - 1)).sum() / 2)


def _chance_pairs(values: np.ndarray, counts: np.ndarray) -> float:
    """Pairs of equal values that chance makes in a rounded column (density x step): 0 for a continuous one."""
    steps = np.diff(values)
    step, _, third = np.sort(steps)[:3]
    if third > 1.1 * step:
        return 0.0
    below = np.r_[0, np.cumsum(counts)]
    low, high = np.maximum(np.arange(len(values)) - 5, 0), np.minimum(np.arange(len(values)) + 5, len(values) - 1)
    near = (below[high + 1] - below[low]) / ((values[high] - values[low]) / step + 1)
    beside = int((steps < 1.5 * step).sum())
    if beside > (1 - np.exp(-near)).sum() + 2 * np.sqrt(len(values)):
        return 0.0
    return float((counts * near).sum() / 2)


def settle(first: np.ndarray, policy: str | None, name: Callable[[int], str], option: str) -> np.ndarray:
    """(n,) bool, the rows to keep: without repeated ones (``first``, from `first_twin`) if the ``policy`` is ``drop``.

    No policy, and more than `SHARE` of the rows repeated, is a `UserError` that names ``name`` and ``option``.
    """
    repeated = np.flatnonzero(first != np.arange(len(first)))
    if policy is None and len(repeated) > SHARE * len(first):
        shown = ", ".join(f"{name(row)} = {name(first[row])}" for row in repeated[:3])
        raise UserError(
            f"{len(repeated)} of {len(first)} events ({len(repeated) / len(first):.2%}) repeat an earlier one in all "
            f"columns: {shown}{', ...' if len(repeated) > 3 else ''}; {option}=drop uses each once, {option}=keep all"
        )
    kept = np.ones(len(first), bool)
    kept[repeated] = policy != "drop"
    return kept


def rows_of_files(files: Sequence[tuple[str, int]]) -> Callable[[int], str]:
    """Names for rows of files that were read one after the other, from (path, number of rows)."""
    ends = np.cumsum([rows for _, rows in files])

    def name(row: int) -> str:
        file = int(np.searchsorted(ends, row, side="right"))
        return f"{files[file][0]} row {row - (ends[file - 1] if file else 0)}"

    return name


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
        first, found, name = first_equal(whole), np.arange(len(key)), rows_of_files(rows)
        if (first != found).any():  # as `first_twin`, by one continuous column
            _judge(found, key, first, rest, np.ones(len(key), bool))
        kept = settle(found, policy, lambda row: name(int(ids[row])), option)
        return {file: kept[number == file] for file in files}, int((found != np.arange(len(found))).sum())


def _matrix(column: pa.ChunkedArray) -> np.ndarray:
    """(n, numbers of an event)."""
    values = tensor_values(column) if isinstance(column.type, pa.FixedShapeTensorType) else column.to_numpy()
    return values.reshape(len(values), -1)
