"""Significances against closed forms and published formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest

from raypipe.stats.significance import (
    asimov_significance,
    counting_significance,
    mean_and_error,
)


def li_ma(n_on: float, n_off: float, alpha: float) -> float:
    """Li & Ma, ApJ 272 (1983) 317, equation 17."""
    total = n_on + n_off
    return math.sqrt(
        2 * (n_on * math.log((1 + alpha) / alpha * n_on / total) + n_off * math.log((1 + alpha) * n_off / total))
    )


@pytest.mark.parametrize(("n", "b", "s"), [(140, 100, 10), (25, 10, 2), (1050, 1000, 5), (12, 3.5, 1.5)])
def test_equals_li_ma(n, b, s):
    tau = b / s**2
    assert counting_significance(n, b, s) == pytest.approx(li_ma(n, tau * b, 1 / tau), rel=1e-9)


def test_known_background_is_the_poisson_likelihood_ratio():
    # sqrt(2 (n ln(n/b) - (n - b))) with n = 150, b = 100
    assert counting_significance(150, 100) == pytest.approx(math.sqrt(2 * (150 * math.log(1.5) - 50)), rel=1e-12)
    assert counting_significance(150, 100, 1e-4) == pytest.approx(counting_significance(150, 100), rel=1e-6)
    assert counting_significance(100, 100, 10) == 0
    assert counting_significance(0, 2.0) == pytest.approx(-2.0)


def test_large_counts_approach_the_gaussian_limit():
    n, b, s = 101_000, 100_000, 400
    assert counting_significance(n, b, s) == pytest.approx((n - b) / math.hypot(math.sqrt(b), s), rel=5e-3)


def test_calibrated_under_the_null():
    """Over many experiments with an uncertain background, Z is standard normal (mean 0, width 1)."""
    rng = np.random.default_rng(1)
    true, tau = 200.0, 4.0
    off = rng.poisson(true * tau, 4000)
    on = rng.poisson(true, 4000)
    z = [counting_significance(n, m / tau, math.sqrt(m) / tau) for n, m in zip(on, off, strict=True)]
    assert np.mean(z) == pytest.approx(0, abs=4 / math.sqrt(4000))
    assert np.std(z) == pytest.approx(1, abs=4 / math.sqrt(2 * 4000))


@pytest.mark.parametrize("arguments", [(1, 0), (1, -1), (-1, 1), (math.nan, 1), (1, 1, -1), (1, math.inf)])
def test_nonsense_is_refused(arguments):
    with pytest.raises(ValueError, match="counting_significance"):
        counting_significance(*arguments)


def test_mean_and_error():
    assert mean_and_error([1.0, 2.0, 3.0]) == (2.0, pytest.approx(1 / math.sqrt(3)))
    assert mean_and_error([4.0]) == (4.0, None)
    with pytest.raises(ValueError, match="no values"):
        mean_and_error([])


def test_error_of_a_mean_over_overlapping_instances():
    """Counts in instances drawn from one pool that share 30 % of it: the error quoted is the spread of their mean."""
    rng = np.random.default_rng(1)
    k, overlap, repeats = 5, 0.3, 4000
    shared = rng.normal(0, math.sqrt(overlap), (repeats, 1))
    values = shared + rng.normal(0, math.sqrt(1 - overlap), (repeats, k))
    squared = [mean_and_error(row, overlap)[1] ** 2 for row in values.tolist()]
    assert math.sqrt(np.mean(squared)) == pytest.approx(values.mean(1).std(), rel=0.03)  # 4000 repetitions: 1.1 %
    assert values.mean(1).std() == pytest.approx(math.sqrt(overlap + (1 - overlap) / k), rel=0.03)
    with pytest.raises(ValueError, match="overlap in"):
        mean_and_error([1.0, 2.0], 1.0)


def test_asimov_significance_closed_forms():
    """1007.1727, equation 97; Cowan 2012, equation 20, spelt out; the limit S/sqrt(B)."""
    s, b, error = 20.0, 50.0, 6.0
    assert asimov_significance(s, b) == pytest.approx(math.sqrt(2 * ((s + b) * math.log(1 + s / b) - s)))
    v = error**2
    square = (s + b) * math.log((s + b) * (b + v) / (b * b + (s + b) * v))
    square -= b * b / v * math.log(1 + v * s / (b * (b + v)))
    assert asimov_significance(s, b, error) == pytest.approx(math.sqrt(2 * square))
    assert asimov_significance(10, 1e8) == pytest.approx(10 / math.sqrt(1e8), rel=1e-5)
    assert asimov_significance(10, 1e8, 1e4) == pytest.approx(10 / math.sqrt(2e8), rel=1e-4)
