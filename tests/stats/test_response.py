"""Limits on constructed response curves whose answer is known."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
from scipy import stats

from raypipe.stats.response import Limit, cls, cls_limit, crossing, crossing_limit, expected_cls_limit

STRENGTHS = np.array([10.0, 20, 40, 80, 160])
NULL = stats.norm.ppf((np.arange(4000) + 0.5) / 4000)  # a standard normal without fluctuations


def line(slope: float, spread: float = 1.0) -> np.ndarray:
    """Injections with mean slope x strength and exactly this standard deviation."""
    offsets = np.array([-1.0, -0.5, 0, 0.5, 1.0])
    return slope * STRENGTHS[:, None] + spread * offsets / offsets.std(ddof=1)


def test_crossing_interpolates_and_takes_the_last():
    assert crossing(np.array([0.0, 10, 20]), np.array([0.0, 1, 3]), 2.0) == pytest.approx(15)
    assert crossing(np.array([0.0, 10, 20, 30]), np.array([0.0, 4, 1, 3]), 2.0) == pytest.approx(25)
    assert crossing(np.array([0.0, 10]), np.array([0.0, 1]), 2.0) is None
    assert crossing(np.array([0.0, 10]), np.array([3.0, 4]), 2.0) == 0


def test_crossing_limit_of_a_straight_line():
    # Mean 0.05 s crosses 2 at s = 40, mean + 1 at 20, mean - 1 at 60.
    found = crossing_limit(NULL, STRENGTHS, line(0.05))
    assert (found.value, found.low, found.high) == pytest.approx((40, 20, 60), rel=0.01)
    assert found.scaled(0.5).value == pytest.approx(20, rel=0.01)
    assert crossing_limit(NULL, STRENGTHS, line(0.001)) == Limit(None, None, None)


def test_a_limit_below_the_smallest_strength_is_a_bound():
    # Mean 10 at 10 events: certainly excluded, but nobody knows from where on.
    found = crossing_limit(NULL, STRENGTHS, line(1.0))
    assert (found.value, found.bound) == (10, True)
    json.dumps(asdict(found))  # plain numbers: the summary is JSON
    assert not crossing_limit(NULL, STRENGTHS, line(0.05)).bound


def test_cls_of_a_normal_statistic_with_known_answer():
    # For T ~ N(0.05 s, 1) observed at 0: CLs = Phi(-0.05 s) / Phi(0) = 0.05 at 0.05 s = 1.95996.
    values = cls(0.0, NULL, STRENGTHS, line(0.05))
    np.testing.assert_allclose(values, np.r_[1, stats.norm.cdf(-0.05 * STRENGTHS) / 0.5], rtol=2e-3)
    dense = np.linspace(2, 80, 40)
    injected = 0.05 * dense[:, None] + np.array([-1.0, 0, 1])
    assert cls_limit(0.0, NULL, dense, injected) == pytest.approx(1.959964 / 0.05, rel=0.01)
    # An observation below expectation: CLs protects, the limit does not fall to zero.
    low = expected_cls_limit(NULL, dense, injected)
    assert low.low == pytest.approx((stats.norm.isf(0.05 * stats.norm.cdf(-1)) - 1) / 0.05, rel=0.02)
    assert low.low < low.value < low.high
