"""Boosted trees on rows that one process should not hold: Ray actors train one booster together."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raypipe.cluster.runtime import limit_threads, places
from raypipe.config import Classifier, Resources
from raypipe.errors import UserError, last_line
from raypipe.models.bdt import Sample, Train, boosted, train_here

if TYPE_CHECKING:
    import xgboost

CHECKPOINT_ROUNDS = 5  # Rounds between checkpoints


def tree_trainer(config: Classifier, workers: int, resources: Resources, folder: Path) -> Train:
    """What ``config.engine`` says: this process, or ``workers`` actors of Ray with files in ``folder`` for all."""
    if config.engine == "xgboost":
        return train_here
    cores_each(workers)
    return partial(train_trees, workers=workers, engine=config.engine, folder=folder, restarts=resources.max_failures)


def cores_each(workers: int) -> int:
    """Cores that each of so many workers can have: the most with which all find a place; a `UserError` if none."""
    if places(1) < workers:
        raise UserError(f"{workers} workers for the trees: the cluster has cores for {places(1)}")
    return next(cores for cores in count(1) if places(cores + 1) < workers)


def engine_here(engine: str) -> str:
    """The engine that works with the installed XGBoost: xgboost_ray hangs or fails from version 2.1 on."""
    import xgboost

    new = tuple(map(int, xgboost.__version__.split(".")[:2])) >= (2, 1)
    return "ray_train" if engine == "xgboost_ray" and new else engine


@dataclass(frozen=True)
class Job:
    """One training, as both engines take it; workers read their rows from files."""

    parameters: dict[str, Any]
    samples: list[list[str]]
    """Parquet files, one a worker: of the training, and of the validation where training may stop early."""
    rounds: int
    patience: int | None
    workers: int
    restarts: int
    folder: Path


def _write_parts(sample: Sample, workers: int, folder: Path, name: str) -> list[str]:
    """Every ``workers``-th row goes to the same file: columns f0, f1, ..., label and weight."""
    features, label, weight = sample
    columns = {f"f{i}": column for i, column in enumerate(features.T)}
    columns |= {"label": label, "weight": np.ones(len(label), np.float32) if weight is None else weight}
    paths = [str((folder / f"{name}-{k}.parquet").resolve()) for k in range(workers)]
    for k, path in enumerate(paths):
        part = {name: np.ascontiguousarray(column[k::workers]) for name, column in columns.items()}
        pq.write_table(pa.table(part), path, compression="none")
    return paths


def train_trees(
    parameters: dict[str, Any],
    sample: Sample,
    rounds: int,
    validation: Sample | None = None,
    patience: int | None = None,
    *,
    workers: int,
    engine: str,
    folder: Path,
    restarts: int,
) -> xgboost.Booster:
    """`raypipe.models.bdt.Train` by ``workers`` Ray actors, each with every ``workers``-th row.

    A worker that dies is started again from the last checkpoint, at most ``restarts`` times; then it is a `UserError`.
    """
    import ray

    samples = {"training": sample} if validation is None else {"training": sample, "validation": validation}
    with tempfile.TemporaryDirectory(prefix=".trees-", dir=folder) as own:
        parts = [_write_parts(rows, workers, Path(own), name) for name, rows in samples.items()]
        given = parameters | {"nthread": cores_each(workers)}
        job = Job(given, parts, rounds, patience, workers, restarts, Path(own).resolve())
        try:
            if engine_here(engine) == "ray_train":
                return _ray_train(job)
            actor = ray.remote(num_cpus=0)(_XgboostRay).remote()
            try:
                return ray.get(actor.train.remote(job))
            finally:
                ray.kill(actor)
        except Exception as error:  # both engines wrap what a worker raises; RuntimeError, TimeoutError, Ray's own
            raise UserError(f"training the trees with {workers} workers failed: {last_line(error)}") from error


class _XgboostRay:
    """An actor without cores: those that xgboost_ray leaves behind when it fails end with it."""

    def train(self, job: Job) -> xgboost.Booster:
        # Nor must it leave a placement group, which would outlive them. Workers that take all cores are spread anyway.
        os.environ["RXGB_USE_SPREAD_STRATEGY"] = "0"
        from xgboost_ray import RayDMatrix, RayFileType, RayParams, train

        files = {"filetype": RayFileType.PARQUET, "distributed": True}  # each actor reads its own
        matrices = [RayDMatrix(paths, "label", "weight", **files) for paths in job.samples]
        actors = RayParams(
            num_actors=job.workers,
            cpus_per_actor=job.parameters["nthread"],
            max_actor_restarts=job.restarts,
            checkpoint_frequency=CHECKPOINT_ROUNDS,
            verbose=False,
        )
        return boosted(train, job.parameters, matrices, job.rounds, job.patience, ray_params=actors)


def _ray_train(job: Job) -> xgboost.Booster:
    from ray import train
    from ray.train.xgboost import RayTrainReportCallback, XGBoostTrainer

    cores = {"CPU": job.parameters["nthread"]}
    trainer = XGBoostTrainer(
        _boost,
        train_loop_config={"job": job},
        scaling_config=train.ScalingConfig(num_workers=job.workers, resources_per_worker=cores),
        run_config=train.RunConfig(
            name="trees",
            storage_path=str(job.folder),
            failure_config=train.FailureConfig(max_failures=job.restarts),
            checkpoint_config=train.CheckpointConfig(num_to_keep=1),
        ),
    )
    return RayTrainReportCallback.get_model(trainer.fit().checkpoint)


def _boost(given: dict[str, Any]) -> None:
    """What every worker of Ray Train runs."""
    import xgboost
    from ray import train
    from ray.train.xgboost import RayTrainReportCallback

    class Checkpoints(RayTrainReportCallback):
        """Reports with its checkpoints only: each report waits for all workers."""

        def _report_metrics(self, report_dict: dict[str, Any]) -> None:
            pass

    job: Job = given["job"]
    threads = job.parameters["nthread"]
    limit_threads(threads)
    rank, checkpoint = train.get_context().get_world_rank(), train.get_checkpoint()
    booster = RayTrainReportCallback.get_model(checkpoint) if checkpoint else None
    matrices = []
    for paths in job.samples:
        *features, label, weight = (column.to_numpy() for column in pq.read_table(paths[rank]).itercolumns())
        matrices.append(xgboost.DMatrix(np.stack(features, axis=1), label, weight=weight, nthread=threads))
    rounds = job.rounds - (booster.num_boosted_rounds() if booster else 0)
    told = [Checkpoints(frequency=CHECKPOINT_ROUNDS)]
    boosted(xgboost.train, job.parameters, matrices, rounds, job.patience, xgb_model=booster, callbacks=told)
