"""Made-up events for the benches: the schema and the occupancy of simulated ones, values from a generator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from bench.base import SEED
from raypipe import seeds
from raypipe.events.schema import EVENT_SCHEMA, OBJECT_FEATURES, SLOTS, SPLITS, tensor_column
from raypipe.events.table import write_table
from raypipe.fit.encoder import EncoderInputs

PRESENT = 0.35
"""Share of filled object slots; an event of the demo fills about a third."""


def arrays(n: int, groups: int = 5) -> EncoderInputs:
    """``n`` events as the encoder takes them."""
    rng = seeds.generator(SEED, "bench-events", n)
    there = rng.random((n, len(SLOTS))) < PRESENT
    there[:, -1] = True
    size = there.shape
    values = [rng.exponential(60, size) + 20, rng.normal(0, 1.2, size), rng.uniform(-np.pi, np.pi, size)]
    objects = np.zeros((*size, len(OBJECT_FEATURES)), np.float32)
    objects[..., :5] = np.stack([*values, rng.exponential(8, size), rng.random(size)], -1)
    for slot, name in enumerate(SLOTS):
        objects[:, slot, OBJECT_FEATURES.index(f"is_{name}")] = 1
    event = np.stack([rng.exponential(60, n) + 1, rng.uniform(0.5, 4, n)], 1).astype(np.float32)
    return EncoderInputs(np.arange(n), objects * there[..., None], event, np.arange(n) % groups)


def write_events(path: Path, n: int, first_id: int = 0) -> str:
    """A Parquet file of ``n`` events of the diphoton table."""
    inputs, rng = arrays(n), seeds.generator(SEED, "bench-photons", n)
    columns = {field.name: rng.random(n, dtype=np.float32) for field in EVENT_SCHEMA if field.type == pa.float32()}
    columns |= {"event_id": inputs.event_id + first_id, "sample": ["bench"] * n, "split": [SPLITS[0]] * n}
    columns |= {"weight": np.ones(n), "pt_yy": inputs.event[:, 0], "dr_yy": inputs.event[:, 1], "group": inputs.group}
    columns |= {
        "objects": tensor_column(inputs.objects),
        "features": tensor_column(rng.random((n, 9), dtype=np.float32)),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(pa.table(columns, schema=EVENT_SCHEMA), path)
    return str(path)
