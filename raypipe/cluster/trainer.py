"""Ray Train runs of any training: checkpoints, restarts, progress, errors, and what its workers may have."""

import contextlib
import json
import math
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.distributed import is_nccl_available

from raypipe.cluster.runtime import cluster_address, nodes, places
from raypipe.errors import UserError, last_line
from raypipe.fit.training import OnEpoch, Training
from raypipe.progress import repeatedly
from raypipe.store.files import Store


@dataclass(frozen=True)
class TrainRun:
    """One run of Ray Train: what it is called and where, and what its workers get."""

    what: str  # For people: the training of what
    name: str  # A run that was interrupted goes on under the same name
    store: Store  # All that it leaves is in ``train/``
    workers: int = 1
    cpus: float = 1.0
    gpus: float = 0.0
    max_failures: int = 0
    nccl: bool = False  # Whether the workers exchange GPU tensors; each has a GPU of its own then
    in_tune: bool = False  # Whether a trial of Ray Tune drives it, which then gets the records, too

    def fit(
        self, loop: Callable[[dict[str, Any]], None], given: dict[str, Any], on_epoch: OnEpoch | None = None
    ) -> Any:
        """Run ``loop`` on every worker with ``given``, ``threads`` and ``run`` (this); what Ray Train returns.

        A worker that dies is restarted, with all others, from the last checkpoint. ``on_epoch`` is called in this
        process with each record that `go_on` writes. A worker that raises, or dies too often, is a `UserError`.
        """
        from ray import train
        from ray.train.torch import TorchConfig, TorchTrainer
        from ray.tune.integration.ray_train import TuneReportCallback

        where = {"storage_filesystem": self.store.filesystem} if self.store.local is None else {}
        each = {"CPU": self.cpus, **({"GPU": self.gpus} if self.gpus else {})}
        crew = {"num_workers": self.workers, "use_gpu": self.gpus > 0, "resources_per_worker": each}
        trainer = TorchTrainer(
            loop,
            train_loop_config=given | {"threads": max(1, int(self.cpus)), "run": self},
            torch_config=TorchConfig("nccl" if self.nccl and is_nccl_available() else "gloo"),
            scaling_config=train.ScalingConfig(**crew),
            run_config=train.RunConfig(
                name=self.name,
                storage_path=f"{self.store.path}/train",
                failure_config=train.FailureConfig(max_failures=self.max_failures),
                checkpoint_config=train.CheckpointConfig(num_to_keep=2),
                callbacks=[TuneReportCallback()] if self.in_tune else None,
                **where,
            ),
        )
        before = signal.getsignal(signal.SIGINT)
        with _followed(self, on_epoch) if on_epoch else contextlib.nullcontext():
            try:
                return trainer.fit()
            except Exception as error:  # Ray wraps a worker's exception; its cause is what a user can act on
                raise UserError(f"{self.what} training failed: {last_line(error)}") from error
            finally:
                if threading.current_thread() is threading.main_thread():
                    signal.signal(signal.SIGINT, before)  # Ray Train leaves a handler of its own

    def final(self, result: Any) -> dict[str, Any]:
        """The state in the last checkpoint of what `fit` returned."""
        if (state := _loaded(result.checkpoint, 0)) is None:
            raise UserError(f"{self.what} training ended without a checkpoint")
        return state

    def write(self, name: str, data: bytes) -> None:
        """A file of this run."""
        self.store.write(f"train/{self.name}-files/{name}", data)

    def read(self, name: str) -> bytes:
        """What `write` wrote; nothing if it did not."""
        return self.store.read(f"train/{self.name}-files/{name}") or b""

    def records(self) -> list[dict[str, Any]]:
        """What `go_on` has written so far, of every epoch."""
        return json.loads(self.read("epochs.json") or b"[]")

    def remove(self) -> None:
        """Everything that this run has left."""
        self.store.drop(f"train/{self.name}")
        self.store.drop(f"train/{self.name}-files")


def resumed(training: Training | None = None) -> dict[str, Any] | None:
    """In a worker: the state that this worker, or rank 0, has left in the last checkpoint; ``training`` takes it."""
    from ray import train

    state = _loaded(train.get_checkpoint(), train.get_context().get_world_rank())
    if training is not None and state is not None:
        training.load_state(state)
    return state


def _loaded(checkpoint: Any, rank: int) -> dict[str, Any] | None:
    if checkpoint is None:
        return None
    with checkpoint.as_directory() as folder:
        path = Path(folder) / f"{rank}.pt"
        path = path if path.exists() else path.with_name("0.pt")
        return torch.load(path, weights_only=True, map_location="cpu")


def go_on(
    training: Training, run: TrainRun, beside: dict[str, Any] | None = None, told: dict[str, Any] | None = None
) -> None:
    """In a worker: run all epochs left, each with a checkpoint (with ``beside``) and a record (with ``told``)."""
    from ray import train

    rank, stack = train.get_context().get_world_rank(), (told or {}).get("stack", 0)
    # Without those of epochs that are run again.
    records = [r for r in run.records() if (r.get("stack", 0), r["epoch"]) < (stack, training.epoch)]
    while not training.finished:
        record = training.run_epoch() | (told or {})
        with tempfile.TemporaryDirectory() as folder:
            saved = None
            if rank == 0 or beside is not None:
                torch.save(training.state() | (beside or {}), Path(folder) / f"{rank}.pt")
                saved = train.Checkpoint.from_directory(folder)
            if rank == 0:
                records.append(record)
                run.write("epochs.json", json.dumps(records).encode())
            train.report(record, checkpoint=saved)


@contextlib.contextmanager
def _followed(run: TrainRun, on_epoch: OnEpoch) -> Iterator[None]:
    """Hand each new record of a run to ``on_epoch``, from a thread of the driver."""
    seen = 0

    def follow() -> None:
        nonlocal seen
        for record in (records := run.records())[seen:]:
            on_epoch(record)
        seen = max(seen, len(records))

    try:
        with repeatedly(follow, 0.5):
            yield
    finally:
        follow()


def worker_cpus(workers: int, *, gpu: bool = False, streamed: bool = False) -> float:
    """Cores, in halves, of each of so many Train workers: the most with which all find a place, else a `UserError`."""
    first_node(gpu)
    cores = [node.get("CPU", 0.0) for node in nodes() if not gpu or node.get("GPU")]
    largest = math.floor(2 * max(cores)) / 2
    for cpus in np.arange(largest, 0.0, -0.5):
        if places(cpus, gpu) >= workers and cpus * workers <= sum(cores) - streamed:
            return float(cpus)
    if places(0.5, gpu) >= workers:  # the stream has to share
        return 0.5
    if cluster_address() is None:
        found = f"this machine has places for {places(0.5, gpu)}, of half a core{' and a GPU' if gpu else ''} each"
        raise UserError(f"resources.train_workers = {workers}: {found}")
    return largest  # a node for each, as they come up


def side_by_side(encoders: int, workers: int, *, gpu: bool = False) -> int:
    """How many of so many encoders train at the same time: each has ``workers`` nodes, or GPUs, of its own."""
    first_node(gpu)
    found = places(0.5, gpu) if gpu else sum(node.get("CPU", 0.0) >= 0.5 for node in nodes())
    return max(1, min(encoders, found // workers))


def first_node(gpu: float) -> None:
    """Wait until a node is up that a worker could use; a `UserError` if there never will be one."""
    import ray

    if places(0.5, gpu):
        return
    if cluster_address() is None:
        raise UserError("resources.gpu = true: this machine gives Ray no GPU")
    ray.get(ray.remote(num_cpus=0.5, num_gpus=gpu)(int).remote())
