"""Parquet events to torch tensors: streamed by Ray Data, and resident, against plain pyarrow.

Both sides make the same tensors of the same columns. Streamed: one pass over the files, after a first one (workers up,
pages cached). Resident: read once by Ray Data, then epochs of shuffled batches from memory, against reading the files
by pyarrow in every epoch. Memory is that of this process and all its children (Ray's), what they share left out.
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
from raypipe.bench.base import Measurement, alternate, speed_up
from raypipe.bench.samples import write_events
from raypipe.cluster.inputs import COLUMNS, stream_events
from raypipe.cluster.runtime import ray_session
from raypipe.config import Resources
from raypipe.events.schema import tensor_values
from raypipe.fit.encoder import EncoderInputs

BATCH = 1024
EPOCHS = 10


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


def _consume(blocks: Iterator[dict[str, np.ndarray]]) -> int:
    """Turn blocks into torch batches and touch each once."""
    rows = 0
    for block in blocks:
        tensors = {name: torch.as_tensor(np.array(values)) for name, values in block.items()}
        for start in range(0, len(tensors["group"]), BATCH):
            batch = {name: values[start : start + BATCH] for name, values in tensors.items()}
            assert torch.isfinite(batch["objects"][:, :, 0].sum())
            rows += len(batch["group"])
    return rows


def plain_blocks(paths: list[str]) -> Iterator[dict[str, np.ndarray]]:
    """The same arrays by pyarrow alone."""
    columns = [*COLUMNS, "pt_yy", "dr_yy"]
    for path in paths:
        for block in pq.ParquetFile(path).iter_batches(batch_size=8 * BATCH, columns=columns):
            yield {
                "event_id": block["event_id"].to_numpy(),
                "objects": tensor_values(block["objects"]),
                "event": np.stack([block["pt_yy"].to_numpy(), block["dr_yy"].to_numpy()], axis=1),
                "group": block["group"].to_numpy().astype(np.int64),
            }


def _resident_epochs(paths: list[str], epochs: int) -> int:
    parts = list(stream_events(paths))
    inputs = EncoderInputs(**{name: np.concatenate([part[name] for part in parts]) for name in parts[0]})
    rows = 0
    for epoch in range(epochs):
        order = seeds.generator(1, "bench-epoch", epoch).permutation(len(inputs.group))
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            batch = inputs.batch(chosen, np.zeros((len(chosen), 1), np.float32))
            tensors = {name: torch.as_tensor(values) for name, values in batch.items()}
            assert torch.isfinite(tensors["objects"][:, :, 0].sum())
            rows += len(chosen)
    return rows


def run(smoke: bool) -> list[Measurement]:
    """Four files, and sixteen for the memory."""
    count, each, repeats, epochs = (1, 500, 1, 2) if smoke else (4, 25_000, 5, EPOCHS)
    rows = count * each
    with tempfile.TemporaryDirectory() as folder, ray_session(Resources(cpus=2, object_store_gib=0.5)):
        paths = [write_events(Path(folder) / f"{k}.parquet", each, k * each) for k in range(count)]
        more = [f"{path}.{k}.parquet" for path in paths for k in range(4)]
        for name in more:
            os.link(name.rsplit(".", 2)[0], name)  # Ray reads a path once only, however often it is given
        if not smoke:
            _consume(stream_events(paths))  # warm: workers are up, pages are cached
        with PeakMemory() as small:
            _consume(stream_events(paths))
        large_rows = 0
        with PeakMemory() as large:
            large_rows = _consume(stream_events(more))
        assert large_rows == 4 * rows
        streamed = alternate(lambda: _consume(stream_events(paths)), lambda: _consume(plain_blocks(paths)), repeats)
        resident = alternate(
            lambda: _resident_epochs(paths, epochs), lambda: [_consume(plain_blocks(paths)) for _ in range(epochs)],
            max(1, repeats // 2),
        )  # fmt: skip
    detail = {"events": rows, "batch": BATCH, "time": time.strftime("%Y-%m-%d")}
    return [
        speed_up("events streamed: Ray Data against pyarrow", *streamed, 0.5, **detail,
                 events_per_second=rows / float(np.median(streamed[0]))),
        Measurement("events streamed: memory of a 4x larger input", large.peak / 2**20, small.peak / 2**20, "MiB",
                    [large.peak / small.peak], "memory 4x / memory 1x", 1.2, at_most=True, detail=detail),
        speed_up("events resident: epochs from memory against pyarrow re-reading", *resident, 3.0, **detail,
                 epochs=epochs),
    ]  # fmt: skip
