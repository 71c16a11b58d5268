"""Event tables with the real schema and made-up content, for tests of what does not depend on physics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from raypipe.config.read import Columns, Source
from raypipe.errors import UserError
from raypipe.events.readers.base import chunks
from raypipe.events.readers.features import FeatureTable, feature_columns, needed, to_arrays, with_ids
from raypipe.events.readers.registry import reader_for
from raypipe.events.schema import EVENT_SCHEMA, tensor_column, validate
from raypipe.events.table import read_table


def event_table(
    n: int,
    *,
    sample: str = "yy",
    group: int = 0,
    split: str = "search",
    first: int = 0,
    weight: float = 1.0,
    seed: int = 0,
    mass: np.ndarray | None = None,
) -> pa.Table:
    """A valid event table of ``n`` rows; objects get harder with |group|, something to learn."""
    rng = np.random.default_rng([seed, first])
    objects = np.zeros((n, 11, 12), np.float32)
    present = rng.random((n, 11)) < 0.3 + 0.05 * abs(group)
    present[:, 10] = True
    objects[..., 0] = rng.exponential(30 + 25 * abs(group), (n, 11)) + 5
    objects[..., 1] = rng.normal(0, 1, (n, 11))
    objects[..., 2] = rng.uniform(-np.pi, np.pi, (n, 11))
    objects[..., 3] = rng.exponential(8, (n, 11))
    objects[..., 7:] = np.eye(5)[[0] * 4 + [1] * 2 + [2] * 2 + [3] * 2 + [4]]
    objects *= present[..., None]
    if mass is None:
        mass = 105 + 55 * rng.beta(1, 1.8, n) if group == 0 else rng.normal(125, 1.6, n)
    apart = np.random.default_rng([seed, first, 1])
    photons = {
        f"y{i}_{q}": values
        for i in (1, 2)
        for q, values in (
            ("pt", apart.uniform(30, 90, n)),
            ("eta", apart.uniform(-2, 2, n)),
            ("phi", apart.uniform(-np.pi, np.pi, n)),
        )
    }
    columns = {
        "event_id": np.arange(first, first + n),
        "sample": pa.array([sample] * n).dictionary_encode(),
        "group": np.full(n, group),
        "split": pa.array([split] * n).dictionary_encode(),
        "weight": np.full(n, weight),
        "m_yy": mass,
        "pt_yy": rng.exponential(30 + 20 * abs(group), n),
        "dr_yy": rng.uniform(1, 4, n),
        **photons,
        "objects": tensor_column(objects),
        "features": tensor_column(rng.normal(size=(n, 9)).astype(np.float32)),
    }
    arrays = [
        columns[f.name]
        if isinstance(columns[f.name], pa.Array | pa.ExtensionArray)
        else pa.array(columns[f.name]).cast(f.type)
        for f in EVENT_SCHEMA
    ]
    return pa.table(arrays, schema=EVENT_SCHEMA)


def replace(table: pa.Table, column: str, values) -> pa.Table:
    """``table`` with one column exchanged."""
    return table.set_column(table.column_names.index(column), column, values)


def read_events(path: str | Path) -> pa.Table:
    """Read and validate one event table."""
    return validate(read_table(path), str(path), EVENT_SCHEMA)


def read_features(path: str | Path, source: Source, columns: Columns) -> FeatureTable:
    """A whole file as a feature table, read chunk by chunk.

    Raises:
        UserError: a file that cannot be read, a bad value, a duplicated event id, or no event at all.
    """
    path = Path(path)
    reader = reader_for(path, source)
    names = reader.names(path, source)
    wanted = needed(columns, names, path)
    parts = [
        feature_columns(t, columns, names, path, first, source.weights)
        for first, t in chunks(reader, path, source, wanted)
    ]
    if not parts:
        raise UserError(f"{path}: the file holds no events")
    kind = pa.uint64() if any(part["event_id"].type == pa.uint64() for part in parts) else pa.int64()
    return to_arrays(pa.concat_tables([with_ids(part, kind, path) for part in parts]), path)
