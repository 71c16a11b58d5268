"""Five-fold boosted-tree fits: one thread a fit on every core, against one fit at a time that uses all cores.

Ours is what a scan does: `Contest` parts (a fold and a member each) as tasks with one thread each, here on a pool of
processes. The references train the same folds one after another, as
a user would: xgboost with its default threads, and scikit-learn's `HistGradientBoostingClassifier` (which uses OpenMP
on all cores). Same number of trees, depth, learning rate and bins, no early stopping, every event weighted; the AUC of
all is in the detail. Wall seconds.
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


_shared: list[Contest] = []
"""The contest, sent to the processes once."""


def _receive(given: Contest) -> None:
    _shared[:] = [given]


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


def _part(part: tuple[int, int]) -> dict[str, np.ndarray]:
    return _shared[0](part)


def _auc(given: Contest, parts: list[tuple[int, int]], found: Iterable[dict[str, np.ndarray]]) -> float:
    """Of one five-fold fit: member 0 of every fold."""
    total = {name: np.zeros(len(values)) for name, values in given.sets.items()}
    for (fold, member), margins in zip(parts, found, strict=True):
        for name, values in margins.items() if member == 0 else ():
            total[name][given.rows(name, fold)] += values
    labels = np.r_[np.ones(len(total["data"])), np.zeros(len(total["template"]))]
    return float(roc_auc_score(labels, np.r_[total["data"], total["template"]]))


def _xgboost(given: Contest, fold: int, member: int, cores: int) -> Any:
    """A fit as the manual of xgboost has it: the scikit-learn interface with its default threads."""
    config, train = given.config, given.fold != fold
    model = xgboost.XGBClassifier(
        n_estimators=config.rounds,
        max_depth=config.depth,
        learning_rate=config.learning_rate,
        subsample=config.subsample,
        min_child_weight=config.min_child_weight,
        tree_method="hist",
        random_state=1000 * fold + member,
        n_jobs=cores,
    )
    model.fit(given.x[train], given.y[train], sample_weight=given.w[train])
    return lambda x: model.predict(x, output_margin=True)


def _sklearn(given: Contest, fold: int, member: int, cores: int) -> Any:
    config, train = given.config, given.fold != fold
    model = HistGradientBoostingClassifier(
        max_iter=config.rounds,
        max_depth=config.depth,
        max_leaf_nodes=2**config.depth,
        early_stopping=False,
        learning_rate=config.learning_rate,
        min_samples_leaf=1,
        random_state=1000 * fold + member,
    )
    model.fit(given.x[train], given.y[train], sample_weight=given.w[train])
    return model.decision_function


def measure(
    data: int, template: int, config: Classifier, repeats: int, target: float | None, cores: int = CORES, few: int = 1
) -> list[Measurement]:
    """Two rows: against xgboost, and against scikit-learn, which fits ``few`` members a fold."""
    given = contest(data, template, config)
    parts = given.parts()
    slow = [part for part in parts if part[1] < few]
    aucs: dict[str, float] = {}

    def ours() -> None:
        aucs["ours"] = _auc(given, parts, mapper(_part, parts))

    def alone(name: str, fit: Any, chosen: list[tuple[int, int]]) -> None:
        found = []
        with threadpool_limits(cores, "openmp"):  # scikit-learn's default, whatever OMP_NUM_THREADS says here
            for fold, member in chosen:
                score = fit(given, fold, member, cores)
                found.append({name: score(values[given.rows(name, fold)]) for name, values in given.sets.items()})
        aucs[name] = _auc(given, chosen, found)

    short = contest(200, 200, config.model_copy(update={"rounds": 2}))
    for fit in (_xgboost, _sklearn):  # first calls load libraries
        fit(short, 0, 0, cores)
    times: dict[str, list[float]] = {"ours": [], "xgboost": [], "scikit-learn": []}
    with _mapper(given, cores) as mapper:
        list(mapper(_part, parts[: 2 * cores]))  # workers are up before the clock runs, as in a scan
        for _ in range(repeats):
            times["ours"].append(seconds(ours))
            times["xgboost"].append(seconds(lambda: alone("xgboost", _xgboost, parts)))
            took = seconds(lambda: alone("scikit-learn", _sklearn, slow))
            times["scikit-learn"].append(took * len(parts) / len(slow))
    each = {name: float(np.median(t)) / len(parts) for name, t in times.items()}
    detail = {"events": [data, template], "fits": len(parts), "fits_of_scikit_learn": len(slow), "cores": cores}
    detail |= {"auc_of_one_five_fold_fit": aucs, "seconds_a_fit": each, "rounds": config.rounds, "depth": config.depth}
    return [
        speed_up(
            f"BDT: {len(parts)} fits on {cores} cores against {name}", times["ours"], times[name], target, **detail
        )
        for name in ("xgboost", "scikit-learn")
    ]


def run(smoke: bool) -> list[Measurement]:
    """The demo's sizes: 20k data, 57k template events, six features; ten five-fold fits of a third of the trees stand
    for a hundred, and scikit-learn, the slowest, does one."""
    if smoke:
        tiny = Classifier(rounds=3, depth=2, early_stopping=None, folds=2, members=1, ensemble=1, ensembles=1)
        return measure(300, 300, tiny, 1, None, cores=1)
    config = Classifier(early_stopping=None, rounds=100, members=10, ensemble=1, ensembles=1)
    return measure(20_000, 57_000, config, 3, 2.0)
