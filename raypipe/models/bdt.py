"""Boosted decision trees: one small XGBoost model on as many threads as it is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from raypipe.config.sections import Classifier

if TYPE_CHECKING:
    import xgboost


Sample = tuple[np.ndarray, np.ndarray, np.ndarray | None]
"""Features (n, d), label (n,) and weight (n,); no weights: one each."""

Train = Callable[[dict[str, Any], Sample, int, Sample | None, int | None], "xgboost.Booster"]
"""Trains a booster on parameters, sample, rounds, validation sample and patience, as `train_here` does."""


def train_here(
    parameters: dict[str, Any],
    sample: Sample,
    rounds: int,
    validation: Sample | None = None,
    patience: int | None = None,
) -> xgboost.Booster:
    """Train in this process, on ``parameters["nthread"]`` threads.

    Stops early when the loss of ``validation`` has not improved for ``patience`` rounds.
    """
    import xgboost

    matrices = [
        xgboost.DMatrix(x, label=y, weight=w, nthread=parameters["nthread"])
        for x, y, w in filter(None, (sample, validation))
    ]
    return boosted(xgboost.train, parameters, matrices, rounds, patience)


def boosted(
    train: Any, parameters: dict[str, Any], matrices: Sequence[Any], rounds: int, patience: int | None, **how: Any
) -> xgboost.Booster:
    """Call XGBoost's ``train``, or one like it, with the matrix of the training and of the validation, if any."""
    how |= {"evals": [(matrix, "validation") for matrix in matrices[1:]], "verbose_eval": False}
    how["early_stopping_rounds"] = patience if matrices[1:] else None
    return train(parameters, matrices[0], num_boost_round=rounds, **how)


def train_bdt(
    sample: Sample,
    validation: Sample | None,
    config: Classifier,
    *,
    seed: int,
    threads: int = 1,
    train: Train = train_here,
) -> xgboost.Booster:
    """Train one binary classifier, stopped by the loss of ``validation`` or, if None, by ``config.rounds``."""
    parameters = {"objective": "binary:logistic", "eval_metric": "logloss", "tree_method": "hist", "verbosity": 0}
    parameters |= {"max_depth": config.depth, "eta": config.learning_rate, "subsample": config.subsample}
    parameters |= {"min_child_weight": config.min_child_weight, "seed": seed, "nthread": threads}
    if config.leaves is not None:
        parameters |= {"grow_policy": "lossguide", "max_leaves": config.leaves}
    return train(parameters, sample, config.rounds, validation, config.early_stopping)


def predict_bdt(booster: xgboost.Booster, features: np.ndarray, threads: int = 1) -> np.ndarray:
    """Log-odds (n,) of the best iteration; the margin keeps resolution where probabilities saturate."""
    booster.set_param({"nthread": threads})
    best = booster.attr("best_iteration")  # absent where all rounds count
    rounds = (0, 0 if best is None else int(best) + 1)
    return booster.inplace_predict(features, iteration_range=rounds, predict_type="margin").astype(np.float64)
