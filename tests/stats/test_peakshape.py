"""The shape of a simulated peak."""

from __future__ import annotations

import numpy as np
import pytest

from raypipe.errors import UserError
from raypipe.stats.peaks import CrystalBall, fit_shape


def test_a_crystal_ball_is_recovered_and_a_gaussian_core():
    true = CrystalBall(125.1, 1.5, 1.3, 4.0, 1.8, 5.0)
    grid = np.linspace(100, 160, 200_001)
    u = np.random.default_rng(1).random(40_000)
    masses = np.interp(u, true.cdf(grid), grid)
    found = fit_shape(masses, np.full(len(masses), 0.01))
    assert found.mass == pytest.approx(125.1, abs=0.05)
    assert found.width == pytest.approx(1.5, rel=0.05)
    edges = np.linspace(115, 135, 21)
    difference = found.integral(edges[:-1], edges[1:]) - true.integral(edges[:-1], edges[1:])
    assert np.abs(difference).max() < 0.006


def test_too_few_events_are_told():
    with pytest.raises(UserError, match="only 20 simulated events"):
        fit_shape(np.full(20, 125.0), np.ones(20))
