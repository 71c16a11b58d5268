"""Statistics of scores on hand-made numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from raypipe.stats import comparison

SCORES = np.array([0.9, 0.6, 0.3, 0.2, 0.4])
IS_DATA = np.array([True, True, True, False, False])
ONES = np.ones(5)


def test_mean_max_and_deviation_look_at_the_data_only():
    found = comparison.compute(SCORES, IS_DATA, ONES, "mlc")
    assert found["mean_score"] == pytest.approx(0.6)
    assert found["max_score"] == 0.9
    assert comparison.compute(np.r_[SCORES[:4], 5.0], IS_DATA, ONES, "mlc")["max_score"] == 0.9
    assert found["std_score"] == pytest.approx(math.sqrt((0.09 + 0 + 0.09) / 3))


def test_losses_by_hand():
    bce = -(math.log(0.9) + math.log(0.6) + math.log(0.3) + math.log(0.8) + math.log(0.6))
    assert comparison.total_loss(SCORES, IS_DATA, ONES, "bce") == pytest.approx(bce)
    mlc = math.exp(0.2) - 1 + 2 * (math.exp(0.4) - 1) - 1.8
    assert comparison.total_loss(SCORES, IS_DATA, np.array([1, 1, 1, 1, 2.0]), "mlc") == pytest.approx(mlc)
    assert comparison.mean_loss(SCORES, IS_DATA, ONES, "bce") == pytest.approx(bce / 5)


def test_a_blind_classifier_has_log_2_and_zero():
    half, zero = np.full(5, 0.5), np.zeros(5)
    assert comparison.mean_loss(half, IS_DATA, ONES, "bce") == pytest.approx(math.log(2))
    found = comparison.compute(zero, IS_DATA, ONES, "mlc")
    assert found == {"mean_loss": 0, "mean_score": 0, "max_score": 0, "std_score": 0, "auc": 0.5, "likelihood_ratio": 0}
    assert comparison.likelihood_ratio(half, IS_DATA, ONES, "bce") == pytest.approx(0)


def test_the_exact_likelihood_ratio_is_the_best_function_and_both_losses_agree_on_it():
    # One bin, 130 data against 100 reference: t = 2 [130 ln 1.3 - 30] (Poisson), at f = ln 1.3.
    is_data = np.arange(230) < 130
    f = np.full(230, math.log(1.3))
    t = comparison.likelihood_ratio(f, is_data, np.ones(230), "mlc")
    assert t == pytest.approx(2 * (130 * math.log(1.3) - 30))
    assert comparison.likelihood_ratio(f + 0.01, is_data, np.ones(230), "mlc") < t
    assert comparison.likelihood_ratio(np.full(230, 1.3 / 2.3), is_data, np.ones(230), "bce") == pytest.approx(t)


def test_asymptotics_of_a_chi_squared_sample():
    t = np.random.default_rng(1).chisquare(7, 4000)
    found = comparison.asymptotic_comparison(t)
    assert found["degrees"] == pytest.approx(7, abs=4 * math.sqrt(14 / 4000))
    assert found["variance_ratio"] == pytest.approx(1, abs=0.12)
    assert found["ks_p"] > 1e-3
    assert comparison.asymptotic_comparison(t**1.5)["ks_p"] < 1e-6
