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
"""An ensemble for signals of a per cent and less.

Chosen on the LHC Olympics arrays: 60,000 events with 395 signal against 59,600 QCD, and the arrays exchanged (369
signal), all scores out of fold. SIC at a background efficiency of 0.1 %: this 9.9 and 8.0, +- 0.1 over seeds; 64
leaves, 50 slower rounds and half the leaf weight 9.8 and 7.2; histogram gradient boosting as in 2309.13111, ten
members, 8.9 and 5.9; depth-3 trees with early stopping at most 4.1 and 1.9, because the loss of 60,000 events does not
see 395. Five members a fold do as well as ten.
"""
