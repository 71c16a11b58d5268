"""Boosted trees on rows that one process should not hold: Ray actors train one booster together."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from raypipe.cluster.runtime import limit_threads, places
from raypipe.config import Classifier, Resources
from raypipe.errors import UserError
from raypipe.models.bdt import Sample, Train, train_here

if TYPE_CHECKING:
    import xgboost

CHECKPOINT_ROUNDS = 5
"""Rounds between checkpoints."""


def tree_trainer(config: Classifier, workers: int, resources: Resources, folder: Path) -> Train:
    """What ``config.engine`` says: this process, or ``workers`` actors. Ray must be running for these.

    Args:
        folder: where `ray_train` keeps its checkpoints; on a cluster, one that all nodes see.

    Raises:
        UserError: the cluster has no places for so many workers.
    """
    if config.engine == "xgboost":
        return train_here
    cores_each(workers)
    return partial(train_trees, workers=workers, engine=config.engine, folder=folder, restarts=resources.max_failures)


def cores_each(workers: int) -> int:
    """Cores that each of so many workers can have: the most with which all of them find a place.

    Raises:
        UserError: not even one.
    """
    if places(1) < workers:
        raise UserError(f"{workers} workers for the trees: the cluster has cores for {places(1)}")
    cores = 1
    while places(cores + 1) >= workers:
        cores += 1
    return cores


def engine_here(engine: str) -> str:
    """The engine that works with the installed XGBoost: xgboost_ray hangs or fails from version 2.1 on."""
    import xgboost

    new = tuple(map(int, xgboost.__version__.split(".")[:2])) >= (2, 1)
    return "ray_train" if engine == "xgboost_ray" and new else engine


@dataclass(frozen=True)
class Job:
    """One training, as both engines take it."""

    parameters: dict[str, Any]
    samples: list[Sample]
    """Training, and validation where training may stop early."""
    rounds: int
    patience: int | None
    workers: int
    restarts: int


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

    A worker that dies is started again, at most ``restarts`` times, and training goes on from the last checkpoint.

    Raises:
        UserError: training fails for good, as when workers keep dying.
    """
    import ray

    threads, samples = {"nthread": cores_each(workers)}, [sample] if validation is None else [sample, validation]
    patience = None if validation is None else patience
    job = Job(parameters | threads, samples, rounds, patience, workers, restarts)
    try:
        if engine_here(engine) == "ray_train":
            return _ray_train(job, folder)
        actor = ray.remote(num_cpus=0)(_XgboostRay).remote()
        try:
            return ray.get(actor.train.remote(job))
        finally:
            ray.kill(actor)
    except Exception as error:  # both engines wrap what a worker raises; RuntimeError, TimeoutError, Ray's own
        lines = str(error).strip().splitlines()
        raise UserError(f"training the trees with {workers} workers failed: {(lines or [repr(error)])[-1]}") from error


class _XgboostRay:
    """An actor without cores: those that xgboost_ray leaves behind when it fails end with it."""

    def train(self, job: Job) -> xgboost.Booster:
        # Nor must it leave a placement group, which would outlive them. Workers that take all cores are spread anyway.
        os.environ["RXGB_USE_SPREAD_STRATEGY"] = "0"
        from xgboost_ray import RayDMatrix, RayParams, train

        matrices = [RayDMatrix(x, label=y, weight=w) for x, y, w in job.samples]
        return train(
            job.parameters,
            matrices[0],
            num_boost_round=job.rounds,
            evals=[(matrix, "validation") for matrix in matrices[1:]],
            early_stopping_rounds=job.patience,
            verbose_eval=False,
            ray_params=RayParams(
                num_actors=job.workers,
                cpus_per_actor=job.parameters["nthread"],
                max_actor_restarts=job.restarts,
                checkpoint_frequency=CHECKPOINT_ROUNDS,
                verbose=False,
            ),
        )


def _ray_train(job: Job, folder: Path) -> xgboost.Booster:
    import ray
    from ray import train
    from ray.train.xgboost import RayTrainReportCallback, XGBoostTrainer

    def parts(whole: Sample) -> list[Any]:
        return [ray.put([None if a is None else a[k :: job.workers] for a in whole]) for k in range(job.workers)]

    with tempfile.TemporaryDirectory(prefix=".trees-", dir=folder) as storage:
        trainer = XGBoostTrainer(
            _boost,
            train_loop_config={"job": replace(job, samples=[]), "parts": [parts(whole) for whole in job.samples]},
            scaling_config=train.ScalingConfig(
                num_workers=job.workers, resources_per_worker={"CPU": job.parameters["nthread"]}
            ),
            run_config=train.RunConfig(
                name="trees",
                storage_path=str(Path(storage).resolve()),
                failure_config=train.FailureConfig(max_failures=job.restarts),
                checkpoint_config=train.CheckpointConfig(num_to_keep=1),
            ),
        )
        return RayTrainReportCallback.get_model(trainer.fit().checkpoint)


def _boost(given: dict[str, Any]) -> None:
    """What every worker of Ray Train runs."""
    import ray
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
    for parts in given["parts"]:
        x, y, w = ray.get(parts[rank])
        matrices.append(xgboost.DMatrix(np.ascontiguousarray(x), label=y, weight=w, nthread=threads))
    xgboost.train(
        job.parameters,
        matrices[0],
        num_boost_round=job.rounds - (booster.num_boosted_rounds() if booster else 0),
        evals=[(matrix, "validation") for matrix in matrices[1:]],
        early_stopping_rounds=job.patience,
        verbose_eval=False,
        xgb_model=booster,
        callbacks=[Checkpoints(frequency=CHECKPOINT_ROUNDS)],
    )
