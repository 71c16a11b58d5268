"""From selected leptons to the four-lepton event table (`raypipe.events.fourlepton`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from raypipe.events.fourlepton import FOUR_LEPTON_SCHEMA, LEPTONS, MASSES
from raypipe.events.schema import SPLITS
from raypipe.simulate.fourlepton.selection import Quadruplets


def four_lepton_table(
    parts: Sequence[Quadruplets], event_id: np.ndarray, sample: str, group: int, embedding: np.ndarray, weight: float
) -> pa.Table:
    """The Arrow table of batches of selected events; ``embedding`` marks the rows of that split."""
    n = len(event_id)
    numbers = {name: np.concatenate([getattr(part, name) for part in parts]) for name in MASSES}
    for quantity in ("pt", "eta", "phi"):
        values = np.concatenate([getattr(part, quantity) for part in parts])
        numbers |= {f"{lepton}_{quantity}": values[:, i] for i, lepton in enumerate(LEPTONS)}
    columns = {name: pa.array(values.astype(np.float32)) for name, values in numbers.items()} | {
        "event_id": pa.array(event_id.astype(np.int64)),
        "sample": pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, dtype=np.int32)), pa.array([sample])),
        "group": pa.array(np.full(n, group, dtype=np.int8)),
        "split": pa.DictionaryArray.from_arrays(
            pa.array(np.where(embedding, SPLITS.index("embedding"), SPLITS.index("search")).astype(np.int32)),
            pa.array(SPLITS),
        ),
        "weight": pa.array(np.full(n, weight, dtype=np.float64)),
    }
    return pa.Table.from_arrays([columns[field.name] for field in FOUR_LEPTON_SCHEMA], schema=FOUR_LEPTON_SCHEMA)
