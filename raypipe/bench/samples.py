"""Event files for the benches: the schema and the occupancy of simulated events, values from a generator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from raypipe import seeds
from raypipe.events.schema import EVENT_SCHEMA, OBJECT_FEATURES, SLOTS, SPLITS, tensor_column
from raypipe.events.table import write_table
from raypipe.fit.encoder import EncoderInputs

PRESENT = 0.35
"""Share of filled object slots; an event of the demo fills about a third."""


def arrays(n: int, groups: int = 5) -> EncoderInputs:
    """``n`` events as the encoder takes them."""
    rng = seeds.generator(20_260, "bench-events", n)
    objects = np.zeros((n, len(SLOTS), len(OBJECT_FEATURES)), np.float32)
    there = rng.random((n, len(SLOTS))) < PRESENT
    there[:, -1] = True
    objects[..., 0] = rng.exponential(60, there.shape) + 20
    objects[..., 1] = rng.normal(0, 1.2, there.shape)
    objects[..., 2] = rng.uniform(-np.pi, np.pi, there.shape)
    objects[..., 3] = rng.exponential(8, there.shape)
    objects[..., 4] = rng.random(there.shape)
    for slot, name in enumerate(SLOTS):
        objects[:, slot, OBJECT_FEATURES.index(f"is_{name}")] = 1
    event = np.stack([rng.exponential(60, n) + 1, rng.uniform(0.5, 4, n)], 1).astype(np.float32)
    return EncoderInputs(np.arange(n), objects * there[..., None], event, np.arange(n) % groups)


def write_events(path: Path, n: int, first_id: int = 0) -> str:
    """A Parquet file of ``n`` events of the diphoton table."""
    inputs = arrays(n)
    rng = seeds.generator(20_260, "bench-photons", n)
    columns: dict[str, pa.Array] = {
        "event_id": pa.array(inputs.event_id + first_id),
        "sample": pa.array(["bench"] * n).dictionary_encode(),
        "group": pa.array(inputs.group.astype(np.int8)),
        "split": pa.array([SPLITS[0]] * n).dictionary_encode(),
        "weight": pa.array(np.ones(n)),
        "pt_yy": pa.array(inputs.event[:, 0]),
        "dr_yy": pa.array(inputs.event[:, 1]),
        "objects": tensor_column(inputs.objects),
        "features": tensor_column(rng.random((n, 9), dtype=np.float32)),
    }
    for field in EVENT_SCHEMA:
        if field.name not in columns:
            columns[field.name] = pa.array(rng.random(n, dtype=np.float32))
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({f.name: columns[f.name] for f in EVENT_SCHEMA})
    write_table(table.cast(EVENT_SCHEMA), path)
    return str(path)
