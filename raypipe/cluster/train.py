"""Ray Train runs of any training: the encoder on all its workers, the autoencoder on one, the flows (`.flows`)."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.distributed import is_nccl_available

from raypipe.cluster.address import cluster_address
from raypipe.cluster.inputs import event_source, rank_stream
from raypipe.cluster.runtime import limit_threads, places
from raypipe.config import Config, Embedding
from raypipe.config.haxad import HaxadConfig
from raypipe.errors import UserError
from raypipe.events.continuous import continuous_features
from raypipe.events.schema import tensor_values
from raypipe.events.table import read_table, sample_path
from raypipe.files import atomic_path, make_directory, read_json, write_json
from raypipe.fit.batches import PARTS, parts_of
from raypipe.fit.encoder import EncoderPlan, EncoderTraining, build_encoder, rank_batches, wrapped
from raypipe.fit.training import OnEpoch, Training
from raypipe.fit.vae import VaeTraining
from raypipe.models.encoder import ContrastiveEncoder
from raypipe.search.embeddings import encoder_key
from raypipe.store.files import Store

MEMORY = 2**29
"""Bytes that the process asks for which drives one of several trainings: it waits, and holds one encoder's events."""


def load_encoder(folder: Path, key: str | None = None) -> tuple[ContrastiveEncoder, dict[str, Any]] | None:
    """The finished encoder of ``folder`` with its record, or None if there is none (or one of another key)."""
    path = folder / "encoder.json"
    record = read_json(path) if path.exists() else None
    if not record or key not in (None, record.get("key")):
        return None
    encoder = build_encoder(Embedding.model_validate(record["embedding"]))
    encoder.load_state_dict(torch.load(folder / "encoder.pt", weights_only=True, map_location="cpu"))
    return encoder.eval(), record


@dataclass(frozen=True)
class TrainRun:
    """One run of Ray Train: what it is called and where, and what its workers get."""

    what: str
    """For people: the training of what."""
    name: str
    """A run that was interrupted goes on under the same name."""
    store: Store
    """All that it leaves is in ``train/``."""
    workers: int = 1
    cpus: float = 1.0
    gpus: float = 0.0
    max_failures: int = 0
    nccl: bool = False
    """Whether the workers exchange GPU tensors; each has a GPU of its own then."""
    in_tune: bool = False
    """Whether a trial of Ray Tune drives it, which then gets the records, too."""

    def fit(
        self, loop: Callable[[dict[str, Any]], None], given: dict[str, Any], on_epoch: OnEpoch | None = None
    ) -> Any:
        """Run ``loop`` on every worker with ``given``, ``threads`` and ``run`` (this); what Ray Train returns.

        A worker that dies is restarted, with all others, from the last checkpoint.

        Args:
            on_epoch: called in this process with each record that `go_on` writes.

        Raises:
            UserError: a worker raised an exception, or died too often.
        """
        from ray import train
        from ray.train.torch import TorchConfig, TorchTrainer
        from ray.tune.integration.ray_train import TuneReportCallback

        where = {"storage_filesystem": self.store.filesystem} if self.store.local is None else {}
        each = {"CPU": self.cpus, **({"GPU": self.gpus} if self.gpus else {})}
        trainer = TorchTrainer(
            loop,
            train_loop_config=given | {"threads": max(1, int(self.cpus)), "run": self},
            torch_config=TorchConfig("nccl" if self.nccl and is_nccl_available() else "gloo"),
            scaling_config=train.ScalingConfig(
                num_workers=self.workers, use_gpu=self.gpus > 0, resources_per_worker=each
            ),
            run_config=train.RunConfig(
                name=self.name,
                storage_path=f"{self.store.path}/train",
                failure_config=train.FailureConfig(max_failures=self.max_failures),
                checkpoint_config=train.CheckpointConfig(num_to_keep=2),
                callbacks=[TuneReportCallback()] if self.in_tune else None,
                **where,
            ),
        )
        with _followed(self, on_epoch):
            try:
                return trainer.fit()
            except Exception as error:  # Ray wraps a worker's exception; its cause is what a user can act on
                raise UserError(f"{self.what} training failed: {_last_line(error)}") from error

    def final(self, result: Any) -> dict[str, Any]:
        """The state in the last checkpoint of what `fit` returned."""
        if result.checkpoint is None:
            raise UserError(f"{self.what} training ended without a checkpoint")
        return _loaded(result.checkpoint, 0)

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
        for folder in (self.name, f"{self.name}-files"):
            self.store.drop(f"train/{folder}")


