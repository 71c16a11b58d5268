"""Where the encoder's training events lie: resident in memory when they fit, else in files mapped into memory.

Both give the same batches, since a batch is a function of seed and step (`raypipe.fit.batches.BatchPlan`). Resident
events need no pipeline beside the training, which on two cores would cost it one of them.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import torch

from raypipe.cluster.machine import usable_cores
from raypipe.cluster.stream import BLOCK, BYTES_PER_EVENT, VIEW, pieces, read_piece, stream_events
from raypipe.config import Config, Embedding
from raypipe.events.diphoton import View
from raypipe.events.table import count_rows, read_table, sample_path
from raypipe.files import digest
from raypipe.fit.batches import BatchPlan
from raypipe.fit.encoder import EncoderInputs, rank_batches

RESIDENT_SHARE = 0.25
"""Share of a machine's memory that resident events may take."""


@dataclass(frozen=True)
class EventSource:
    """The training events of one encoder.

    Exactly one of ``resident`` (a Ray object reference) and ``mapped`` (a folder of .npy files) is set.
    """

    resident: Any = None
    mapped: str | None = None

    def load(self) -> EncoderInputs:
        """The events; arrays are read-only views of the object store or of the mapped files."""
        if self.mapped is not None:
            names = EncoderInputs.__dataclass_fields__
            return EncoderInputs(**{name: np.load(Path(self.mapped) / f"{name}.npy", mmap_mode="r") for name in names})
        import ray

        return ray.get(self.resident)


def read_inputs(config: Config, events: Path) -> EncoderInputs:
    """All embedding-split events of the configured samples in memory, sorted by id."""
    return read_resident(_paths(config, events), View.of(config.embedding), config.resources.cpus)


def read_resident(paths: list[str], view: View = VIEW, threads: int | None = None) -> EncoderInputs:
    """The events of Parquet files in memory, sorted by id: the same arrays as from `stream_events`.

    Threads (one a core when not given) decode pieces of the files straight into the finished arrays. No Ray: what fits
    into one process is read there in less time than tasks take to start.
    """
    ids = np.concatenate([read_table(path, ["event_id"])["event_id"].to_numpy() for path in paths])
    place = np.empty(len(ids), np.int64)
    place[np.argsort(ids, kind="stable")] = np.arange(len(ids))
    parts = pieces(paths, BLOCK)
    starts = np.cumsum([0, *(stop - start for _, start, stop in parts)])
    arrays = {name: np.empty(shape, dtype) for name, (shape, dtype) in _shapes(len(ids)).items()}

    def put(number: int) -> None:
        rows = place[starts[number] : starts[number + 1]]
        if (np.diff(rows) == 1).all():  # already in order: one plain copy
            rows = slice(rows[0], rows[-1] + 1)
        for name, values in read_piece(parts[number], view).items():
            arrays[name][rows] = values

    with ThreadPoolExecutor(threads or usable_cores()) as pool:
        list(pool.map(put, range(len(parts))))
    return EncoderInputs(**arrays)


def _shapes(rows: int) -> dict[str, tuple[tuple[int, ...], type]]:
    """Shape and type of every array of `EncoderInputs`."""
    return {
        "event_id": ((rows,), np.int64),
        "objects": ((rows, 11, 12), np.float32),
        "event": ((rows, 2), np.float32),
        "group": ((rows,), np.int64),
    }


def event_source(config: Config, events: Path, scratch: Path, at_once: int = 1) -> tuple[EventSource, EncoderInputs]:
    """Put the training events where the workers can read them: the object store, or files below ``scratch``.

    `resources.resident_gib` bounds what is held in memory (a quarter of the machine's when not given) by all encoders
    that train ``at_once``.
    """
    import ray

    rows = sum(count_rows(path) for path in _paths(config, events))
    gib = config.resources.resident_gib
    limit = RESIDENT_SHARE * psutil.virtual_memory().total if gib is None else gib * 2**30
    if rows * BYTES_PER_EVENT * at_once <= limit:
        inputs = read_inputs(config, events)
        return EventSource(resident=ray.put(inputs)), inputs
    source = EventSource(mapped=str(_map_to_files(config, events, scratch, rows)))
    return source, source.load()


def _paths(config: Config, events: Path) -> list[str]:
    return [str(sample_path(events, "embedding", name)) for name in config.embedding.samples]


def _map_to_files(config: Config, events: Path, scratch: Path, rows: int) -> Path:
    """Write the events as .npy files sorted by id, one block in memory at a time."""
    folder = scratch / f"mapped-{digest([config.embedding.samples, rows])}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    ids = pa.concat_tables([read_table(path, ["event_id"]) for path in _paths(config, events)])["event_id"].to_numpy()
    ids = np.sort(ids, kind="stable")
    files = {
        name: np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=dtype, shape=shape)
        for name, (shape, dtype) in _shapes(rows).items()
    }
    for block in stream_events(_paths(config, events), View.of(config.embedding)):
        place = np.searchsorted(ids, block["event_id"])
        for name, file in files.items():
            file[place] = block[name]
    for file in files.values():
        file.flush()
    return folder


def resident_batches(
    inputs: EncoderInputs,
    plan: BatchPlan,
    steps: range,
    config: Embedding,
    *,
    rank: int,
    workers: int,
    device: torch.device,
) -> Iterator[dict[str, Any]]:
    """This worker's batches of ``steps`` from memory; on a GPU the events are copied there once."""
    inputs = inputs if device.type == "cpu" else inputs.on(device)
    return rank_batches(inputs, plan, steps, config, rank, workers)
