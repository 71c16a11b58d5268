"""Defaults of `raypipe classify`."""

from __future__ import annotations

from raypipe.config.sections import Classifier

WEAK_SIGNAL = Classifier(
    folds=5,
    ensemble=10,
    rounds=20,
    depth=0,
    leaves=128,
    min_child_weight=10,
    learning_rate=0.1,
    subsample=0.5,
    early_stopping=None,
)
"""An ensemble for signals of a per cent and less; see README, "Any two tables"."""
