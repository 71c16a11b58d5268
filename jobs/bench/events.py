"""Parquet events to torch tensors: read once by threads, then from memory, against plain pyarrow.

Both sides make the same tensors of the same columns: epochs of shuffled batches from memory, against reading the files
by pyarrow in every epoch.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch

from bench.base import WALL, Measurement, compared, in_turn
from bench.samples import write_events
from raypipe import seeds
from raypipe.cluster.inputs import COLUMNS, VIEW, read_events
from raypipe.events.schema import tensor_values

BATCH = 1024
EACH, FILES = 125_000, 4
"""Events of a file, and files: half a million events."""
EPOCHS, REREAD = 36, 6
"""As configs/contrastive/study.yaml trains, and how many of them are re-read from the files and timed: each costs the
same, and the rest are counted like them."""


def _touch(batch: dict[str, torch.Tensor]) -> int:
    """Look at a batch once; its length."""
    assert torch.isfinite(batch["objects"][:, :, 0].sum())
    return len(batch["group"])


def _consume(blocks: Iterator[dict[str, np.ndarray]]) -> int:
    """Turn blocks into torch batches and touch each once."""
    rows = 0
    for block in blocks:
        tensors = {name: torch.as_tensor(np.array(values)) for name, values in block.items()}
        for start in range(0, len(tensors["group"]), BATCH):
            rows += _touch({name: values[start : start + BATCH] for name, values in tensors.items()})
    return rows


def plain_blocks(paths: list[str]) -> Iterator[dict[str, np.ndarray]]:
    """The same arrays by pyarrow alone."""
    for path in paths:
        for block in pq.ParquetFile(path).iter_batches(batch_size=8 * BATCH, columns=[*COLUMNS, *VIEW.columns]):
            yield {
                "event_id": block["event_id"].to_numpy(),
                "objects": tensor_values(block["objects"]),
                "event": np.stack([block["pt_yy"].to_numpy(), block["dr_yy"].to_numpy()], axis=1),
                "group": block["group"].to_numpy().astype(np.int64),
            }


def _resident_epochs(paths: list[str], epochs: int) -> int:
    inputs, rows = read_events(paths), 0
    for epoch in range(epochs):
        order = seeds.generator(1, "bench-epoch", epoch).permutation(len(inputs.group))
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            batch = inputs.batch(chosen, np.zeros((len(chosen), 1), np.float32))
            rows += _touch({name: torch.as_tensor(values) for name, values in batch.items()})
    return rows


def run(smoke: bool) -> list[Measurement]:
    """Half a million events resident."""
    files, each, repeats, epochs = (1, 500, 1, 2) if smoke else (FILES, EACH, 3, EPOCHS)
    reread = min(REREAD, epochs)
    with tempfile.TemporaryDirectory() as folder:
        kept = [write_events(Path(folder) / f"{k}.parquet", each, k * each) for k in range(files)]
        again = lambda: [_consume(plain_blocks(kept)) for _ in range(reread)]  # noqa: E731
        resident, _ = in_turn(1 if smoke else 2, WALL, lambda: _resident_epochs(kept, epochs), again)
        (once,), _ = in_turn(repeats, WALL, lambda: read_events(kept).group.shape)
    detail = {"events": files * each, "batch": BATCH, "time": time.strftime("%Y-%m-%d")}
    read = {"epochs": epochs, "epochs_reread": reread, "seconds_to_read_once": float(np.median(once))}
    resident[1] = [t * epochs / reread for t in resident[1]]
    name = "events resident: epochs from memory, reading included, against pyarrow re-reading"
    return [compared(name, *resident, 3.0, **detail, **read)]
