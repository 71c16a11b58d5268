"""p-values, bands and combinations: exact small numbers, and uniformity over many pseudo-experiments."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from raypipe.errors import UserError
from raypipe.stats.calibration import bands, calibration, combined_p, p_value


def test_p_is_one_plus_n_over_one_plus_N_and_never_zero():
    null = np.arange(99.0)
    assert p_value(1000, null) == 1 / 100
    assert p_value(98, null) == 2 / 100  # equal counts as at least as anomalous
    assert p_value(-1, null) == 1
    with pytest.raises(UserError, match="not finite"):
        p_value(np.nan, null)


def test_bands_are_normal_quantiles_and_need_20():
    found = bands(np.random.default_rng(1).normal(size=200_000))
    expected = {"low_2": -2, "low_1": -1, "median": 0, "high_1": 1, "high_2": 2}
    assert found == pytest.approx(expected, abs=0.02)
    with pytest.raises(UserError, match="20 bootstraps or more, there are 19"):
        bands(np.zeros(19))


def test_combined_p_of_one_test_is_its_p():
    rng = np.random.default_rng(2)
    null = rng.normal(size=99)
    for observed in (-1.0, 1.2, 9.0):
        assert combined_p(np.array([observed]), null[:, None]) == pytest.approx(p_value(observed, null))


def test_combined_p_corrects_for_looking_at_eight_correlated_statistics():
    rng = np.random.default_rng(3)
    n, tests = 79, 8
    global_p, best = [], []
    for _ in range(600):
        x = rng.normal(size=(n + 1, tests)) + rng.normal(size=(n + 1, 1))
        global_p.append(combined_p(x[0], x[1:]))
        best.append(min(p_value(x[0, k], x[1:, k]) for k in range(tests)))
    assert np.mean(np.array(best) <= 0.05) > 0.15  # uncorrected: wrong
    # Corrected: at most level, and uniform but for its steps.
    assert np.mean(np.array(global_p) <= 0.05) == pytest.approx(0.05, abs=3.5 * np.sqrt(0.05 * 0.95 / 600))
    assert stats.kstest(global_p, stats.uniform.cdf).pvalue > 1e-3


def test_calibration_accepts_the_same_and_refuses_another_distribution():
    rng = np.random.default_rng(4)
    null = rng.normal(size=399)
    same, wider = calibration(rng.normal(size=400), null), calibration(1.5 * rng.normal(size=400), null)
    assert same["expected"] == 0.05
    assert abs(same["type_i"] - 0.05) < 3 * same["error"]
    assert same["ks_p"] > 0.01
    assert wider["type_i"] - 0.05 > 4 * wider["error"]
    assert wider["ks_p"] < 0.01
