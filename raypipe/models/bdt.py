"""Boosted decision trees: one small XGBoost model on as many threads as it is given."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from raypipe.config import Classifier

if TYPE_CHECKING:
    import xgboost


def train_bdt(
    train: tuple[np.ndarray, np.ndarray, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray, np.ndarray],
    config: Classifier,
    *,
    seed: int,
    threads: int = 1,
) -> xgboost.Booster:
    """Train one binary classifier on (features (n, d), label (n,), weight (n,)), stopped on the validation loss."""
    import xgboost

    matrices = [xgboost.DMatrix(x, label=y, weight=w, nthread=threads) for x, y, w in (train, validation)]
    parameters = {
        "objective": "binary:logistic", "eval_metric": "logloss", "tree_method": "hist", "max_depth": config.depth,
        "eta": config.learning_rate, "subsample": config.subsample, "seed": seed, "nthread": threads, "verbosity": 0,
    }  # fmt: skip
    return xgboost.train(
        parameters, matrices[0], num_boost_round=config.rounds, evals=[(matrices[1], "validation")],
        early_stopping_rounds=config.early_stopping, verbose_eval=False,
    )  # fmt: skip


def predict_bdt(booster: xgboost.Booster, features: np.ndarray, threads: int = 1) -> np.ndarray:
    """Log-odds (n,) of the best iteration; the margin keeps resolution where probabilities saturate."""
    booster.set_param({"nthread": threads})
    return booster.inplace_predict(
        features, iteration_range=(0, booster.best_iteration + 1), predict_type="margin"
    ).astype(np.float64)  # fmt: skip
