"""Compiled boosted trees against xgboost: the same trees from the same bins, the same quality from their own."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from raypipe.config import Classifier
from raypipe.errors import UserError
from raypipe.models import native
from raypipe.models.bdt import predict_bdt, train_bdt
from raypipe.models.trees import Trees, train_trees

SHAPES = {
    "depth": {"depth": 3, "rounds": 40},
    "leaves": {"depth": 0, "leaves": 20, "rounds": 15, "min_child_weight": 10},
    "both": {"depth": 4, "leaves": 9, "rounds": 15},
}
NO_COMPILER = native.trees() is None


def events(n: int, seed: int, levels: int | None = None, shift: float = 0.4):
    """Two classes of four features; with ``levels``, features are that many whole numbers, so that bins are plain."""
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.4).astype(np.float32)
    x = rng.normal(size=(n, 4)) + shift * y[:, None] * [1, -1, 0.5, 0]
    if levels:
        x = np.clip(np.floor((x + 2) * levels / 4), 0, levels - 1)
    return x.astype(np.float32), y, rng.uniform(0.5, 2, n).astype(np.float32)


def config(**changes) -> Classifier:
    return Classifier(**{"subsample": 1.0, "early_stopping": None, "engine": "compiled"} | changes)


def theirs(given: Classifier) -> Classifier:
    return given.model_copy(update={"engine": "xgboost"})


pytestmark = pytest.mark.skipif(NO_COMPILER, reason="no C compiler on this machine")


@pytest.mark.parametrize("name", SHAPES)
def test_same_trees_as_xgboost_on_plain_bins(name):
    given = config(**SHAPES[name])
    train, fresh = events(4000, 1, 50), events(1000, 2, 50)[0]
    ours = train_bdt(train, None, given, seed=3)
    assert isinstance(ours, Trees)
    booster = train_bdt(train, None, theirs(given), seed=3)
    for x in (train[0], fresh):
        np.testing.assert_allclose(predict_bdt(ours, x), predict_bdt(booster, x), rtol=0, atol=2e-5)
    splits = sum(tree.count("yes=") for tree in booster.get_dump())
    assert (ours.left >= 0).sum() == splits > 20


def test_same_early_stopping_as_xgboost():
    given = config(rounds=200, learning_rate=0.3, early_stopping=5)
    train, held = events(3000, 1, 50, 0.2), events(1000, 2, 50, 0.2)
    ours, booster = train_bdt(train, held, given, seed=3), train_bdt(train, held, theirs(given), seed=3)
    assert len(ours.value) == booster.best_iteration + 1 < 100
    np.testing.assert_allclose(predict_bdt(ours, held[0]), predict_bdt(booster, held[0]), rtol=0, atol=2e-5)


def test_own_bins_and_subsamples_are_as_good():
    fresh = events(20_000, 2)
    aucs = {"compiled": [], "xgboost": []}
    for seed in range(4):
        for engine, found in aucs.items():
            given = config(rounds=60, subsample=0.7, engine=engine)
            model = train_bdt(events(8000, 10 + seed), None, given, seed=seed)
            found.append(roc_auc_score(fresh[1], predict_bdt(model, fresh[0]), sample_weight=fresh[2]))
    difference = np.subtract(aucs["compiled"], aucs["xgboost"])
    assert abs(difference.mean()) < 0.001
    assert np.mean(aucs["compiled"]) > 0.65  # the likelihood ratio of these Gaussians has 0.664


def test_a_seed_fixes_every_bit_and_another_draws_other_events():
    given = config(rounds=10, subsample=0.5)
    train = events(3000, 1)
    one, two, other = (train_trees(train, None, given, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(one.margin(train[0]), two.margin(train[0]))
    assert not np.array_equal(one.margin(train[0]), other.margin(train[0]))


def test_nothing_to_learn_leaves_the_odds_of_the_classes():
    x, y, w = events(500, 1)
    model = train_trees((np.ones_like(x), y, w), None, config(rounds=200), seed=1)
    share = (w * y).sum() / w.sum()
    np.testing.assert_allclose(model.margin(x), np.log(share / (1 - share)), atol=1e-3)


def test_what_cannot_be_trained_is_one_line(monkeypatch):
    x, y, w = events(100, 1)
    x[7, 2] = np.nan
    with pytest.raises(UserError, match="feature 2 of event 7 is nan: not finite"):
        train_trees((x, y, w), None, config(), seed=1)
    monkeypatch.setattr(native, "trees", lambda: None)
    with pytest.raises(UserError, match=r"engine = compiled: needs a C compiler"):
        train_trees(events(100, 1), None, config(), seed=1)
