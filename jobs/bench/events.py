"""Parquet events to torch tensors: streamed by Ray Data, and resident, against plain pyarrow.

Both sides make the same tensors of the same columns. Streamed: a pass over the files, at two sizes: a line through them
parts the start of a Ray Data execution from its rate. Resident: read once, then epochs of shuffled batches from memory,
against reading the files by pyarrow in every epoch. Memory: `peak_mib`.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch

from bench.base import WALL, Measurement, compared, in_turn, peak_mib
from bench.samples import write_events
from raypipe import seeds
from raypipe.cluster.inputs import read_resident
from raypipe.cluster.runtime import ray_session
from raypipe.cluster.stream import COLUMNS, VIEW, stream_events
from raypipe.config import Resources
from raypipe.events.schema import tensor_values

BATCH = 1024
EACH, FILES = 125_000, (4, 16)
"""Events of a file, and files: half a million and two million events, for a search streams them in millions."""
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
    inputs, rows = read_resident(paths), 0
    for epoch in range(epochs):
        order = seeds.generator(1, "bench-epoch", epoch).permutation(len(inputs.group))
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            batch = inputs.batch(chosen, np.zeros((len(chosen), 1), np.float32))
            rows += _touch({name: torch.as_tensor(values) for name, values in batch.items()})
    return rows


def _line(sizes: list[int], *times: list[float]) -> dict[str, float]:
    """Start [s] and rate [events/s] of the line through median times at two sizes."""
    slope, start = np.polyfit(sizes, [float(np.median(t)) for t in times], 1)
    return {"start_seconds": float(start), "events_per_second_beyond_the_start": 1 / float(slope)}


def run(smoke: bool) -> list[Measurement]:
    """Two million events streamed and their memory against half a million; half a million resident."""
    few, many, each, repeats, epochs = (1, 4, 500, 1, 2) if smoke else (*FILES, EACH, 3, EPOCHS)
    reread, sizes = min(REREAD, epochs), [few * each, many * each]
    with tempfile.TemporaryDirectory() as folder, ray_session(Resources(cpus=2, object_store_gib=0.5)):
        made = [write_events(Path(folder) / f"{k}.parquet", each, k * each) for k in range(4)]
        kept, paths = made[:few], made * (many // 4)
        assert _consume(stream_events(kept)) == sizes[0]  # warm: workers are up, pages are cached
        peaks = [peak_mib(lambda given=given: _consume(stream_events(given)))[0] for given in (kept, paths)]
        small, large = (
            in_turn(repeats, WALL, lambda g=g: _consume(stream_events(g)), lambda g=g: _consume(plain_blocks(g)))[0]
            for g in (kept, paths)
        )
        again = lambda: [_consume(plain_blocks(kept)) for _ in range(reread)]  # noqa: E731
        resident, _ = in_turn(1 if smoke else 2, WALL, lambda: _resident_epochs(kept, epochs), again)
        (once,), _ = in_turn(repeats, WALL, lambda: read_resident(kept).group.shape)
    detail = {"events": sizes[1], "batch": BATCH, "time": time.strftime("%Y-%m-%d")}
    lines = {side: _line(sizes, small[k], large[k]) for k, side in enumerate(("ours", "pyarrow"))}
    at_small = {"events": sizes[0], "ratio": float(np.median(np.divide(small[1], small[0])))}
    about = {"lines": lines, "smaller": at_small, "events_per_second": sizes[1] / float(np.median(large[0]))}
    how = {"unit": "MiB", "meaning": "memory 4x / memory 1x", "at_most": True, "smaller": sizes[0]}
    read = {"epochs": epochs, "epochs_reread": reread, "seconds_to_read_once": float(np.median(once))}
    resident[1] = [t * epochs / reread for t in resident[1]]
    name = "events resident: epochs from memory, reading included, against pyarrow re-reading"
    return [
        compared("events streamed: Ray Data against pyarrow", *large, 0.5, **detail, **about),
        compared("events streamed: memory of a 4x larger input", peaks[1:], peaks[:1], 1.2, **how, **detail),
        compared(name, *resident, 3.0, **detail | {"events": sizes[0]}, **read),
    ]
