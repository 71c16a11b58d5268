"""Boosted trees by the compiled code of trees.c: xgboost's `hist` algorithm for one small model on one thread.

Given the same bins and all events it grows the trees that xgboost grows (tested). Bins are plain quantiles of the
training events, where xgboost weights them, and the events of a tree are drawn by a hash of seed, round and row.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import numpy as np

from raypipe.config import Classifier
from raypipe.errors import UserError
from raypipe.models import native

BINS = 256
"""As in the source, and xgboost's default."""
L2 = 1.0
"""Regularisation of the leaves: xgboost's default."""

Events = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Features (n, d), labels (n,) 0 or 1, weights (n,)."""


@dataclass(frozen=True)
class Trees:
    """A trained model; all arrays (trees, nodes), an event goes left where its feature is below the threshold."""

    feature: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    """Number of the left child, the right one follows it; negative in a leaf."""
    value: np.ndarray
    base: float
    """Log-odds before the first tree."""

    def margin(self, features: np.ndarray) -> np.ndarray:
        """Log-odds (n,) of events (n, d)."""
        x = _features(features)
        out = np.empty(len(x))
        _library().trees_predict(
            x.ctypes.data, len(x), x.shape[1], self.feature.ctypes.data, self.threshold.ctypes.data,
            self.left.ctypes.data, self.value.ctypes.data, *self.feature.shape, self.base, out.ctypes.data,
        )  # fmt: skip
        return out


def train_trees(train: Events, validation: Events | None, config: Classifier, *, seed: int) -> Trees:
    """Train one binary classifier; with ``validation`` boosting stops early as `config.early_stopping` says.

    Raises:
        UserError: features that are not finite, or a machine without a C compiler.
    """
    library = _library()
    x, y, w = _features(train[0]), *(np.ascontiguousarray(v, np.float32) for v in train[1:])
    cuts, counts = _cuts(x)
    held = None
    if validation is not None:
        kept = [np.ascontiguousarray(v, np.float32) for v in validation[1:]]
        held = (_bins(_features(validation[0]), cuts, counts), *kept)
    leaves = config.leaves or 2**config.depth
    shape = config.rounds, 2 * leaves - 1
    feature, bins, left = (np.zeros(shape, np.int32) for _ in range(3))
    value = np.zeros(shape, np.float32)
    # xgboost's start: one Newton step from even odds.
    base = float(4 * (w * (y - 0.5)).sum(dtype=np.float64) / w.sum(dtype=np.float64))
    grid = _bins(x, cuts, counts)
    stop = [v.ctypes.data for v in held] if held else [None] * 3
    used = library.trees_train(
        grid.ctypes.data, y.ctypes.data, w.ctypes.data, len(x), *stop,
        len(held[1]) if held else 0, counts.ctypes.data, x.shape[1], config.rounds, config.depth, leaves,
        config.early_stopping or 0, config.learning_rate, config.subsample, L2, config.min_child_weight, base, seed,
        feature.ctypes.data, bins.ctypes.data, left.ctypes.data, value.ctypes.data,
    )  # fmt: skip
    if used < 0:
        raise MemoryError(f"boosted trees of {leaves} leaves over {len(x)} events")
    threshold = cuts[feature[:used], np.minimum(bins[:used], BINS - 2)]
    return Trees(feature[:used], threshold, left[:used], value[:used], base)


def _library() -> ctypes.CDLL:
    library = native.trees()
    if library is None:
        raise UserError("classifier.engine = compiled: needs a C compiler (cc or gcc) on every machine; use xgboost")
    return library


def _features(x: np.ndarray) -> np.ndarray:
    x = np.ascontiguousarray(x, np.float32)
    if not np.isfinite(x).all():
        row, column = np.argwhere(~np.isfinite(x))[0]
        raise UserError(f"classifier: feature {column} of event {row} is {x[row, column]}: not finite")
    return x


def _cuts(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(d, BINS - 1) cuts between the bins of every feature, rising, and the number of bins (d,)."""
    cuts, counts = np.full((x.shape[1], BINS - 1), np.inf, np.float32), np.ones(x.shape[1], np.int32)
    for f in range(x.shape[1]):
        column = np.sort(x[:, f])
        found = np.unique(column[len(column) * np.arange(1, BINS) // BINS])
        found = found[found > column[0]]  # nothing lies below the smallest value
        cuts[f, : len(found)], counts[f] = found, len(found) + 1
    return cuts, counts


def _bins(x: np.ndarray, cuts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    bins = np.empty(x.shape, np.uint8)
    _library().trees_bin(x.ctypes.data, len(x), x.shape[1], cuts.ctypes.data, counts.ctypes.data, bins.ctypes.data)
    return bins
