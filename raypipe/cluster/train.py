"""Train the encoder with Ray Train on batches streamed by Ray Data."""

from __future__ import annotations

import math
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from raypipe.cluster.address import cluster_address
from raypipe.cluster.inputs import EventSource, event_source, resident_batches
from raypipe.cluster.runtime import limit_threads, places
from raypipe.config import Config, Embedding
from raypipe.errors import UserError
from raypipe.files import atomic_path, read_json, write_json
from raypipe.fit.encoder import EncoderPlan, EncoderTraining, build_encoder, rank_batch, wrapped
from raypipe.models.encoder import ContrastiveEncoder
from raypipe.search.embeddings import encoder_key

CHECKPOINT = "training.pt"


def load_encoder(folder: Path, key: str | None = None) -> tuple[ContrastiveEncoder, dict[str, Any]] | None:
    """The finished encoder of ``folder`` with its record, or None if there is none (or one of another key)."""
    record_path = folder / "encoder.json"
    if not record_path.exists():
        return None
    record = read_json(record_path)
    if key is not None and record.get("key") != key:
        return None
    state = torch.load(folder / "encoder.pt", weights_only=True, map_location="cpu")
    encoder = build_encoder(Embedding.model_validate(record["embedding"]))
    encoder.load_state_dict(state)
    return encoder.eval(), record


