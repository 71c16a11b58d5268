"""Defaults of `raypipe classify`."""

from __future__ import annotations

from raypipe.config.sections import Classifier

_TREES = {"rounds": 20, "depth": 0, "leaves": 128, "min_child_weight": 10, "subsample": 0.5, "early_stopping": None}
WEAK_SIGNAL = Classifier(folds=5, ensemble=10, learning_rate=0.1, **_TREES)
"""An ensemble for signals of a per cent and less; chosen by the SIC at a background efficiency of 0.1 % on the LHC
Olympics arrays (60,000 events, 395 or 369 of them signal)."""
