"""Parquet events to torch tensors: streamed by Ray Data, and resident, against plain pyarrow.

Both sides make the same tensors of the same columns. Streamed: one pass over the files, after a first one (workers up,
pages cached), at two sizes: a line through them parts the start of a Ray Data execution from its rate. Resident: read
once, then epochs of shuffled batches from memory, as many as the shipped study trains, against reading the files by
pyarrow in every epoch. Memory is that of this process and all its children (Ray's), what they share left out.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import torch

from raypipe import seeds
from raypipe.bench.base import Measurement, compared, in_turn, seconds
from raypipe.bench.samples import write_events
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


def private_memory() -> int:
    """Bytes of this process and its children that no other shares."""
    total = 0
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        try:
            memory = process.memory_info()
        except psutil.NoSuchProcess:  # a worker that ended meanwhile
            continue
        total += memory.rss - memory.shared
    return total


class PeakMemory:
    """Largest `private_memory` within the block, sampled ten times a second."""

    def __enter__(self) -> PeakMemory:
        self.peak, self._stop = private_memory(), threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.wait(0.1):
            self.peak = max(self.peak, private_memory())

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


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


def _files(folder: Path, count: int, each: int) -> list[str]:
    """``count`` event files; only the first four are made, the others are links: Ray reads a path only once."""
    made = [write_events(folder / f"{k}.parquet", each, k * each) for k in range(min(4, count))]
    paths = [folder / f"link-{k}.parquet" for k in range(count)]
    for k, path in enumerate(paths):
        os.link(made[k % len(made)], path)
    return [str(path) for path in paths]


def _line(sizes: list[int], times: list[list[float]]) -> dict[str, float]:
    """Start [s] and rate [events/s] of the line through median times at two sizes."""
    slope, start = np.polyfit(sizes, [float(np.median(t)) for t in times], 1)
    return {"start_seconds": float(start), "events_per_second_beyond_the_start": 1 / float(slope)}


def run(smoke: bool) -> list[Measurement]:
    """Two million events streamed and their memory against half a million; half a million resident."""
    few, many, each, repeats, epochs = (1, 4, 500, 1, 2) if smoke else (*FILES, EACH, 3, EPOCHS)
    reread, sizes, peaks = min(REREAD, epochs), [few * each, many * each], []
    with tempfile.TemporaryDirectory() as folder, ray_session(Resources(cpus=2, object_store_gib=0.5)):
        paths = _files(Path(folder), many, each)
        kept = paths[:few]
        _consume(stream_events(kept))  # warm: workers are up, pages are cached
        for given in (kept, paths):
            with PeakMemory() as peak:
                assert _consume(stream_events(given)) == len(given) * each
            peaks.append(peak.peak / 2**20)
        small, large = (
            in_turn(lambda g=g: _consume(stream_events(g)), lambda g=g: _consume(plain_blocks(g)), repeats)
            for g in (kept, paths)
        )
        again = lambda: [_consume(plain_blocks(kept)) for _ in range(reread)]  # noqa: E731
        resident = in_turn(lambda: _resident_epochs(kept, epochs), again, 1 if smoke else 2)
        once = [seconds(lambda: read_resident(kept)) for _ in range(repeats)]
    lines = {side: _line(sizes, [small[k], large[k]]) for k, side in enumerate(("ours", "pyarrow"))}
    detail = {"events": sizes[1], "batch": BATCH, "time": time.strftime("%Y-%m-%d")}
    at_small = {"events": sizes[0], "ratio": float(np.median(np.divide(small[1], small[0])))}
    about = {"lines": lines, "smaller": at_small, "events_per_second": sizes[1] / float(np.median(large[0]))}
    rows = [compared("events streamed: Ray Data against pyarrow", *large, 0.5, **detail, **about)]
    name, how = "events streamed: memory of a 4x larger input", {"unit": "MiB", "meaning": "memory 4x / memory 1x"}
    rows.append(compared(name, peaks[1:], peaks[:1], 1.2, at_most=True, **how, **detail, smaller=sizes[0]))
    name = "events resident: epochs from memory, reading included, against pyarrow re-reading"
    detail |= {"events": sizes[0], "epochs": epochs, "epochs_reread": reread}
    all_read = [t * epochs / reread for t in resident[1]]
    once = {"seconds_to_read_once": float(np.median(once))}
    return [*rows, compared(name, resident[0], all_read, 3.0, **detail, **once)]
