"""Five-fold boosted-tree fits: one thread a fit on every core, against one fit at a time that uses all cores.

Ours fits the parts of a `Contest` on a pool of processes, as a scan does. The references fit the same folds with
xgboost's scikit-learn interface, and with scikit-learn. Same number of trees, depth, learning rate and bins, no early
stopping, every event weighted; the AUC of all is in the detail. Wall seconds.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import xgboost
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from bench.base import SEED, WALL, Measurement, compared, in_turn
from raypipe import seeds
from raypipe.cluster.machine import usable_cores
from raypipe.config import Classifier
from raypipe.fit.classifier import Contest, Mapper, balanced, member_margins

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


def auc(given: Contest, mapper: Mapper = map) -> float:
    """Train all parts; the AUC of one five-fold fit, member 0 of every fold."""
    scores = {name: margins[0] for name, margins in member_margins(given, mapper).items()}
    labels = np.r_[np.ones(len(scores["data"])), np.zeros(len(scores["template"]))]
    return float(roc_auc_score(labels, np.r_[scores["data"], scores["template"]]))


def _model(name: str, config: Classifier, seed: int) -> Any:
    """As the manual of either library has it."""
    same = {"max_depth": config.depth, "learning_rate": config.learning_rate, "random_state": seed}
    if name == "xgboost":
        same |= {"n_estimators": config.rounds, "tree_method": "hist", "n_jobs": CORES}
        return xgboost.XGBClassifier(**same, subsample=config.subsample, min_child_weight=config.min_child_weight)
    same |= {"max_iter": config.rounds, "max_leaf_nodes": 2**config.depth}
    return HistGradientBoostingClassifier(**same, early_stopping=False, min_samples_leaf=1)


def _alone(name: str, given: Contest) -> float:
    """AUC of fits one after another; scikit-learn on all cores, its default, whatever OMP_NUM_THREADS says here."""

    def fit(part: tuple[int, int]) -> dict[str, np.ndarray]:
        model, (x, y, w) = _model(name, given.config, 1000 * part[0] + part[1]), given.training(part[0])
        model.fit(x, y, sample_weight=w)
        return {key: model.predict_proba(v[given.rows(key, part[0])])[:, 1] for key, v in given.sets.items()}

    with threadpool_limits(CORES, "openmp"):
        return auc(given, lambda _, parts: map(fit, parts))


def measure(
    pool: Executor, data: int, template: int, config: Classifier, repeats: int, target: float | None
) -> list[Measurement]:
    """Two rows: against xgboost, and against scikit-learn, which fits one member a fold."""
    given = contest(data, template, config)
    single = replace(given, config=config.model_copy(update={"members": 1}))
    fits = {"ours": len(given.parts()), "xgboost": len(given.parts()), "scikit-learn": len(single.parts())}
    short = contest(200, 200, single.config.model_copy(update={"rounds": 2}))
    with pool:
        pooled = partial(pool.map, chunksize=max(1, config.trained // 2))
        ways = [lambda: auc(given, pooled), lambda: _alone("xgboost", given), lambda: _alone("scikit-learn", single)]
        list(pool.map(given, given.parts()[: 2 * CORES]))  # workers are up before the clock runs, as in a scan
        for name in ("xgboost", "scikit-learn"):  # first calls load libraries
            _alone(name, short)
        times, aucs = (dict(zip(fits, found, strict=True)) for found in in_turn(repeats, WALL, *ways))
    times["scikit-learn"] = [t * fits["ours"] / fits["scikit-learn"] for t in times["scikit-learn"]]
    each = {name: float(np.median(t)) / fits["ours"] for name, t in times.items()}
    detail = {"events": [data, template], "fits": fits, "cores": CORES, "seconds_a_fit": each}
    detail |= {
        "auc_of_one_five_fold_fit": {k: v[-1] for k, v in aucs.items()},
        "rounds": config.rounds,
        "depth": config.depth,
    }
    title = f"BDT: {fits['ours']} fits on {CORES} cores against"
    return [compared(f"{title} {k}", times["ours"], times[k], target, **detail) for k in ("xgboost", "scikit-learn")]


def run(smoke: bool) -> list[Measurement]:
    """The demo's sizes: 20k data, 57k template events, six features; ten five-fold fits of a third of the trees stand
    for a hundred, and scikit-learn, the slowest, does one."""
    if smoke:
        tiny = Classifier(rounds=3, depth=2, early_stopping=None, folds=2, members=1, ensemble=1)
        return measure(ThreadPoolExecutor(CORES), 300, 300, tiny, 1, None)
    pool = ProcessPoolExecutor(CORES, multiprocessing.get_context("spawn"))  # a fork would copy OpenMP's locks
    config = Classifier(early_stopping=None, rounds=100, members=10, ensemble=1)
    return measure(pool, 20_000, 57_000, config, 3, 2.0)
