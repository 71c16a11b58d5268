"""The sculpting test against SciPy's contingency table, and its p-value under the null."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chi2_contingency, kstest

from raypipe.stats.bins import sculpting_test

EDGES = np.linspace(105, 160, 12)


def test_equals_the_chi2_of_a_contingency_table():
    rng = np.random.default_rng(1)
    mass, passed = rng.uniform(105, 160, 4000), rng.random(4000) < 0.3
    table = np.stack([np.histogram(mass[passed], EDGES)[0], np.histogram(mass[~passed], EDGES)[0]])
    expected = chi2_contingency(table, correction=False)
    value, ndf, p = sculpting_test(mass, passed, EDGES)
    assert (value, p) == pytest.approx((expected.statistic, expected.pvalue))
    assert ndf == expected.dof


def test_null_is_uniform_and_a_bump_is_found():
    rng = np.random.default_rng(2)
    p = []
    for _ in range(300):
        mass = 105 + rng.exponential(30, 3000) % 55
        p.append(sculpting_test(mass, rng.random(3000) < 0.05, EDGES)[2])
    assert kstest(p, "uniform").pvalue > 0.01
    mass = rng.uniform(105, 160, 5000)
    bump = rng.random(5000) < np.where(np.abs(mass - 125) < 5, 0.1, 0.05)
    assert sculpting_test(mass, bump, EDGES)[2] < 1e-3


def test_a_handful_of_events_gives_no_verdict():
    value, ndf, p = sculpting_test(np.array([110.0, 120.0]), np.array([True, False]), EDGES)
    assert np.isnan(value)
    assert ndf == 0
    assert np.isnan(p)
