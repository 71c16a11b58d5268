"""Any two tables: events seen in training are scored by models that never saw them."""

from __future__ import annotations

import numpy as np
import pytest

from raypipe.config import Classifier
from raypipe.config.classify import WEAK_SIGNAL
from raypipe.fit.classifier import EVERY_FOLD
from raypipe.fit.classify import classify, contest_of, fingerprint
from raypipe.stats.roc import max_sic
from tests.search.toys import log_likelihood_ratio, toy_table

SMALL = Classifier(folds=4, ensemble=2, rounds=20, depth=0, leaves=16, subsample=0.5, early_stopping=None)


def test_equal_rows_have_equal_fingerprints_and_others_do_not():
    rows = np.random.default_rng(0).normal(size=(50_000, 4))
    prints = fingerprint(rows)
    assert len(np.unique(prints)) == len(rows)
    assert (fingerprint(rows[::-1].astype(np.float32)) == prints[::-1]).all()
    swapped = rows[:, [1, 0, 2, 3]]
    assert not np.isin(fingerprint(swapped), prints).any()
    assert fingerprint(np.array([[0.0, 1.0]])) == fingerprint(np.array([[-0.0, 1.0]]))


def test_training_events_are_scored_out_of_fold_in_every_table():
    rng = np.random.default_rng(1)
    data, background, new = (rng.normal(size=(800, 3)) for _ in range(3))
    score = np.concatenate([new, background[:100], data[:100]])
    contest = contest_of(data, background, score, SMALL, seed=3)
    home = contest.home["score"]
    assert (home[:800] == EVERY_FOLD).all()
    assert (home[800:900] == contest.home["background"][:100]).all()
    assert (home[900:] == contest.fold[:100]).all()
    result = classify(contest)
    assert result.out_of_fold.sum() == 200
    # The same event has the same score in every table.
    assert result.score[800:900] == pytest.approx(result.background[:100], abs=0)
    assert result.score[900:] == pytest.approx(result.data[:100], abs=0)
    # In fold, 16 leaves would memorise; out of fold nothing tells equal classes apart.
    assert result.auc == pytest.approx(0.5, abs=4 * result.auc_error)


def test_order_of_the_rows_and_of_the_work_does_not_matter():
    rng = np.random.default_rng(2)
    data, background = rng.normal(0.5, 1, (600, 2)), rng.normal(size=(600, 2))
    contest = contest_of(data, background, data, SMALL, seed=1)
    backwards = lambda f, items: reversed([f(item) for item in reversed(list(items))])  # noqa: E731
    assert (classify(contest).score == classify(contest, mapper=backwards).score).all()
    swapped = contest_of(data, background, data[::-1], SMALL, seed=1)
    assert (classify(swapped).score[::-1] == classify(contest).score).all()


def test_percentile_is_the_share_of_the_background():
    rng = np.random.default_rng(3)
    data, background, weights = rng.normal(0.3, 1, (3000, 2)), rng.normal(size=(3000, 2)), rng.uniform(0.5, 1.5, 3000)
    contest = contest_of(data, background, background, SMALL, seed=1, background_weights=weights)
    result = classify(contest, weights)
    for share in (0.05, 0.3):
        assert weights[result.percentile <= share].sum() / weights.sum() == pytest.approx(share, abs=0.002)


def test_weak_supervision_comes_near_the_best_classifier():
    """1 % signal among 20,000 events, twice as many of pure background; the third table is new."""
    data, background, score = toy_table(20_000, 200, 5), toy_table(40_000, 0, 6), toy_table(20_000, 2000, 7)
    config = WEAK_SIGNAL.model_copy(update={"ensemble": 1})
    found = classify(contest_of(data[:, 1:3], background[:, 1:3], score[:, 1:3], config, seed=1)).score
    truth = score[:, 3] == 1
    best = max_sic(*(log_likelihood_ratio(score[truth == k]) for k in (True, False)))
    reached = max_sic(found[truth], found[~truth])
    assert 0.75 * best.sic < reached.sic < 1.05 * best.sic
