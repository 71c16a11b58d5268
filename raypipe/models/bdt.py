"""Boosted decision trees: one small XGBoost model on as many threads as it is given."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from raypipe.config import Classifier

if TYPE_CHECKING:
    import xgboost


def train_bdt(
    train: tuple[np.ndarray, np.ndarray, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray, np.ndarray] | None,
    config: Classifier,
    *,
    seed: int,
    threads: int = 1,
) -> xgboost.Booster:
    """Train one binary classifier on (features (n, d), label (n,), weight (n,)).

    Boosting stops on the loss of ``validation``, or after ``config.rounds`` where that is None.
    """
    import xgboost

    matrices = [xgboost.DMatrix(x, label=y, weight=w, nthread=threads) for x, y, w in filter(None, (train, validation))]
    parameters = {"objective": "binary:logistic", "eval_metric": "logloss", "tree_method": "hist", "verbosity": 0}
    parameters |= {"max_depth": config.depth, "eta": config.learning_rate, "subsample": config.subsample}
    parameters |= {"min_child_weight": config.min_child_weight, "seed": seed, "nthread": threads}
    if config.leaves is not None:
        parameters |= {"grow_policy": "lossguide", "max_leaves": config.leaves}
    stop = (
        {"evals": [(matrices[1], "validation")], "early_stopping_rounds": config.early_stopping} if validation else {}
    )
    return xgboost.train(parameters, matrices[0], num_boost_round=config.rounds, verbose_eval=False, **stop)


def predict_bdt(booster: xgboost.Booster, features: np.ndarray, threads: int = 1) -> np.ndarray:
    """Log-odds (n,) of the best iteration; the margin keeps resolution where probabilities saturate."""
    booster.set_param({"nthread": threads})
    best = booster.attr("best_iteration")  # absent where all rounds count
    rounds = (0, 0 if best is None else int(best) + 1)
    return booster.inplace_predict(features, iteration_range=rounds, predict_type="margin").astype(np.float64)
