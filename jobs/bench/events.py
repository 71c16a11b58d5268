"""Parquet events to torch tensors: streamed by Ray Data, and resident, against plain pyarrow.

Both sides make the same tensors of the same columns. Streamed: balanced batches from mapped files, as an encoder's
worker gets them, against a pass over the files. Resident: read once, then epochs of shuffled batches from memory,
against reading the files by pyarrow in every epoch.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import ray
import torch

from bench.base import WALL, Measurement, compared, in_turn
from bench.samples import write_events
from raypipe import seeds
from raypipe.cluster.inputs import COLUMNS, VIEW, EventSource, rank_stream, read_events
from raypipe.cluster.runtime import ray_session
from raypipe.config import Embedding, Resources
from raypipe.events.schema import tensor_values
from raypipe.fit.batches import BatchPlan
from raypipe.fit.training import Workers

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


def _streamed(folder: Path, plan: BatchPlan, steps: int) -> int:
    """As many batches of mapped events as one worker takes in so many steps."""
    config = Embedding(samples=["bench"], batch_size=plan.batch_size, steps_per_epoch=steps, reflect=False)
    worker = SimpleNamespace(workers=Workers(), device=torch.device("cpu"))
    stream = rank_stream(EventSource(mapped=str(folder)), plan, ray.put(plan), range(steps), config, worker)
    return sum(_touch({name: torch.as_tensor(np.array(v)) for name, v in batch.items()}) for batch in stream)


def run(smoke: bool) -> list[Measurement]:
    """Half a million events streamed, and resident."""
    files, each, repeats, epochs = (1, 500, 1, 2) if smoke else (FILES, EACH, 3, EPOCHS)
    reread = min(REREAD, epochs)
    with tempfile.TemporaryDirectory() as folder, ray_session(Resources(cpus=2, object_store_gib=0.5)):
        kept = [write_events(Path(folder) / f"{k}.parquet", each, k * each) for k in range(files)]
        mapped = read_events(kept, VIEW, 2, Path(folder))
        plan = BatchPlan.of(mapped.group, min(BATCH, each), 1, "train")
        steps = files * each // plan.batch_size
        assert _streamed(Path(folder), plan, steps) == steps * plan.batch_size  # warm: workers are up, pages are cached
        pair = (lambda: _streamed(Path(folder), plan, steps), lambda: _consume(plain_blocks(kept)))
        streamed, _ = in_turn(repeats, WALL, *pair)
        again = lambda: [_consume(plain_blocks(kept)) for _ in range(reread)]  # noqa: E731
        resident, _ = in_turn(1 if smoke else 2, WALL, lambda: _resident_epochs(kept, epochs), again)
        (once,), _ = in_turn(repeats, WALL, lambda: read_events(kept).group.shape)
    detail = {"events": files * each, "batch": BATCH, "time": time.strftime("%Y-%m-%d")}
    read = {"epochs": epochs, "epochs_reread": reread, "seconds_to_read_once": float(np.median(once))}
    resident[1] = [t * epochs / reread for t in resident[1]]
    name = "events resident: epochs from memory, reading included, against pyarrow re-reading"
    return [
        compared("events streamed: Ray Data against pyarrow", *streamed, 0.5, **detail),
        compared(name, *resident, 3.0, **detail, **read),
    ]