class GatherSteps:
    """Ray Data transform: step numbers -> the rows of this worker's slice of those global batches."""

    def __init__(self, source: EventSource, plan: Any, first: int, rank: int, workers: int, config: Embedding) -> None:
        self.source, self.plan = source, plan
        self.first, self.rank, self.workers, self.config = first, rank, workers, config

    def __call__(self, steps: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        import ray

        inputs, plan = self.source.load(), ray.get(self.plan)
        batches = [
            rank_batch(inputs, plan, self.first + int(s), self.config, self.rank, self.workers) for s in steps["id"]
        ]
        rows = len(batches[0]["group"])
        out = {name: np.concatenate([b[name] for b in batches]) for name in batches[0]}
        return out | {"step": np.repeat(self.first + steps["id"], rows)}


def stream_batches(
    source: EventSource, plan: Any, steps: range, config: Embedding, *, rank: int, workers: int
) -> Iterator[dict[str, np.ndarray]]:
    """This worker's batches of ``steps``, in order, prepared ahead by Ray Data tasks.

    The plan is a function of (seed, step), so the stream starts at any step: a restart skips nothing and repeats
    nothing. One pipeline serves all epochs, since starting one costs seconds.
    """
    import ray
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    blocks = np.array_split(np.arange(len(steps)), max(1, len(steps) // 8))
    dataset = ray.data.from_arrow([pa.table({"id": b}) for b in blocks]).map_batches(
        GatherSteps(source, plan, steps.start, rank, workers, config),
        batch_size=None,
        batch_format="numpy",
        num_cpus=0.25,
        zero_copy_batch=True,
    )
    expected = steps.start
    # streaming_split moves the executor into an actor of its own; in this process it would compete with the training.
    (shard,) = dataset.streaming_split(1)
    for batch in shard.iter_batches(batch_size=config.batch_size // workers, batch_format="numpy", prefetch_batches=2):
        step = batch.pop("step")
        if not (step == expected).all():
            raise RuntimeError(f"the stream gave step {step[0]} where {expected} was due")
        expected += 1
        yield batch


def _train_loop(given: dict[str, Any]) -> None:
    """What every Ray Train worker runs."""
    import ray
    from ray import train
    from ray.train.torch import get_device, prepare_model

    limit_threads(given["threads"])
    config = Embedding.model_validate(given["embedding"])
    context = train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    source: EventSource = given["source"]
    inputs, plans = source.load(), ray.get(given["plans"])
    bare = build_encoder(config, plans.scales, given["seed"])
    model = prepare_model(wrapped(bare, config, get_device()))
    training = EncoderTraining(model, config, get_device())
    checkpoint = train.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            training.load_state(torch.load(Path(folder) / CHECKPOINT, weights_only=True, map_location="cpu"))
    remaining = range(training.epoch * config.steps_per_epoch, config.epochs * config.steps_per_epoch)
    if source.mapped is None:
        stream = resident_batches(
            inputs, plans.train, remaining, config, rank=rank, workers=workers, device=training.device
        )
    else:
        stream = stream_batches(source, given["train_plan"], remaining, config, rank=rank, workers=workers)
    validation = [rank_batch(inputs, plans.validation, s, config, rank, workers) for s in range(plans.validation_steps)]
    while not training.finished:
        losses = training.train_epoch(islice(stream, config.steps_per_epoch))
        record = training.finish_epoch(losses, training.validate(validation))
        with tempfile.TemporaryDirectory() as folder:
            saved = None
            if rank == 0:
                torch.save(training.state(), Path(folder) / CHECKPOINT)
                saved = train.Checkpoint.from_directory(folder)
                write_json(given["progress"], training.history)
            train.report(record, checkpoint=saved)


def worker_cpus(workers: int, *, gpu: bool = False, streamed: bool = False) -> float:
    """Cores, in halves, that each of so many Train workers can have: the most with which all of them find a place.

    A stream needs a core for the tasks that prepare batches: Ray Data's ask for a whole one, and a second thread of the
    training would lose more time waiting for a core at every barrier than it gains.

    Raises:
        UserError: this machine has no place for so many; a cluster may grow.
    """
    import ray

    if not places(0.5, gpu):  # a cluster that grows on demand shows what its nodes are when the first is there
        _first_node(gpu)
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

    if not places(0.5, gpu):
        _first_node(gpu)
    nodes = sum(node["Resources"].get("CPU", 0.0) >= 0.5 for node in ray.nodes() if node["Alive"])
    return max(1, min(encoders, (places(0.5, gpu) if gpu else nodes) // workers))


def train_encoders(
    jobs: Sequence[tuple[Config, Path]],
    events: Path,
    manifest: dict[str, Any],
    at_once: int,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
) -> None:
    """`train_encoder` of each (configuration, folder), so many at the same time, each a Ray Train run of its own.

    Raises:
        UserError: the first that one of them raises; the others are left to resume.
    """
    pool = ThreadPoolExecutor(at_once)
    try:
        running = [
            pool.submit(train_encoder, config, events, folder, manifest, on_epoch, at_once) for config, folder in jobs
        ]
        for one in as_completed(running):
            one.result()
    finally:
        # Not waited for: after an error or an interrupt the end of the Ray session ends them.
        pool.shutdown(wait=False, cancel_futures=True)


def _first_node(gpu: bool) -> None:
    """Wait until a node is up that a worker could use.

    Raises:
        UserError: there is none, and there never will be.
    """
    import ray

    if cluster_address() is None:
        raise UserError(f"resources.gpu = {str(gpu).lower()}: this machine gives Ray no GPU")
    ray.get(ray.remote(num_cpus=0.5, num_gpus=int(gpu))(int).remote())


def train_encoder(
    config: Config,
    events: Path,
    folder: Path,
    manifest: dict[str, Any],
    on_epoch: Callable[[dict[str, float]], None] | None = None,
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
    from ray import train
    from ray.train.torch import TorchTrainer

    key = encoder_key(config, manifest["key"])
    if (done := load_encoder(folder, key)) is not None:
        return done
    workers = config.resources.train_workers
    if config.embedding.batch_size % workers:
        raise UserError(
            f"embedding.batch_size = {config.embedding.batch_size}: must divide by resources.train_workers = {workers}"
        )
    storage = folder / "train"
    source, inputs = event_source(config, events, storage, at_once)
    plans = EncoderPlan.of(inputs, config.embedding, config.seed)
    cpus = worker_cpus(workers * at_once, gpu=config.resources.gpu, streamed=source.mapped is not None)
    threads = max(1, int(cpus))
    progress = storage / f"progress-{key}.json"
    trainer = TorchTrainer(
        _train_loop,
        train_loop_config={
            "embedding": config.embedding.model_dump(mode="json"),
            "seed": config.seed,
            "threads": threads,
            "source": source,
            "plans": ray.put(plans),
            "train_plan": ray.put(plans.train),
            "progress": str(progress.resolve()),
        },
        scaling_config=train.ScalingConfig(
            num_workers=workers, use_gpu=config.resources.gpu, resources_per_worker={"CPU": cpus}
        ),
        run_config=train.RunConfig(
            name=key,
            storage_path=str(storage.resolve()),
            failure_config=train.FailureConfig(max_failures=config.resources.max_failures),
            checkpoint_config=train.CheckpointConfig(num_to_keep=2),
        ),
    )
    with _watch(progress, on_epoch):
        try:
            result = trainer.fit()
        except Exception as error:  # Ray wraps a worker's exception; its cause is what a user can act on
            raise UserError(f"encoder training failed: {_last_line(error)}") from error
    if result.checkpoint is None:
        raise UserError("encoder training ended without a checkpoint")
    with result.checkpoint.as_directory() as path:
        state = torch.load(Path(path) / CHECKPOINT, weights_only=True, map_location="cpu")
    with atomic_path(folder / "encoder.pt") as temporary:
        torch.save(state["best"], temporary)
    embedding = config.embedding.model_dump(mode="json")
    write_json(
        folder / "encoder.json",
        {
            "key": key,
            "embedding": embedding,
            "history": state["history"],
            "best_loss": state["best_loss"],
            "events_by_group": {str(g): len(r) for g, r in zip(plans.train.groups, plans.train.rows, strict=True)},
        },
    )
    shutil.rmtree(storage, ignore_errors=True)
    loaded = load_encoder(folder, key)
    assert loaded is not None
    return loaded


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


class _watch:
    """Follow the progress file of rank 0 from the driver and hand each new epoch to ``on_epoch``."""

    def __init__(self, path: Path, on_epoch: Callable[[dict[str, float]], None] | None) -> None:
        self.path, self.on_epoch = path, on_epoch
        self.seen, self.stop = 0, threading.Event()
        self.thread = threading.Thread(target=self._follow, daemon=True)

    def _poll(self) -> None:
        if self.on_epoch and self.path.exists():
            history = read_json(self.path)
            for record in history[self.seen :]:
                self.on_epoch(record)
            self.seen = max(self.seen, len(history))

    def _follow(self) -> None:
        while not self.stop.wait(0.5):
            self._poll()

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()
        self._poll()
