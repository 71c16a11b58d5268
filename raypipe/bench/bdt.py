"""Five-fold boosted-tree fits: one thread a fit on every core, against one fit at a time that uses all cores.

Ours is what a scan does: `Contest` parts (a fold and a member each) as tasks with one thread each, here on a pool of
processes. The references train the same folds one after another, as a user would: xgboost's scikit-learn interface with
its default threads, and scikit-learn's `HistGradientBoostingClassifier` (OpenMP on all cores). Same number of trees,
depth, learning rate and bins, no early stopping, every event weighted; the AUC of all is in the detail. Wall seconds.
"""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import xgboost
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from raypipe import seeds
from raypipe.bench.base import SEED, Measurement, compared, seconds
from raypipe.cluster.machine import usable_cores
from raypipe.config import Classifier
from raypipe.fit.classifier import Contest, Mapper, balanced

CORES = usable_cores()
Parts = list[tuple[int, int]]


def contest(data: int, template: int, config: Classifier, features: int = 6) -> Contest:
    """Data with a small excess against a template, in balanced weights, folds by row."""
    rng = seeds.generator(SEED, "bench-bdt")
    tables = {"data": rng.normal(size=(data, features)), "template": rng.normal(size=(template, features))}
    tables["data"][: data // 20, :3] = 0.5 * tables["data"][: data // 20, :3] + 1.0
    tables = {name: values.astype(np.float32) for name, values in tables.items()}
    x, y, w = balanced(tables["data"], tables["template"], np.ones(data), np.ones(template))
    homes = {name: np.arange(len(values)) % config.folds for name, values in tables.items()}
    return Contest(x, y, w, np.r_[homes["data"], homes["template"]], tables, homes, config, SEED)


_shared: list[Contest] = []
"""The contest, sent to the processes once."""


def _receive(given: Contest) -> None:
    _shared[:] = [given]


def _part(part: tuple[int, int]) -> dict[str, np.ndarray]:
    return _shared[0](part)


@contextlib.contextmanager
def _mapper(given: Contest, cores: int) -> Iterator[Mapper]:
    """``map`` on a pool of processes; on one core this process does the work."""
    if cores == 1:
        _receive(given)
        yield map
        return
    spawn = multiprocessing.get_context("spawn")  # a fork would copy OpenMP's locks
    with ProcessPoolExecutor(cores, spawn, _receive, (given,)) as pool:
        yield pool.map


def _auc(given: Contest, parts: Parts, found: Iterable[dict[str, np.ndarray]]) -> float:
    """Of one five-fold fit: member 0 of every fold."""
    total = {name: np.zeros(len(values)) for name, values in given.sets.items()}
    for (fold, member), margins in zip(parts, found, strict=True):
        for name, values in margins.items() if member == 0 else ():
            total[name][given.rows(name, fold)] += values
    labels = np.r_[np.ones(len(total["data"])), np.zeros(len(total["template"]))]
    return float(roc_auc_score(labels, np.r_[total["data"], total["template"]]))


def _model(name: str, config: Classifier, seed: int, cores: int) -> Any:
    """As the manual of either library has it."""
    same = {"max_depth": config.depth, "learning_rate": config.learning_rate, "random_state": seed}
    if name == "xgboost":
        same |= {"n_estimators": config.rounds, "tree_method": "hist", "n_jobs": cores}
        return xgboost.XGBClassifier(**same, subsample=config.subsample, min_child_weight=config.min_child_weight)
    same |= {"max_iter": config.rounds, "max_leaf_nodes": 2**config.depth}
    return HistGradientBoostingClassifier(**same, early_stopping=False, min_samples_leaf=1)


def _alone(name: str, given: Contest, parts: Parts, cores: int) -> float:
    """AUC of fits one after another; scikit-learn on all cores, its default, whatever OMP_NUM_THREADS says here."""
    found = []
    with threadpool_limits(cores, "openmp"):
        for fold, member in parts:
            train, model = given.fold != fold, _model(name, given.config, 1000 * fold + member, cores)
            model.fit(given.x[train], given.y[train], sample_weight=given.w[train])
            rows = {key: values[given.rows(key, fold)] for key, values in given.sets.items()}
            found.append({key: model.predict_proba(x)[:, 1] for key, x in rows.items()})
    return _auc(given, parts, found)


def measure(
    data: int, template: int, config: Classifier, repeats: int, target: float | None, cores: int = CORES
) -> list[Measurement]:
    """Two rows: against xgboost, and against scikit-learn, which fits one member a fold."""
    given = contest(data, template, config)
    parts = given.parts()
    chosen = {"ours": parts, "xgboost": parts, "scikit-learn": [part for part in parts if part[1] == 0]}
    aucs: dict[str, float] = {}
    times: dict[str, list[float]] = {name: [] for name in chosen}
    short = contest(200, 200, config.model_copy(update={"rounds": 2}))
    for name in list(chosen)[1:]:  # first calls load libraries
        _alone(name, short, short.parts()[:1], cores)
    with _mapper(given, cores) as mapper:
        list(mapper(_part, parts[: 2 * cores]))  # workers are up before the clock runs, as in a scan

        def work(name: str) -> None:
            ours = name == "ours"
            aucs[name] = _auc(given, parts, mapper(_part, parts)) if ours else _alone(name, given, chosen[name], cores)

        for _ in range(repeats):
            for name, part in chosen.items():
                times[name].append(seconds(lambda name=name: work(name)) * len(parts) / len(part))
    each = {name: float(np.median(t)) / len(parts) for name, t in times.items()}
    detail = {"events": [data, template], "fits": len(parts), "cores": cores, "seconds_a_fit": each}
    detail |= {"fits_of_scikit_learn": len(chosen["scikit-learn"]), "auc_of_one_five_fold_fit": aucs}
    detail |= {"rounds": config.rounds, "depth": config.depth}
    title = f"BDT: {len(parts)} fits on {cores} cores against"
    return [compared(f"{title} {k}", times["ours"], times[k], target, **detail) for k in ("xgboost", "scikit-learn")]


def run(smoke: bool) -> list[Measurement]:
    """The demo's sizes: 20k data, 57k template events, six features; ten five-fold fits of a third of the trees stand
    for a hundred, and scikit-learn, the slowest, does one."""
    if smoke:
        tiny = Classifier(rounds=3, depth=2, early_stopping=None, folds=2, members=1, ensemble=1, ensembles=1)
        return measure(300, 300, tiny, 1, None, cores=1)
    config = Classifier(early_stopping=None, rounds=100, members=10, ensemble=1, ensembles=1)
    return measure(20_000, 57_000, config, 3, 2.0)
