"""Long statistical studies of fits and hunts (`make test-slow`); recorded by tests/stats/record.py."""

from __future__ import annotations

import numpy as np
import pytest

from tests.stats import studies

pytestmark = pytest.mark.slow


def test_pulls_of_500_toys():
    for row in studies.pulls(500):
        assert row["failed"] == 0
        assert abs(row["mean"]) < 0.1 + 3 / np.sqrt(500)
        assert abs(row["width"] - 1) < 0.1
        assert row["signed_root_ks_p"] > 0.01
        assert row["cpu_seconds_per_fit"] < 0.2


def test_local_p_is_uniform():
    rows = studies.local_p(2000)
    assert all(row["failed"] == 0 and row["ks_p"] > 0.01 / len(rows) for row in rows)
    assert all(abs(row["share_at_zero"] - 0.5) < 0.05 for row in rows)


def test_linearity_and_coverage():
    for row in studies.linearity(2000):
        assert abs(row["fitted"] - row["injected"]) < 4 * row["error_of_mean"] + 0.01 * row["injected"]
        assert abs(row["coverage_68"] - 0.683) < 0.035


def test_limits_cover():
    for row in studies.limits(200):
        assert row["coverage_95"] > 0.95 - 3 * np.sqrt(0.05 * 0.95 / 200)


def test_global_p_is_uniform():
    row = studies.global_p(100, 200)
    assert row["ks_p"] > 0.01
    assert abs(row["asymptotic_over_toys_below_0.3"] - 1) < 0.25
