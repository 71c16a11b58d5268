"""Tables of arrays, arrays of any layout as plain columns of native numbers, and equal rows."""

import dataclasses
from collections.abc import Sequence
from typing import Self

import numpy as np


class Rows:
    """A dataclass of arrays with one row an event (or object); all else belongs to every row."""

    def __len__(self) -> int:
        return len(next(iter(self.arrays().values())))

    def arrays(self) -> dict[str, np.ndarray]:
        """The columns that there are."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}

    def take(self, rows: np.ndarray) -> Self:
        """The given rows (indices or mask)."""
        return dataclasses.replace(self, **{name: values[rows] for name, values in self.arrays().items()})

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """All rows of several tables."""
        names = parts[0].arrays()
        return dataclasses.replace(parts[0], **{n: np.concatenate([getattr(p, n) for p in parts]) for n in names})


def fields(array: np.ndarray, prefix: str = "") -> dict[str, np.ndarray]:
    """The columns of a structured array (n,): fields of a field by ``a.b``, k numbers by ``a/0``, ``a/1``, ..."""
    array = np.atleast_1d(array)
    if array.dtype.names:
        array = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
        found = {}
        for name in array.dtype.names:
            found |= fields(array[name], f"{prefix}.{name}" if prefix else name)
        return found
    if array.ndim == 1:
        return {prefix: array}
    flat = array.reshape(len(array), int(np.prod(array.shape[1:])))
    return {f"{prefix}/{k}": flat[:, k] for k in range(flat.shape[1])}


def native(values: np.ndarray) -> np.ndarray:
    """The same numbers, contiguous, in this machine's byte order; more than double precision becomes double."""
    kind = values.dtype.newbyteorder("=")
    return np.ascontiguousarray(values, np.float64 if kind.kind == "f" and kind.itemsize > 8 else kind)


def fingerprint(rows: np.ndarray) -> np.ndarray:
    """A 64-bit number for the values of every row (n, d), float32 or float64: equal rows have equal numbers."""
    real, whole = (np.float32, np.uint32) if rows.dtype == np.float32 else (np.float64, np.uint64)
    bits = (np.ascontiguousarray(rows, real) + np.float32(0)).view(whole)
    total = np.zeros(len(rows), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for column in bits.T:  # as many steps as features
            total = (total ^ column) * np.uint64(0x9E3779B97F4A7C15)
            total ^= total >> np.uint64(32)
    return total


def first_equal(prints: np.ndarray) -> np.ndarray:
    """(n,) number of the first row that is equal, by fingerprint; its own number where that is the row itself."""
    _, first, inverse = np.unique(prints, return_index=True, return_inverse=True)
    return first[inverse]
