"""Arrays of any layout as plain columns of native numbers."""

from __future__ import annotations

import numpy as np


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
