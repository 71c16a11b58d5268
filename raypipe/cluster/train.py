"""Train encoders with Ray Train, several at the same time with Ray Tune; and the autoencoder."""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from raypipe.cluster.inputs import event_source, rank_stream, read_inputs
from raypipe.cluster.machine import usable_cores
from raypipe.cluster.runtime import limit_threads, ray_runs
from raypipe.cluster.trainer import TrainRun, go_on, resumed, worker_cpus
from raypipe.config import Config, Embedding
from raypipe.config.haxad import HaxadConfig, Vae
from raypipe.errors import UserError, last_line
from raypipe.events.continuous import continuous_features
from raypipe.events.schema import tensor_values
from raypipe.events.table import read_table, sample_path
from raypipe.files import atomic_path, make_directory, read_json, write_json
from raypipe.fit.batches import PARTS, dealt
from raypipe.fit.encoder import EncoderPlan, EncoderTraining, build_encoder, fit_encoder, rank_batches, wrapped
from raypipe.fit.training import OnEpoch, finish
from raypipe.fit.vae import FeatureVae, VaeTraining
from raypipe.models.encoder import ContrastiveEncoder
from raypipe.search.contrastive_search import encoder_key
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


def load_autoencoder(folder: Path) -> FeatureVae:
    """The finished autoencoder of ``folder``."""
    config = Vae.model_validate(read_json(folder / "encoder.json")["embedding"])
    state = torch.load(folder / "vae.pt", weights_only=True, map_location="cpu")
    model = FeatureVae(len(state["centre"]), config.latent, list(config.hidden))
    model.load_state_dict(state)
    return model.eval()


def train_encoders(
    jobs: Sequence[tuple[Config, Path]],
    events: Path,
    manifest: dict[str, Any],
    at_once: int,
    on_epoch: OnEpoch | None = None,
) -> None:
    """`train_encoder` of each (configuration, folder): trials of Ray Tune, so many at the same time.

    A trial only drives a Ray Train run of its own, and reports its losses epoch by epoch. One encoder, or one at a
    time, needs no Tune. The first `UserError` of one of them is raised after the others have gone on.
    """
    if at_once == 1 or len(jobs) == 1:
        for config, folder in jobs:
            train_encoder(config, events, folder, manifest, on_epoch)
        return
    from ray import tune

    events, jobs = events.absolute(), [(config, folder.absolute()) for config, folder in jobs]

    class Tell(tune.Callback):
        told: OnEpoch | None = None  # Set when the tuner is made, which pickles it: ours may hold a progress bar

        def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
            if self.told and "epoch" in result:
                self.told(result)

    def one(given: dict[str, Any]) -> dict[str, Any]:
        limit_threads(1)
        config, folder = jobs[given["job"]]
        try:
            train_encoder(config, events, folder, manifest, at_once=at_once)
        except UserError as error:  # would only come again
            return {"failed": str(error)}
        return {"failed": ""}

    parent, again = make_directory(jobs[0][1].parent), tune.FailureConfig(jobs[0][0].resources.max_failures)
    with tempfile.TemporaryDirectory(dir=parent, prefix=".tune-", ignore_cleanup_errors=True) as scratch:
        tell = Tell()
        tuner = tune.Tuner(
            tune.with_resources(one, tune.PlacementGroupFactory([{"memory": MEMORY}])),
            param_space={"job": tune.grid_search(list(range(len(jobs))))},
            tune_config=tune.TuneConfig(max_concurrent_trials=at_once),
            run_config=tune.RunConfig(storage_path=scratch, failure_config=again, verbose=0, callbacks=[tell]),
        )
        tell.told = on_epoch
        results = tuner.fit()
    for result in results:
        if result.error is not None:
            raise UserError(f"encoder training failed: {last_line(result.error)}")
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
    resumed(training)
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
) -> None:
    """Train the encoder, unless one trained on the same inputs is there.

    Without Ray this process trains it, from the beginning if it was killed. With Ray every epoch leaves a checkpoint; a
    worker that dies is restarted from the last one, and so is the whole training when this is called again after the
    driver was killed. The finished encoder is a state dict (``encoder.pt``) with
    its record (``encoder.json``, written last). A batch that the workers cannot share equally, a group with too few
    events and a failed training are `UserError`. ``on_epoch`` is called in this process with each epoch's record;
    ``at_once`` encoders share the cluster and this machine's memory at the same time.
    """
    key, resources, embedding = encoder_key(config, manifest["key"]), config.resources, config.embedding
    if load_encoder(folder, key) is not None:
        return
    workers, size = resources.train_workers, embedding.batch_size
    if not ray_runs():
        limit_threads(resources.cpus or usable_cores())
        inputs = read_inputs(config, events)
        encoder, history = fit_encoder(inputs, embedding, config.seed, on_epoch=on_epoch)
        state = {"best": encoder.state_dict(), "history": history}
        plans = EncoderPlan.of(inputs, embedding, config.seed)
    elif size % workers:
        raise UserError(f"embedding.batch_size = {size}: must divide by resources.train_workers = {workers}")
    else:
        import ray

        source, inputs = event_source(config, events, folder.absolute() / "train", at_once)
        plans = EncoderPlan.of(inputs, embedding, config.seed)
        cpus = worker_cpus(workers * at_once, gpu=resources.gpu, streamed=source.mapped is not None)
        crew = workers, cpus, float(resources.gpu), resources.max_failures
        run = TrainRun("encoder", key, Store(folder), *crew, nccl=resources.gpu, in_tune=at_once > 1)
        given = {"embedding": embedding.model_dump(mode="json"), "seed": config.seed, "source": source}
        given |= {"plans": ray.put(plans), "train_plan": ray.put(plans.train)}
        state = run.final(run.fit(_encoder_loop, given, on_epoch))
    counts = {str(g): len(r) for g, r in zip(plans.train.groups, plans.train.rows, strict=True)}
    best = min(one["loss"] for one in state["history"])
    _write(folder, "encoder.pt", key, embedding, state, best_loss=best, events_by_group=counts)


