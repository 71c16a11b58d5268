"""Any two tables: events seen in training are scored by models that never saw them."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

from raypipe.config import Classifier
from raypipe.config.sections import WEAK_SIGNAL
from raypipe.fit.classifier import EVERY_FOLD
from raypipe.fit.classify import classify, contest_of
from raypipe.stats.roc import max_sic, weighted_auc
from tests.search.toys import log_likelihood_ratio, toy_table

SMALL = Classifier(folds=4, ensemble=2, rounds=20, depth=0, leaves=16, subsample=0.5, early_stopping=None)


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


def test_a_category_is_learned_from_the_events_of_other_folds():
    """Eight codes: the best classifier knows their probabilities, and its AUC is a sum over pairs of codes."""
    rng = np.random.default_rng(4)
    share = np.array([0.02, 0.2, 0.05, 0.1, 0.1, 0.2, 0.03, 0.3])  # neighbouring codes have nothing in common
    ratio = share / share[::-1]
    beats = (ratio[:, None] > ratio) + 0.5 * np.isclose(ratio[:, None], ratio)
    best = share @ beats @ share[::-1]
    data, background = rng.choice(8, (4000, 1), p=share), rng.choice(8, (4000, 1), p=share[::-1])
    contest = contest_of(data, background, data, SMALL, seed=1)
    result = classify(contest)
    assert result.auc == pytest.approx(best, abs=4 * result.auc_error)
    assert np.ptp(np.bincount(contest.home["data"])) <= 1
    assert result.out_of_fold.all()
    assert weighted_auc(np.r_[result.score, result.background], np.arange(8000) < 4000)[0] == result.auc


def test_events_of_which_many_are_padded_with_zeros():
    """Two normal features, both zero in 40 % of the events of either class, where the ratio of likelihoods is one."""
    rng = np.random.default_rng(5)
    shift = 0.56

    def padded(mean: float) -> np.ndarray:
        return np.where(rng.random((6000, 1)) < 0.4, 0.0, rng.normal(mean, 1, (6000, 2)))

    phi = NormalDist().cdf
    best = 0.36 * phi(shift) + 0.08 + 0.48 * phi(shift / np.sqrt(2))
    contest = contest_of(padded(shift), padded(0.0), padded(0.0), SMALL, seed=1)
    result = classify(contest)
    assert best == pytest.approx(0.65, abs=0.002)
    assert best - 0.025 < result.auc < best + 3 * result.auc_error
    for name in ("data", "background"):
        assert np.ptp(np.bincount(contest.home[name])) <= 1


def test_data_weights_count_in_the_auc_and_its_error():
    """Of the data one half lies at 2 and has weight 1/9, the other at 0 like the background: 0.9 of the weight."""
    rng = np.random.default_rng(6)
    n, far = 4000, NormalDist().cdf(2 / np.sqrt(2))
    data = np.r_[rng.normal(2, 1, n // 2), rng.normal(0, 1, n // 2)][:, None]
    background = rng.normal(0, 1, (n, 1))
    for weights, best in ((np.repeat([1.0, 1 / 9], n // 2), 0.9 * far + 0.05), (np.ones(n), far / 2 + 0.25)):
        result = classify(contest_of(data, background, data, SMALL, seed=1, data_weights=weights), data_weights=weights)
        scores, labels = np.r_[result.data, result.background], np.arange(2 * n) < n
        assert (result.auc, result.auc_error) == weighted_auc(scores, labels, np.r_[weights, np.ones(n)])
        assert result.auc == pytest.approx(best, abs=0.015)


def test_weights_with_signs_train_and_count():
    """A fifth of the background has weight -1: the rest is a difference of two Gaussians, the best AUC is known."""
    rng = np.random.default_rng(8)
    n = 20_000
    negative = rng.random(n) < 0.2
    background = np.where(negative, rng.normal(1, 0.6, n), rng.normal(0, 1, n))[:, None]
    weights, ones = np.where(negative, -1.0, 1.0), np.ones(n // 2)
    data = rng.normal(1, 1, (n // 2, 1))
    contest = contest_of(data, background, background, SMALL, seed=1, background_weights=weights)
    result = classify(contest, background_weights=weights)
    x = np.linspace(-5, 6, 4001)
    of_data = np.exp(-((x - 1) ** 2) / 2) / 2.5066 * 0.00275
    rest = (0.8 * np.exp(-(x**2) / 2) - 0.2 * np.exp(-(((x - 1) / 0.6) ** 2) / 2) / 0.6) / 0.6 / 2.5066 * 0.00275
    order = np.argsort(of_data / rest)
    best = (of_data[order] * np.cumsum(rest[order])).sum()
    assert rest.min() >= 0
    assert result.auc == pytest.approx(best, abs=0.01 + 3 * result.auc_error)
    scores, labels = np.r_[result.data, result.background], np.arange(n // 2 + n) < n // 2
    assert (result.auc, result.auc_error) == weighted_auc(scores, labels, np.r_[ones, weights])
    # Without the signs there is another background.
    assert weighted_auc(scores, labels)[0] < best - 0.05
    for share in (0.05, 0.5):
        kept = weights[result.percentile <= share].sum() / weights.sum()
        assert share - 0.01 < kept <= share
    assert contest.w.min() >= 0
    assert contest.w[n // 2 :].sum() == pytest.approx(n // 2, rel=1e-4)


def test_signs_do_not_make_equal_classes_different():
    """Averages within a fold: what is held out tells the training nothing."""
    rng = np.random.default_rng(9)
    pulls = []
    for seed in range(6):
        data, background = rng.normal(size=(1500, 2)), rng.normal(size=(3000, 2))
        weights = np.where(rng.random(3000) < 0.25, -1.0, 1.0)
        result = classify(
            contest_of(data, background, data, SMALL, seed=seed, background_weights=weights), background_weights=weights
        )
        pulls.append((result.auc - 0.5) / result.auc_error)
    assert np.mean(pulls) == pytest.approx(0, abs=3 / np.sqrt(6))


def test_repeated_events_are_held_out_together():
    """30 % of the data are there twice: memorised twins would tell equal classes apart."""
    rng = np.random.default_rng(7)
    once, background = rng.normal(size=(2000, 3)), rng.normal(size=(2600, 3))
    data = np.concatenate([once, once[:600]])
    config = SMALL.model_copy(update={"leaves": 128, "rounds": 60, "min_child_weight": 1.0})
    contest = contest_of(data, background, data, config, seed=1)
    result = classify(contest)
    assert (contest.home["data"][2000:] == contest.home["data"][:600]).all()
    # Repeated events fluctuate together: (2000 + 3 x 600) / 2600 times the variance of so many different ones.
    assert result.auc == pytest.approx(0.5, abs=3.5 * result.auc_error * np.sqrt(3800 / 2600))


def test_weak_supervision_comes_near_the_best_classifier():
    """1 % signal among 20,000 events, twice as many of pure background; the third table is new."""
    data, background, score = toy_table(20_000, 200, 5), toy_table(40_000, 0, 6), toy_table(20_000, 2000, 7)
    config = WEAK_SIGNAL.model_copy(update={"ensemble": 1})
    found = classify(contest_of(data[:, 1:3], background[:, 1:3], score[:, 1:3], config, seed=1)).score
    truth = score[:, 3] == 1
    best = max_sic(*(log_likelihood_ratio(score[truth == k]) for k in (True, False)))
    reached = max_sic(found[truth], found[~truth])
    assert 0.75 * best.sic < reached.sic < 1.05 * best.sic


def test_a_percentile_is_never_zero():
    """An event above all n background events is at 1 / (n + 1): no cut is passed by what no background was seen at."""
    rng = np.random.default_rng(3)
    data, background = rng.normal(10, 1, (600, 1)), rng.normal(0, 1, (500, 1))
    result = classify(contest_of(data, background, np.full((7, 1), 10.0), Classifier(rounds=5, folds=2), seed=1))
    assert result.background.max() < result.score.min()
    assert result.percentile == pytest.approx(1 / 501)
