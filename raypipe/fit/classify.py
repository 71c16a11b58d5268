"""Weak supervision between any two tables: train data against background, score a third table.

With a pure background as in 2109.00546, with a sideband CWoLa (1902.02634); fits are averaged as in 2309.13111.
"""

from dataclasses import dataclass

import numpy as np

from raypipe.config import Classifier
from raypipe.events.signed import weights_to_fit
from raypipe.fit.classifier import EVERY_FOLD, Contest, Mapper, balanced, deal_folds, member_margins
from raypipe.stats.roc import tail_shares, weighted_auc


@dataclass(frozen=True)
class Scores:
    """What `classify` returns; log-odds that an event is data rather than background, large is data-like.

    ``score`` and ``percentile`` (share of the background, out of fold, at least as data-like) of the scored table (n,);
    ``out_of_fold``: (n,) bool, also in data or background. ``data``, ``background``: out-of-fold scores; ``auc``
    between.
    """

    score: np.ndarray
    percentile: np.ndarray
    out_of_fold: np.ndarray
    data: np.ndarray
    background: np.ndarray
    auc: float
    auc_error: float


def contest_of(
    data: np.ndarray,
    background: np.ndarray,
    score: np.ndarray,
    config: Classifier,
    *,
    seed: int,
    data_weights: np.ndarray | None = None,
    background_weights: np.ndarray | None = None,
) -> Contest:
    """The fits of `classify`, ready for a cluster.

    An event in two tables is in the same fold of both; one in neither training table is scored by all models.
    """
    data_weights = np.ones(len(data)) if data_weights is None else data_weights
    background_weights = np.ones(len(background)) if background_weights is None else background_weights
    (of_data, of_background), (of_score,) = deal_folds([data, background], [score], config.folds, seed)
    fitted = weights_to_fit(data, data_weights, of_data), weights_to_fit(background, background_weights, of_background)
    sets, homes = ((data, background, score), (of_data, of_background, of_score))
    sets, homes = (dict(zip(("data", "background", "score"), parts, strict=True)) for parts in (sets, homes))
    return Contest(*balanced(data, background, *fitted), np.r_[of_data, of_background], sets, homes, config, seed)


def classify(
    contest: Contest,
    background_weights: np.ndarray | None = None,
    data_weights: np.ndarray | None = None,
    mapper: Mapper = map,
) -> Scores:
    """Fit all members of `contest_of`'s result and average them; weights count in percentiles, AUC and error."""
    margins = {name: values.mean(0) for name, values in member_margins(contest, mapper).items()}
    data, background = margins["data"], margins["background"]
    background_weights = np.ones(len(background)) if background_weights is None else background_weights
    data_weights = np.ones(len(data)) if data_weights is None else data_weights
    labels = np.r_[np.ones(len(data), bool), np.zeros(len(background), bool)]
    auc, error = weighted_auc(np.r_[data, background], labels, np.r_[data_weights, background_weights])
    percentile = tail_shares(margins["score"], background, background_weights)[1]
    return Scores(margins["score"], percentile, contest.home["score"] != EVERY_FOLD, data, background, auc, error)