def resumed() -> dict[str, Any] | None:
    """In a worker: the state that this worker, or rank 0, has left in the last checkpoint."""
    from ray import train

    checkpoint = train.get_checkpoint()
    return None if checkpoint is None else _loaded(checkpoint, train.get_context().get_world_rank())


def _loaded(checkpoint: Any, rank: int) -> dict[str, Any]:
    with checkpoint.as_directory() as folder:
        path = Path(folder) / f"{rank}.pt"
        path = path if path.exists() else path.with_name("0.pt")
        return torch.load(path, weights_only=True, map_location="cpu")


def go_on(
    training: Training, run: TrainRun, beside: dict[str, Any] | None = None, told: dict[str, Any] | None = None
) -> None:
    """In a worker: run all epochs that are left, each with a checkpoint and a record for the driver.

    Args:
        beside: for a training of which every worker has a state of its own: what goes into each checkpoint beside it.
        told: goes into every record.
    """
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
def _followed(run: TrainRun, on_epoch: OnEpoch | None) -> Iterator[None]:
    """Hand each new record of a run to ``on_epoch``, from a thread of the driver."""
    seen, stop = 0, threading.Event()

    def follow() -> None:
        nonlocal seen
        while on_epoch:
            last = stop.wait(0.5)
            for record in (records := run.records())[seen:]:
                on_epoch(record)
            seen = max(seen, len(records))
            if last:
                return

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].removeprefix("raypipe.errors.UserError: ") if lines else type(error).__name__


def worker_cpus(workers: int, *, gpu: bool = False, streamed: bool = False) -> float:
    """Cores, in halves, that each of so many Train workers can have: the most with which all of them find a place.

    A stream needs a core for the tasks that prepare batches: Ray Data's ask for a whole one, and a second thread of the
    training would lose more time waiting for a core at every barrier than it gains.

    Raises:
        UserError: this machine has no place for so many; a cluster may grow.
    """
    import ray

    first_node(gpu)
    offers = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    nodes = [offer.get("CPU", 0.0) for offer in offers if not gpu or offer.get("GPU")]
    largest = math.floor(2 * max(nodes)) / 2
    choices = np.arange(largest, 0.0, -0.5)
    fitting = [c for c in choices if places(c, gpu) >= workers and c * workers <= sum(nodes) - streamed]
    if fitting:
        return float(fitting[0])
    if places(0.5, gpu) >= workers:  # the stream has to share
        return 0.5
    if cluster_address() is None:
        found = f"this machine has places for {places(0.5, gpu)}, of half a core{' and a GPU' if gpu else ''} each"
        raise UserError(f"resources.train_workers = {workers}: {found}")
    return largest  # a node for each, as they come up


