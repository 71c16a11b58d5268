"""Where the encoder's training events lie: resident in memory when they fit, else in files mapped into memory.

Both give the same batches, since a batch is a function of seed and step (`raypipe.fit.batches.BatchPlan`).
"""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa

from raypipe.cluster.machine import usable_cores
from raypipe.cluster.stream import BLOCK, BYTES_PER_EVENT, VIEW, pieces, read_piece, stream_events
from raypipe.config import Config, Embedding
from raypipe.events.diphoton import View
from raypipe.events.table import count_rows, read_table, sample_path
from raypipe.files import digest
from raypipe.fit.batches import BatchPlan
from raypipe.fit.encoder import EncoderInputs, EncoderTraining, rank_batches

RESIDENT_SHARE = 0.25  # Share of a machine's memory that resident events may take


@dataclass(frozen=True)
class EventSource:
    """The training events of an encoder: ``resident`` (a Ray object reference) or ``mapped`` (folder of .npy files)."""

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
    """The events of Parquet files in memory, sorted by id: the same arrays as from `stream_events`, without Ray.

    Threads (one a core when not given) decode pieces of the files straight into the finished arrays.
    """
    ids = _ids(paths)
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


def _ids(paths: list[str]) -> np.ndarray:
    return np.concatenate([read_table(path, ["event_id"])["event_id"].to_numpy() for path in paths])


def _shapes(rows: int) -> dict[str, tuple[tuple[int, ...], type]]:
    """Shape and type of every array of `EncoderInputs`."""
    events = {"objects": ((rows, 11, 12), np.float32), "event": ((rows, 2), np.float32)}
    return {"event_id": ((rows,), np.int64), **events, "group": ((rows,), np.int64)}


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
    paths = _paths(config, events)
    ids = np.sort(_ids(paths), kind="stable")
    files = {
        name: np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=dtype, shape=shape)
        for name, (shape, dtype) in _shapes(rows).items()
    }
    for block in stream_events(paths, View.of(config.embedding)):
        place = np.searchsorted(ids, block["event_id"])
        for name, file in files.items():
            file[place] = block[name]
    for file in files.values():
        file.flush()
    return folder


def rank_stream(
    source: EventSource, plan: BatchPlan, plan_ref: Any, steps: range, config: Embedding, training: EncoderTraining
) -> Iterator[dict[str, Any]]:
    """This worker's batches of ``steps`` for a training, in order.

    The plan (``plan_ref``: the same in the object store) is a function of (seed, step), so they start at any step. From
    mapped files Ray Data tasks prepare them ahead, in one pipeline for all epochs; what is in memory needs none, and on
    a GPU is copied there once.
    """
    workers = training.workers
    if source.mapped is None:
        inputs = source.load() if training.device.type == "cpu" else source.load().on(training.device)
        yield from rank_batches(inputs, plan, steps, config, workers.rank, workers.size)
        return
    import ray
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    blocks = np.array_split(np.arange(steps.start, steps.stop), max(1, len(steps) // 8))
    given = {"source": source, "plan": plan_ref, "config": config, "rank": workers.rank, "workers": workers.size}
    gather = partial(_gather, **given)
    how = {"batch_size": None, "batch_format": "numpy", "zero_copy_batch": True, "num_cpus": 0.25}
    dataset = ray.data.from_arrow([pa.table({"step": b}) for b in blocks]).map_batches(gather, **how)
    # streaming_split moves the executor into an actor of its own; in this process it would compete with the training.
    (shard,) = dataset.streaming_split(1)
    share = config.batch_size // workers.size
    batches = shard.iter_batches(batch_size=share, batch_format="numpy", prefetch_batches=2)
    for expected, batch in zip(steps, batches, strict=True):
        if ((step := batch.pop("step")) != expected).any():
            raise RuntimeError(f"the stream gave step {step[0]} where {expected} was due")
        yield batch


def _gather(
    steps: dict[str, np.ndarray], source: EventSource, plan: Any, config: Embedding, rank: int, workers: int
) -> dict[str, np.ndarray]:
    """Ray Data transform: step numbers -> the rows of a worker's slice of those global batches."""
    import ray

    batches = list(rank_batches(source.load(), ray.get(plan), map(int, steps["step"]), config, rank, workers))
    out = {name: np.concatenate([b[name] for b in batches]) for name in batches[0]}
    return out | {"step": np.repeat(steps["step"], len(batches[0]["group"]))}
