"""ROC quantities against scikit-learn and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from raypipe.stats.roc import max_sic, sic, sic_curve, tail_shares, weighted_auc


def test_auc_equals_scikit_learn_with_weights_and_ties():
    rng = np.random.default_rng(0)
    scores = np.round(np.r_[rng.normal(0.5, 1, 800), rng.normal(0, 1, 1200)], 1)
    labels = np.r_[np.ones(800, bool), np.zeros(1200, bool)]
    weights = rng.exponential(1, 2000)
    auc, _ = weighted_auc(scores, labels, weights)
    assert auc == pytest.approx(roc_auc_score(labels, scores, sample_weight=weights), abs=1e-12)


def test_auc_of_two_gaussians_and_its_null_error():
    rng = np.random.default_rng(1)
    n = 40_000
    labels = np.r_[np.ones(n, bool), np.zeros(n, bool)]
    auc, error = weighted_auc(np.r_[rng.normal(1, 1, n), rng.normal(0, 1, n)], labels)
    # Phi(1/sqrt 2)
    assert auc == pytest.approx(0.5 * (1 + math.erf(0.5)), abs=4 * error)
    null = [weighted_auc(rng.normal(size=400), np.arange(400) < 150)[0] for _ in range(400)]
    assert np.std(null) == pytest.approx(weighted_auc(rng.normal(size=400), np.arange(400) < 150)[1], rel=0.15)


@pytest.mark.parametrize("separation", [0.0, 1.5])
@pytest.mark.parametrize("signed", [False, True])
def test_the_error_of_a_weighted_auc_is_the_spread_of_repetitions(separation, signed):
    """Weights of both classes differ by orders of magnitude, or are negative in a fifth of the events."""
    rng = np.random.default_rng(4)
    labels = np.arange(1000) < 300
    found = []
    for _ in range(400):
        scores = rng.normal(np.where(labels, separation, 0.0))
        weights = np.where(rng.random(1000) < 0.2, -1.0, 1.0) if signed else rng.exponential(1, 1000) ** 2
        found.append(weighted_auc(scores, labels, weights))
    auc, error = np.array(found).T
    assert auc.mean() == pytest.approx(0.5 * (1 + math.erf(separation / 2)), abs=4 * auc.std() / 20)
    assert error.mean() == pytest.approx(auc.std(), rel=0.12)


def test_auc_needs_a_positive_sum_of_weights_in_both_classes():
    with pytest.raises(ValueError, match="positive sum"):
        weighted_auc(np.arange(4.0), np.array([1, 1, 0, 0]), np.array([1.0, -1.0, 1.0, 1.0]))


def test_signed_weights_keep_efficiencies_percentiles_and_sic():
    """A fifth of the weights is -1, whatever the score: shares are those of the same events with weight one."""
    rng = np.random.default_rng(5)
    n = 200_000
    signal, background = rng.normal(2, 1, n // 4), rng.normal(0, 1, n)
    weights = [np.where(rng.random(len(x)) < 0.2, -1.0, 1.0) for x in (signal, background)]
    own = tail_shares(background, background, weights[1], own=True)[1]
    for share in (0.01, 0.1, 0.5):
        kept = weights[1][own <= share].sum() / weights[1].sum()
        spread = math.sqrt(share / n) / 0.6
        assert share - 4 * spread < kept <= share
        assert (own <= share).mean() == pytest.approx(share, abs=5 * spread)
    assert (np.diff(own[np.argsort(background)]) <= 0).all()
    # Of n events with such signs 0.36 n are effective: the same cut has an error larger by 1 / 0.6.
    best, plain = max_sic(signal, background, 2500, tuple(weights)), max_sic(signal, background, round(2500 / 0.36))
    assert best.sic == pytest.approx(plain.sic, rel=0.05)
    assert best.background_efficiency == pytest.approx(plain.background_efficiency, rel=0.05)
    assert best.error / best.sic == pytest.approx(plain.error / plain.sic / 0.6, rel=0.05)


def test_max_sic_with_equal_weights_is_that_without():
    rng = np.random.default_rng(6)
    signal, background = rng.normal(1, 1, 500), rng.normal(0, 1, 3000)
    weighted = max_sic(signal, background, weights=(np.full(500, 0.3), np.full(3000, 7.0)))
    for name, value in vars(max_sic(signal, background)).items():
        assert getattr(weighted, name) == pytest.approx(value, rel=1e-9)


def test_percentiles_keep_the_asked_share_of_the_reference():
    rng = np.random.default_rng(2)
    reference, weights = rng.normal(size=5000), rng.exponential(1, 5000)
    own = tail_shares(reference, reference, weights, own=True)[1]
    for share in (0.01, 0.1, 0.5):
        kept = weights[own <= share].sum() / weights.sum()
        assert share - 0.003 < kept <= share
    better, least = tail_shares(np.array([1e9, -1e9]), reference, weights)
    assert better[0] == 0 < least[0] < 1e-3
    assert least[1] == pytest.approx(1.0)


def test_sic_of_two_gaussians():
    rng = np.random.default_rng(3)
    signal, background = rng.normal(2, 1, 400_000), rng.normal(0, 1, 400_000)
    ones = np.ones(len(background))
    percentile = {k: tail_shares(v, background, ones, own=k == "b")[1] for k, v in (("s", signal), ("b", background))}
    eff_s, curve = sic_curve(percentile["s"], percentile["b"], np.ones(len(background)), np.array([0.01, 1e-6]))
    # eps_B = 1 % is a cut at 2.326; eps_S = Phi(2 - 2.326)
    expected = 0.5 * (1 + math.erf((2 - 2.3263479) / math.sqrt(2)))
    assert eff_s[0] == pytest.approx(expected, abs=0.01)
    assert curve[0] == pytest.approx(sic(expected, 0.01), rel=0.02)
    assert math.isnan(curve[1])  # fewer than 25 background events pass


def test_max_sic_of_two_exponentials():
    """Signal efficiency b^(1/4) at background efficiency b: SIC = b^(-1/4), largest at the smallest b allowed."""
    n = 100_000
    u = (np.arange(n) + 0.5) / n
    background, signal = -np.log(u), -4 * np.log(u)
    best = max_sic(signal, background, least=100)
    assert best.background_efficiency == pytest.approx(100 / n)
    assert best.sic == pytest.approx((100 / n) ** -0.25, rel=0.01)
    assert best.error == pytest.approx(best.sic * 0.5 / 10, rel=0.01)  # Poisson of 100 background events
    assert max_sic(signal, background[:24]) is None


def test_max_sic_keeps_ties_together():
    background = np.r_[np.zeros(900), np.ones(100)]
    signal = np.r_[np.zeros(50), np.ones(50)]
    best = max_sic(signal, background)
    assert (best.signal_efficiency, best.background_efficiency) == (0.5, 0.1)


def test_tail_shares_count_the_judged_event_and_never_are_zero():
    """n + 1 exchangeable events: the share of rank r is r/(n+1), and the best of n + 1 has the share 1/(n+1)."""
    reference = np.array([1.0, 2.0, 3.0, 3.0])
    one = np.ones(4)
    better, share = tail_shares(np.array([9.0, 3.0, 2.5, -9.0]), reference, one)
    assert share.tolist() == pytest.approx([1 / 5, 3 / 5, 3 / 5, 1.0])
    assert better.tolist() == pytest.approx([0.0, 0.0, 2 / 5, 4 / 5])
    assert tail_shares(reference, reference, one, own=True)[1].tolist() == pytest.approx([4 / 5, 3 / 5, 2 / 5, 2 / 5])
    # Equal weights of any size are as none; of unequal ones the mean background event has sum w^2 / sum w.
    assert tail_shares(np.array([9.0]), reference, 0.3 * one)[1] == pytest.approx([1 / 5])
    assert tail_shares(np.array([9.0]), reference, np.array([1, 1, 1, 3.0]))[1] == pytest.approx([2 / 8])
    assert tail_shares(np.array([99.0]), np.arange(99.0), np.full(99, 0.1))[1] <= 0.01  # not 0.0100000001


@pytest.mark.parametrize("weighted", [False, True])
def test_a_cut_keeps_the_share_of_background_that_it_says(weighted):
    """Background of the same distribution as the reference passes a cut f with probability f, in every tail."""
    rng = np.random.default_rng(7)
    passed = np.zeros(2)
    for _ in range(400):
        reference, judged = rng.normal(size=199), rng.normal(size=500)
        weights = np.ones(199)
        if weighted:  # generated too wide: exp(-x^2/4) of it makes it unit Gaussian
            reference *= np.sqrt(2)
            weights = np.exp(-(reference**2) / 4)
        share = tail_shares(judged, reference, weights)[1]
        passed += [(share <= f).mean() for f in (0.05, 0.01)]
    assert passed / 400 == pytest.approx([0.05, 0.01], rel=0.15 if weighted else 0.08)