def side_by_side(encoders: int, workers: int, *, gpu: bool = False) -> int:
    """How many of so many encoders train at the same time: each has ``workers`` nodes, or GPUs, of its own.

    On one machine without several GPUs that is one: two would only share its cores.
    """
    import ray

    first_node(gpu)
    nodes = sum(node["Resources"].get("CPU", 0.0) >= 0.5 for node in ray.nodes() if node["Alive"])
    return max(1, min(encoders, (places(0.5, gpu) if gpu else nodes) // workers))


def first_node(gpu: float) -> None:
    """Wait until a node is up that a worker could use: a cluster that grows shows what its nodes are by the first.

    Raises:
        UserError: there is none, and there never will be.
    """
    import ray

    if places(0.5, gpu):
        return
    if cluster_address() is None:
        raise UserError("resources.gpu = true: this machine gives Ray no GPU")
    ray.get(ray.remote(num_cpus=0.5, num_gpus=gpu)(int).remote())


def train_encoders(
    jobs: Sequence[tuple[Config, Path]],
    events: Path,
    manifest: dict[str, Any],
    at_once: int,
    on_epoch: OnEpoch | None = None,
) -> None:
    """`train_encoder` of each (configuration, folder): trials of Ray Tune, so many at the same time.

    A trial only drives a Ray Train run of its own, and reports its losses epoch by epoch. One encoder, or one at a
    time, needs no Tune.

    Raises:
        UserError: the first that one of them raised; the others have gone on.
    """
    if at_once == 1 or len(jobs) == 1:
        for config, folder in jobs:
            train_encoder(config, events, folder, manifest, on_epoch)
        return
    from ray import tune

    events, jobs = events.absolute(), [(config, folder.absolute()) for config, folder in jobs]

    class Tell(tune.Callback):
        def __getstate__(self) -> dict[str, Any]:
            return {}  # Tune pickles its callbacks beside the experiment, and nobody restores them

        def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
            if on_epoch and "epoch" in result:
                on_epoch(result)

    def one(given: dict[str, Any]) -> dict[str, Any]:
        limit_threads(1)
        config, folder = jobs[given["job"]]
        try:
            train_encoder(config, events, folder, manifest, at_once=at_once)
        except UserError as error:  # would only come again
            return {"failed": str(error)}
        return {"failed": ""}

    with tempfile.TemporaryDirectory(dir=make_directory(jobs[0][1].parent), prefix=".tune-") as scratch:
        results = tune.Tuner(
            tune.with_resources(one, tune.PlacementGroupFactory([{"memory": MEMORY}])),
            param_space={"job": tune.grid_search(list(range(len(jobs))))},
            tune_config=tune.TuneConfig(max_concurrent_trials=at_once),
            run_config=tune.RunConfig(
                storage_path=scratch,
                verbose=0,
                callbacks=[Tell()],
                failure_config=tune.FailureConfig(max_failures=jobs[0][0].resources.max_failures),
            ),
        ).fit()
    for result in results:
        if result.error is not None:
            raise UserError(f"encoder training failed: {_last_line(result.error)}")
        if result.metrics["failed"]:
            raise UserError(result.metrics["failed"])


def _encoder_loop(given: dict[str, Any]) -> None:
    """What every worker of an encoder's training runs."""
    import ray
    from ray.train.torch import get_device, prepare_model

    limit_threads(given["threads"])
    config, source, plans = Embedding.model_validate(given["embedding"]), given["source"], ray.get(given["plans"])
    device = get_device() if torch.cuda.is_available() else torch.device("cpu")
    model = wrapped(build_encoder(config, plans.scales, given["seed"]), config, device)
    training = EncoderTraining(prepare_model(model, move_to_device=device), config, device)
    if (state := resumed()) is not None:
        training.load_state(state)
    left = range(training.epoch * config.steps_per_epoch, config.epochs * config.steps_per_epoch)
    stream = rank_stream(source, plans.train, given["train_plan"], left, config, training)
    workers, checked = training.workers, range(plans.validation_steps)
    training.feed(stream, rank_batches(source.load(), plans.validation, checked, config, workers.rank, workers.size))
    go_on(training, given["run"])


def train_encoder(
    config: Config,
    events: Path,
    folder: Path,
    manifest: dict[str, Any],
    on_epoch: OnEpoch | None = None,
    at_once: int = 1,
) -> tuple[ContrastiveEncoder, dict[str, Any]]:
    """Train the encoder, or return the one already trained on the same inputs.

    Ray must be running. Every epoch leaves a checkpoint; a worker that dies is restarted from the last one, and so is
    the whole training when this is called again after the driver was killed. The finished encoder is a state dict
    (``encoder.pt``) with its record (``encoder.json``, written last).

    Args:
        on_epoch: called in this process with each epoch's record, for progress bars and tracking.
        at_once: encoders that share the cluster and this machine's memory at the same time.

    Raises:
        UserError: a batch that the workers cannot share equally, a group with too few events, a failed training.
    """
    import ray

    key, resources = encoder_key(config, manifest["key"]), config.resources
    if (done := load_encoder(folder, key)) is not None:
        return done
    workers = resources.train_workers
    if config.embedding.batch_size % workers:
        raise UserError(
            f"embedding.batch_size = {config.embedding.batch_size}: must divide by resources.train_workers = {workers}"
        )
    source, inputs = event_source(config, events, folder.absolute() / "train", at_once)
    plans = EncoderPlan.of(inputs, config.embedding, config.seed)
    cpus = worker_cpus(workers * at_once, gpu=resources.gpu, streamed=source.mapped is not None)
    run = TrainRun(
        "encoder",
        key,
        Store(folder),
        workers,
        cpus,
        float(resources.gpu),
        resources.max_failures,
        nccl=resources.gpu,
        in_tune=at_once > 1,
    )
    embedding = config.embedding.model_dump(mode="json")
    given = {"embedding": embedding, "seed": config.seed, "source": source}
    given |= {"plans": ray.put(plans), "train_plan": ray.put(plans.train)}
    state = run.final(run.fit(_encoder_loop, given, on_epoch))
    counts = {str(g): len(r) for g, r in zip(plans.train.groups, plans.train.rows, strict=True)}
    record = {"key": key, "embedding": embedding, "history": state["history"], "best_loss": state["best_loss"]}
    _write(folder, "encoder.pt", state["best"], record | {"events_by_group": counts})
    loaded = load_encoder(folder, key)
    assert loaded is not None
    return loaded


def _write(folder: Path, name: str, weights: dict[str, torch.Tensor], record: dict[str, Any]) -> None:
    """The weights, then the record; what the training has left goes."""
    with atomic_path(folder / name) as temporary:
        torch.save(weights, temporary)
    write_json(folder / "encoder.json", record)
    shutil.rmtree(folder / "train", ignore_errors=True)


def _autoencoder_loop(given: dict[str, Any]) -> None:
    """What the worker of an autoencoder's training runs."""
    import ray

    limit_threads(given["threads"])
    training = VaeTraining(*ray.get(given["features"]), given["config"].embedding, given["config"].seed)
    if (state := resumed()) is not None:
        training.load_state(state)
    go_on(training, given["run"])


def train_autoencoder(
    config: HaxadConfig, events: Path, folder: Path, key: str, on_epoch: OnEpoch | None = None
) -> None:
    """Train paper A's autoencoder by one worker: ``vae.pt``, and ``encoder.json`` with its ``key``.

    It trains on as many events of every background sample as the rarest has: each process counts the same. It is
    resumed as an encoder is.

    Raises:
        UserError: too few events, a failed training.
    """
    import ray

    vae = config.embedding
    sets: list[list[np.ndarray]] = [[], []]
    for sample in vae.samples:
        table = read_table(sample_path(events, "embedding", sample), ["event_id", "features"])
        ids = table["event_id"].to_numpy()
        values = continuous_features(tensor_values(table["features"]), ids, config.seed)
        parts = parts_of(ids, config.seed, vae.train_fraction, vae.validation_fraction)
        for chosen, part in zip(sets, ("train", "validation"), strict=True):
            chosen.append(values[parts == PARTS.index(part)])
    features = [np.concatenate([v[: min(map(len, chosen))] for v in chosen]) for chosen in sets]
    VaeTraining(*features, vae, config.seed)  # what cannot be trained is told before a worker starts
    run = TrainRun("autoencoder", key, Store(folder), 1, worker_cpus(1), max_failures=config.resources.max_failures)
    state = run.final(run.fit(_autoencoder_loop, {"features": ray.put(features), "config": config}, on_epoch))
    record = {"key": key, "embedding": vae.model_dump(mode="json"), "history": state["history"]}
    _write(folder, "vae.pt", state["best"], record)
