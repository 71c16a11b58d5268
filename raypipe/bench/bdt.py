"""Five-fold boosted-tree fits: one thread a fit on every core, against one fit at a time that uses all cores.

Ours is what a scan does: `Contest` parts (a fold and a member each) as tasks with one thread each, here on a pool of
processes, with either engine of `raypipe.config.Classifier`. The references train the same folds one after another, as
a user would: xgboost with its default threads, and scikit-learn's `HistGradientBoostingClassifier` (which uses OpenMP
on all cores). Same number of trees, depth, learning rate and bins, no early stopping, every event weighted; the AUC of
all is in the detail. Wall seconds.
"""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import xgboost
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from raypipe import seeds
from raypipe.bench.base import Measurement, seconds, speed_up
from raypipe.cluster.machine import usable_cores
from raypipe.config import Classifier
from raypipe.fit.classifier import Contest, Mapper, balanced

SEED = 20_260
CORES = usable_cores()


def contest(data: int, template: int, config: Classifier, features: int = 6) -> Contest:
    """Data with a small excess against a template, in balanced weights, folds by row."""
    rng = seeds.generator(SEED, "bench-bdt")
    tables = {"data": rng.normal(size=(data, features)), "template": rng.normal(size=(template, features))}
    tables["data"][: data // 20, :3] = 0.5 * tables["data"][: data // 20, :3] + 1.0
    tables = {name: values.astype(np.float32) for name, values in tables.items()}
    x, y, w = balanced(tables["data"], tables["template"], np.ones(data), np.ones(template))
    homes = {name: np.arange(len(values)) % config.folds for name, values in tables.items()}
    return Contest(x, y, w, np.r_[homes["data"], homes["template"]], tables, homes, config, SEED)


_shared: dict[str, Contest] = {}
"""The contest of each of our engines, sent to the processes once."""


def _receive(given: dict[str, Contest]) -> None:
    _shared.update(given)


@contextlib.contextmanager
def _mapper(given: dict[str, Contest], cores: int) -> Iterator[Mapper]:
    """``map`` on a pool of processes; on one core this process does the work."""
    if cores == 1:
        _receive(given)
        yield map
        return
    spawn = multiprocessing.get_context("spawn")  # a fork would copy OpenMP's locks
    with ProcessPoolExecutor(cores, spawn, _receive, (given,)) as pool:
        yield pool.map


def _part(job: tuple[str, tuple[int, int]]) -> dict[str, np.ndarray]:
    return _shared[job[0]](job[1])


def _auc(scores: dict[str, np.ndarray]) -> float:
    data, template = scores["data"], scores["template"]
    labels = np.r_[np.ones(len(data)), np.zeros(len(template))]
    return float(roc_auc_score(labels, np.r_[data, template]))


def _fill(given: Contest, total: dict[str, np.ndarray], fold: int, margins: dict[str, np.ndarray]) -> None:
    for name, values in margins.items():
        total[name][given.rows(name, fold)] += values


def _empty(given: Contest) -> dict[str, np.ndarray]:
    return {name: np.zeros(len(values)) for name, values in given.sets.items()}


def _xgboost(given: Contest, fold: int, member: int, cores: int) -> Any:
    """A fit as the manual of xgboost has it: the scikit-learn interface with its default threads."""
    config, train = given.config, given.fold != fold
    model = xgboost.XGBClassifier(
        n_estimators=config.rounds, max_depth=config.depth, learning_rate=config.learning_rate,
        subsample=config.subsample, min_child_weight=config.min_child_weight, tree_method="hist",
        random_state=1000 * fold + member, n_jobs=cores,
    )  # fmt: skip
    model.fit(given.x[train], given.y[train], sample_weight=given.w[train])
    return lambda x: model.predict(x, output_margin=True)


def _sklearn(given: Contest, fold: int, member: int, cores: int) -> Any:
    config, train = given.config, given.fold != fold
    model = HistGradientBoostingClassifier(
        max_iter=config.rounds, max_depth=config.depth, max_leaf_nodes=2**config.depth, early_stopping=False,
        learning_rate=config.learning_rate, min_samples_leaf=1, random_state=1000 * fold + member,
    )  # fmt: skip
    model.fit(given.x[train], given.y[train], sample_weight=given.w[train])
    return model.decision_function


def measure(
    data: int, template: int, config: Classifier, repeats: int, scaled_to: int, target: float | None,
    cores: int = CORES, few: int | None = None,
) -> list[Measurement]:  # fmt: skip
    """Two rows for each of our engines: against xgboost and against scikit-learn, which fits ``few`` members a fold."""
    engines = ("compiled", "xgboost")
    given = {e: contest(data, template, config.model_copy(update={"engine": e})) for e in engines}
    plain = given["xgboost"]
    parts = plain.parts()
    names = [*(f"ours, {engine}" for engine in engines), "xgboost", "scikit-learn"]
    times: dict[str, list[float]] = {name: [] for name in names}
    aucs: dict[str, float] = {}

    def alone(name: str, fit: Any, chosen: list[tuple[int, int]]) -> None:
        total = _empty(plain)
        with threadpool_limits(cores, "openmp"):  # scikit-learn's default, whatever OMP_NUM_THREADS says here
            for fold, member in chosen:
                score = fit(plain, fold, member, cores)
                margins = {k: score(v[plain.rows(k, fold)]) for k, v in plain.sets.items()}
                if member == 0:
                    _fill(plain, total, fold, margins)
        aucs[name] = _auc(total)

    def ours(engine: str) -> None:
        total = _empty(plain)
        for (fold, member), margins in zip(parts, mapper(_part, [(engine, part) for part in parts]), strict=True):
            if member == 0:  # the score of one five-fold fit, as everywhere here
                _fill(plain, total, fold, margins)
        aucs[f"ours, {engine}"] = _auc(total)

    short = contest(200, 200, config.model_copy(update={"rounds": 2}))
    for fit in (_xgboost, _sklearn):  # first calls load libraries
        fit(short, 0, 0, cores)
    slow = [part for part in parts if part[1] < (few or config.trained)]
    with _mapper(given, cores) as mapper:
        for engine in engines:  # workers are up before the clock runs, as in a scan
            list(mapper(_part, [(engine, part) for part in parts[: 2 * cores]]))
        for _ in range(repeats):
            for engine in engines:
                times[f"ours, {engine}"].append(seconds(lambda engine=engine: ours(engine)))
            times["xgboost"].append(seconds(lambda: alone("xgboost", _xgboost, parts)))
            took = seconds(lambda: alone("scikit-learn", _sklearn, slow))
            times["scikit-learn"].append(took * len(parts) / len(slow))
    detail = {
        "events": [data, template], "fits": len(parts), "fits_of_scikit_learn": len(slow), "asked_fits": scaled_to,
        "cores": cores, "auc_of_one_five_fold_fit": aucs, "rounds": config.rounds, "depth": config.depth,
        "seconds_a_fit": {name: float(np.median(t)) / len(parts) for name, t in times.items()},
    }  # fmt: skip
    return [
        speed_up(
            f"BDT: {len(parts)} fits, engine {engine}, on {cores} cores against {name}", times[f"ours, {engine}"],
            times[name], target if engine == "compiled" else None, **detail,
        )
        for engine in engines for name in ("xgboost", "scikit-learn")
    ]  # fmt: skip


def run(smoke: bool) -> list[Measurement]:
    """The demo's sizes: 20k data, 57k template events, six features; ten five-fold fits of a third of the trees stand
    for a hundred, and scikit-learn, the slowest, does one."""
    if smoke:
        tiny = Classifier(rounds=3, depth=2, early_stopping=None, folds=2, members=1, ensemble=1, ensembles=1)
        return measure(300, 300, tiny, 1, 2, None, cores=1)
    config = Classifier(early_stopping=None, rounds=100, members=10, ensemble=1, ensembles=1)
    return measure(20_000, 57_000, config, 3, 500, 2.0, few=1)
