"""Weak supervision between any two tables: train data against background, score a third table.

The idealised anomaly detector of CATHODE (2109.00546) when the background is pure, CWoLa (1902.02634) when it is a
sideband. Averaging many fits follows "Back to the Roots" (2309.13111).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raypipe import seeds
from raypipe.config import Classifier
from raypipe.fit.classifier import EVERY_FOLD, Contest, Mapper, balanced, ensemble_margins
from raypipe.stats.roc import background_percentile, weighted_auc


@dataclass(frozen=True)
class Scores:
    """What `classify` returns; log-odds that an event is data rather than background, large is data-like."""

    score: np.ndarray
    """(n,) of the scored table."""
    percentile: np.ndarray
    """(n,) share of the background, scored out of fold, that looks at least as data-like."""
    out_of_fold: np.ndarray
    """(n,) bool: the event is also in data or background; only models that never saw it scored it."""
    data: np.ndarray
    """Out-of-fold scores of the data."""
    background: np.ndarray
    """Out-of-fold scores of the background."""
    auc: float
    """Data against background, out of fold: 0.5 where nothing tells them apart."""
    auc_error: float


def fingerprint(rows: np.ndarray) -> np.ndarray:
    """A 64-bit number for the values of every row (n, d), compared as float32: equal rows have equal numbers."""
    bits = (np.ascontiguousarray(rows, dtype=np.float32) + np.float32(0)).view(np.uint32).astype(np.uint64)
    total = np.zeros(len(rows), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for column in bits.T:  # as many steps as features
            total = (total ^ column) * np.uint64(0x9E3779B97F4A7C15)
            total ^= total >> np.uint64(32)
    return total


def contest_of(
    data: np.ndarray, background: np.ndarray, score: np.ndarray, config: Classifier, *, seed: int,
    data_weights: np.ndarray | None = None, background_weights: np.ndarray | None = None,
) -> Contest:  # fmt: skip
    """The fits of `classify`, ready for a cluster.

    The fold of an event follows from its values: an event that is in two tables is in the same fold of both, and is
    scored only by models that did not train on it. What is in neither training table is scored by all models.
    """
    data_weights = np.ones(len(data)) if data_weights is None else data_weights
    background_weights = np.ones(len(background)) if background_weights is None else background_weights
    prints = [fingerprint(table) for table in (data, background, score)]
    folds = [(seeds.uniform_by_id(p, seed, "folds") * config.folds).astype(np.int64) for p in prints]
    known = np.isin(prints[2], np.concatenate(prints[:2]))
    x, y, w = balanced(data, background, data_weights, background_weights)
    return Contest(
        x, y, w, np.concatenate(folds[:2]), {"data": data, "background": background, "score": score},
        {"data": folds[0], "background": folds[1], "score": np.where(known, folds[2], EVERY_FOLD)}, config, seed,
    )  # fmt: skip


def classify(contest: Contest, background_weights: np.ndarray | None = None, mapper: Mapper = map) -> Scores:
    """Fit all members of `contest_of`'s result and average them."""
    margins = ensemble_margins(contest, mapper)
    data, background = margins["data"], margins["background"]
    weights = np.ones(len(background)) if background_weights is None else background_weights
    labels = np.r_[np.ones(len(data), bool), np.zeros(len(background), bool)]
    auc, error = weighted_auc(np.r_[data, background], labels, np.r_[np.ones(len(data)), weights])
    return Scores(
        margins["score"], background_percentile(margins["score"], background, weights),
        contest.home["score"] != EVERY_FOLD, data, background, auc, error,
    )  # fmt: skip
