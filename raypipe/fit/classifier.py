"""k-fold ensembles that tell data from background, with every score out of fold (CWoLa, CATHODE step two).

Source: paper C, section III.2: boosted trees, 5-fold cross-validation, averaged in small ensembles.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raypipe import seeds
from raypipe.config import Classifier
from raypipe.models.bdt import predict_bdt, train_bdt
from raypipe.stats.roc import background_percentile


@dataclass(frozen=True)
class FoldScores:
    """Scores of three kinds of events, as percentiles of the background template: small is data-like.

    A percentile p says that the share p of the template, in the same fold, looks at least as data-like. It makes
    scores of different folds' models comparable, and ``p <= f`` keeps the share f of the template.
    """

    data: np.ndarray
    template: np.ndarray
    others: dict[str, np.ndarray]
    """Events of neither class; each is scored by the model of a random fold, so that its scores are distributed as
    out-of-fold scores are."""


def out_of_fold_scores(
    data: np.ndarray,
    template: np.ndarray,
    template_weights: np.ndarray,
    config: Classifier,
    *,
    seed: int,
    threads: int = 1,
    others: dict[str, np.ndarray] | None = None,
    data_weights: np.ndarray | None = None,
) -> FoldScores:
    """Train ``folds x ensemble`` classifiers of ``data`` (n, d) against ``template`` (m, d); score everything.

    The classes are balanced: both are scaled to the number of data events (recorded data have weight one). In each
    fold every member of the ensemble holds out its own fifth of the training events for early stopping.
    """
    others = others or {}
    fold_of = {
        name: seeds.generator(seed, "folds", name).permutation(np.arange(len(x)) % config.folds)
        for name, x in {"data": data, "template": template, **{f"other/{k}": v for k, v in others.items()}}.items()
    }
    scores = {name: np.empty(len(folds)) for name, folds in fold_of.items()}
    data_weights = np.ones(len(data)) if data_weights is None else data_weights
    balance = [len(data) / weights.sum() for weights in (data_weights, template_weights)]
    x = np.concatenate([data, template]).astype(np.float32)
    y = np.r_[np.ones(len(data)), np.zeros(len(template))].astype(np.float32)
    w = np.r_[data_weights * balance[0], template_weights * balance[1]].astype(np.float32)
    fold = np.r_[fold_of["data"], fold_of["template"]]
    sets = {"data": data, "template": template, **{f"other/{k}": v for k, v in others.items()}}

    for k in range(config.folds):
        training = np.flatnonzero(fold != k)
        boosters = []
        for member in range(config.ensemble):
            held_out = seeds.generator(seed, "early-stopping", k, member).random(len(training)) < 0.2
            rows, stop = training[~held_out], training[held_out]
            boosters.append(
                train_bdt(
                    (x[rows], y[rows], w[rows]), (x[stop], y[stop], w[stop]), config,
                    seed=seeds.integer(seed, "bdt", k, member), threads=threads,
                )
            )  # fmt: skip
        raw = {}
        for name, values in sets.items():
            here = fold_of[name] == k
            part = values[here].astype(np.float32)
            raw[name] = np.mean([predict_bdt(b, part, threads) for b in boosters], axis=0) if len(part) else part[:, 0]
        reference, weights = raw["template"], template_weights[fold_of["template"] == k]
        for name in sets:
            scores[name][fold_of[name] == k] = background_percentile(raw[name], reference, weights)
    return FoldScores(scores["data"], scores["template"], {k: scores[f"other/{k}"] for k in others})