def _write(folder: Path, name: str, key: str, embedding: Embedding | Vae, state: dict[str, Any], **more: Any) -> None:
    """The weights of a finished state, then the record with ``more``; what the training has left goes."""
    with atomic_path(folder / name) as temporary:
        torch.save(state["best"], temporary)
    record = {"key": key, "embedding": embedding.model_dump(mode="json"), "history": state["history"]}
    write_json(folder / "encoder.json", record | more)
    shutil.rmtree(folder / "train", ignore_errors=True)


def _autoencoder_loop(given: dict[str, Any]) -> None:
    """What the worker of an autoencoder's training runs."""
    import ray

    limit_threads(given["threads"])
    training = VaeTraining(*ray.get(given["features"]), given["config"].embedding, given["config"].seed)
    resumed(training)
    go_on(training, given["run"])


def train_autoencoder(
    config: HaxadConfig, events: Path, folder: Path, key: str, on_epoch: OnEpoch | None = None
) -> None:
    """Train paper A's autoencoder by one worker: ``vae.pt``, and ``encoder.json`` with its ``key``.

    It trains on as many events of every background sample as the rarest has: each process counts the same. It is made
    and resumed as an encoder is. Too few events and a failed training are `UserError`.
    """
    vae = config.embedding
    sets: list[list[np.ndarray]] = [[], []]
    for sample in vae.samples:
        table = read_table(sample_path(events, "embedding", sample), ["event_id", "features"])
        ids = table["event_id"].to_numpy()
        values = continuous_features(tensor_values(table["features"]), ids, config.seed)
        parts = dealt(ids, vae, config.seed)
        for chosen, part in zip(sets, ("train", "validation"), strict=True):
            chosen.append(values[parts == PARTS.index(part)])
    features = [np.concatenate([v[: min(map(len, chosen))] for v in chosen]) for chosen in sets]
    training = VaeTraining(*features, vae, config.seed)  # what cannot be trained is told before a worker starts
    if ray_runs():
        import ray

        run = TrainRun("autoencoder", key, Store(folder), 1, worker_cpus(1), max_failures=config.resources.max_failures)
        state = run.final(run.fit(_autoencoder_loop, {"features": ray.put(features), "config": config}, on_epoch))
    else:
        finish(training, on_epoch)
        state = training.state()
    _write(folder, "vae.pt", key, vae, state)
