"""The likelihood of score bins: closed forms, pyhf's own inference, a template that is wrong, coverage."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyhf
import pytest
from scipy import stats

from raypipe.stats.limits import workspace_limit
from raypipe.stats.significance import counting_significance
from raypipe.stats.workspace import Fits, ScoreBins, workspace


def one_bin(n: float, b: float, s: float = 1.0, error: float = 0.0) -> ScoreBins:
    none, nought = np.empty(0), np.zeros(1)
    known = np.array([0.0, 1.0]), np.array([n]), np.array([b]), np.array([error]), nought, nought, np.array([s])
    return ScoreBins(*known, none, none, np.array([1e-6]), np.array([0.1]))


def three_bins(seed: int | None = None, kappa: tuple[float, ...] = (1, 1, 1), signal: float = 0.0) -> ScoreBins:
    """A thousandth, a hundredth and the rest of 20,000 events; sidebands of 60,000; the mean without a seed."""
    share = np.array([0.001, 0.009, 0.99])
    continuum, higgs, side = 19_500 * share, np.array([10.0, 40.0, 450.0]), 60_000 * share
    shape, kappa = 100 * np.array([0.2, 0.15, 0.65]), np.array(kappa)
    rng = np.random.default_rng(seed)
    draw = (lambda mean: mean) if seed is None else (lambda mean: rng.poisson(mean).astype(float))
    truth = kappa * continuum * (1 if seed is None else rng.normal(1, 0.01))
    higgs_truth = higgs * (1 if seed is None else rng.normal(1, 0.1))
    known = draw(truth + higgs_truth + signal * shape), continuum, np.full(3, 1e-4), higgs, np.full(3, 1e-3)
    return ScoreBins(
        np.r_[0, 0.001, 0.01, 1], *known, shape, draw(kappa * side), side, np.array([0.01]), np.array([0.1])
    )


@pytest.mark.parametrize(("n", "b"), [(15.0, 9.0), (130.0, 100.0), (4.0, 0.5)])
def test_one_bin_over_a_known_background_is_the_closed_form(n, b):
    fits = Fits(workspace(one_bin(n, b)))
    assert fits.z == pytest.approx(np.sqrt(2 * (n * np.log(n / b) - n + b)), abs=2e-3)
    assert fits.mu == pytest.approx(n - b, abs=1e-2)
    assert Fits(workspace(one_bin(b - 0.4, b))).z == pytest.approx(0, abs=2e-3)


def test_a_background_with_an_error_is_li_and_ma_for_small_errors():
    assert Fits(workspace(one_bin(150, 100, error=0.05))).z == pytest.approx(
        counting_significance(150, 100, 5), abs=0.05
    )


def test_the_limit_over_a_large_known_background_is_that_of_a_gaussian():
    """1007.1727 with CLs: mu_up = sigma Phi^-1(1 - 0.05/2) for data that are the expectation."""
    limit = workspace_limit(Fits(workspace(one_bin(40_000, 40_000, 2.0))))
    assert limit.observed == pytest.approx(1.96 * 100, rel=0.02)
    assert limit.expected == pytest.approx(limit.observed, rel=1e-3)
    assert list(limit.bands) == sorted(limit.bands)


def test_pyhf_infers_the_same():
    bins = three_bins(3, signal=0.4)
    spec = workspace(bins)
    fits, book = Fits(spec), pyhf.Workspace(spec)
    limit = workspace_limit(fits)
    pyhf.set_backend("numpy", "minuit")
    model = book.model()
    data = book.data(model)
    p0 = float(pyhf.infer.hypotest(0.0, data, model, test_stat="q0"))
    at_limit = pyhf.infer.hypotest(limit.observed, data, model, return_expected_set=True)
    at_expected = pyhf.infer.hypotest(limit.expected, data, model, return_expected=True)
    pyhf.set_backend("numpy", "scipy")
    assert fits.z == pytest.approx(stats.norm.isf(p0), abs=0.02)
    assert fits.z > 1
    assert float(at_limit[0]) == pytest.approx(0.05, abs=2e-3)
    assert float(at_expected[1]) == pytest.approx(0.05, abs=2e-3)


def test_what_the_template_gets_wrong_in_both_regions_is_no_excess():
    """A template that is wrong by 1.5 in the signal-like bin: without sidebands nine sigma, with them nothing."""
    wrong, none = three_bins(kappa=(1.5, 1, 1)), np.empty(0)
    assert Fits(workspace(wrong)).z == pytest.approx(0, abs=0.02)
    alone = replace(wrong, sideband=none, sideband_template=none)
    assert Fits(workspace(alone)).z > 1.5
    # And a signal is found on top of it.
    assert Fits(workspace(three_bins(kappa=(1.5, 1, 1), signal=2.0))).mu == pytest.approx(2.0, abs=0.05)


def test_bins_say_more_than_one_cut():
    found = three_bins(signal=1.0)
    cut = [counting_significance(found.observed[:k].sum(), (found.continuum + found.higgs)[:k].sum()) for k in (1, 2)]
    assert Fits(workspace(replace(found, higgs_uncertainty=np.array([1e-3])))).z > 0.9 * max(cut)


def test_a_free_normalisation_leaves_the_shape():
    found = three_bins(signal=0.0)
    scaled = replace(found, observed=1.3 * found.continuum + found.higgs, normalisation=np.array([np.inf]))
    assert Fits(workspace(scaled)).z == pytest.approx(0, abs=0.02)


def test_arrays_come_back():
    bins = three_bins(1)
    again = ScoreBins.of(bins.arrays())
    assert workspace(again) == workspace(bins)


@pytest.mark.slow
def test_data_without_a_signal_have_the_significances_of_a_half_gaussian():
    """300 toys with fluctuating counts, yields and sidebands: half of them nought, the others a half Gaussian."""
    found = np.array([Fits(workspace(three_bins(seed))).z for seed in range(300)])
    positive = found[found > 0.01]
    assert len(positive) / len(found) == pytest.approx(0.5, abs=3 * 0.5 / np.sqrt(300))
    assert np.mean(positive**2) == pytest.approx(1.0, abs=3 * np.sqrt(2 / 150))
    assert found.mean() == pytest.approx(1 / np.sqrt(2 * np.pi), abs=3 * 0.58 / np.sqrt(300))
