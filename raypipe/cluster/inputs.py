"""Where the encoder's training events lie: resident in memory when they fit, else in files mapped into memory."""

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
from numpy.lib.format import open_memmap

from raypipe.cluster.machine import usable_cores
from raypipe.config import Config, Embedding
from raypipe.events.diphoton import View
from raypipe.events.table import ROW_GROUP, count_rows, read_rows, read_table, sample_path
from raypipe.files import digest
from raypipe.fit.batches import BatchPlan
from raypipe.fit.encoder import EncoderInputs, EncoderTraining, rank_batches

RESIDENT_SHARE = 0.25  # Share of a machine's memory that resident events may take
COLUMNS = ["event_id", "group"]  # Columns that every encoder reads beside those of its `View`
VIEW = View()
BYTES_PER_EVENT = 8 + 8 + 2 * 4 + 11 * 12 * 4
BLOCK = 2 * ROW_GROUP  # Rows of a block, 18 MB: whole row groups; a thread holds one

Piece = tuple[str, int, int]  # (path, first row, end row)


def pieces(paths: list[str], rows: int) -> list[Piece]:
    """The files cut into pieces of at most ``rows`` rows."""
    totals = [(path, count_rows(path)) for path in paths]
    return [(path, at, min(at + rows, total)) for path, total in totals for at in range(0, total, rows)]


def piece_tables(paths: list[str], rows: int) -> list[pa.Table]:
    """`pieces` for Ray Data, each a table of one row: path, start, stop."""
    return [pa.table({"path": [path], "start": [a], "stop": [b]}) for path, a, b in pieces(paths, rows)]


def read_piece(piece: Piece, view: View = VIEW) -> dict[str, np.ndarray]:
    """The arrays of one piece in the view of an encoder, views of Arrow's memory where they are stored like that."""
    table = read_rows(piece[0], [*COLUMNS, *view.columns], *piece[1:])
    seen = {"event_id": table["event_id"].to_numpy(), "objects": view.objects(table), "event": view.event(table)}
    return seen | {"group": table["group"].to_numpy().astype(np.int64)}


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


def read_inputs(config: Config, events: Path, folder: Path | None = None) -> EncoderInputs:
    """`read_events` of the embedding split of all configured samples."""
    return read_events(_paths(config, events), View.of(config.embedding), config.resources.cpus, folder)


def read_events(
    paths: list[str], view: View = VIEW, threads: int | None = None, folder: Path | None = None
) -> EncoderInputs:
    """The events of Parquet files, sorted by id: in memory, or in .npy files in ``folder`` that are mapped into it."""
    ids = np.concatenate([read_table(path, ["event_id"])["event_id"].to_numpy() for path in paths])
    place = np.empty(len(ids), np.int64)
    place[np.argsort(ids, kind="stable")] = np.arange(len(ids))
    parts = pieces(paths, BLOCK)
    starts = np.cumsum([0, *(stop - start for _, start, stop in parts)])
    arrays: dict[str, np.ndarray] = {}
    for name, (shape, dtype) in _shapes(len(ids)).items():
        how = {"dtype": dtype, "shape": shape}
        arrays[name] = np.empty(**how) if folder is None else open_memmap(folder / f"{name}.npy", "w+", **how)

    def put(number: int) -> None:
        rows = place[starts[number] : starts[number + 1]]
        if (np.diff(rows) == 1).all():  # already in order: one plain copy
            rows = slice(rows[0], rows[-1] + 1)
        for name, values in read_piece(parts[number], view).items():
            arrays[name][rows] = values

    with ThreadPoolExecutor(threads or usable_cores()) as pool:
        list(pool.map(put, range(len(parts))))
    for array in arrays.values() if folder else ():
        array.flush()
    return EncoderInputs(**arrays)


def _shapes(rows: int) -> dict[str, tuple[tuple[int, ...], type]]:
    """Shape and type of every array of `EncoderInputs`."""
    events = {"objects": ((rows, 11, 12), np.float32), "event": ((rows, 2), np.float32)}
    return {"event_id": ((rows,), np.int64), **events, "group": ((rows,), np.int64)}


def event_source(config: Config, events: Path, scratch: Path, at_once: int = 1) -> tuple[EventSource, EncoderInputs]:
    """Put the training events where the workers can read them: the object store, or files below ``scratch``.

    In memory as far as `resources.resident_gib` allows for all ``at_once`` (a quarter of the machine's when not given).
    """
    import ray

    rows = sum(count_rows(path) for path in _paths(config, events))
    gib = config.resources.resident_gib
    limit = RESIDENT_SHARE * psutil.virtual_memory().total if gib is None else gib * 2**30
    if rows * BYTES_PER_EVENT * at_once <= limit:
        inputs = read_inputs(config, events)
        return EventSource(resident=ray.put(inputs)), inputs
    folder = scratch / f"mapped-{digest([config.embedding.samples, rows])}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return EventSource(mapped=str(folder)), read_inputs(config, events, folder)


def _paths(config: Config, events: Path) -> list[str]:
    return [str(sample_path(events, "embedding", name)) for name in config.embedding.samples]


def rank_stream(
    source: EventSource, plan: BatchPlan, plan_ref: Any, steps: range, config: Embedding, training: EncoderTraining
) -> Iterator[dict[str, Any]]:
    """This worker's batches of ``steps`` for a training, in order, from any step.

    From mapped files Ray Data tasks prepare them ahead, in one pipeline for all epochs; what is in memory needs none,
    and on a GPU is copied there once. ``plan_ref``: the plan in the object store.
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
