"""Gradients of the binned and the unbinned likelihood, walls and constraints included, against differences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from raypipe.stats.backgrounds import family
from raypipe.stats.bins import Bins, groups
from raypipe.stats.peakdata import FixedPeak, binned_problem
from raypipe.stats.peaks import Gaussian
from raypipe.stats.unbinned import Unbinned

EDGES = np.linspace(100, 160, 61)
PEAK, OTHER = Gaussian(125.0, 1.5), Gaussian(140.0, 2.0)
MASSES = np.random.default_rng(1).uniform(100, 160, 90)


def problem(background: str, unbinned: bool):
    """Few events, so that bins under the peak are empty; a constrained component; a barrier that can be seen."""
    counts = np.histogram(MASSES, EDGES)[0].astype(float)
    bins = Bins(EDGES[:-1], EDGES[1:], counts, np.ones(60), None, (100.0, 160.0))
    binned = binned_problem(bins, family(background, 100, 160), [FixedPeak(OTHER, 5.0, 2.0)])
    template = PEAK.integral(EDGES[:-1], EDGES[1:])
    if not unbinned:
        return binned.with_signal(template).softened(0.1)
    shape = binned.shape
    parts = {"components": binned.components, "densities": (OTHER.density(MASSES),)}
    one = Unbinned(shape, shape.family.basis(MASSES) @ shape.transform, np.ones(90), 1.0, **parts)
    return one.with_signal(template, PEAK.density(MASSES)).softened(0.1)


@pytest.mark.parametrize("unbinned", [False, True])
@pytest.mark.parametrize("background", ["exp", "poly:2", "bernstein:3"])
@pytest.mark.parametrize("s", [8.0, -0.6])
def test_gradients_are_those_of_the_values(background, unbinned, s):
    one = problem(background, unbinned)
    theta = np.r_[one.start[:-1], 4.0, s][None]
    value, gradient, information = one.evaluate(theta)
    assert np.isfinite(value).all()
    np.testing.assert_allclose(information, information.transpose(0, 2, 1))
    for k in range(theta.shape[1]):
        step = np.zeros_like(theta)
        step[0, k] = 1e-5
        up, down = (one.evaluate(theta + sign * step)[0][0] for sign in (1, -1))
        # The bin averages of the basis in a barrier are those at the start of the fit.
        assert gradient[0, k] == pytest.approx((up - down) / 2e-5, rel=1e-3, abs=1e-3)
    without = replace(one, barrier=0.0).evaluate(theta)[0]
    assert (value[0] != without[0]) == (s < 0 or background != "exp")  # only what can vanish has a wall


@pytest.mark.parametrize("unbinned", [False, True])
def test_a_fixed_yield_is_that_of_the_free_one(unbinned):
    one = problem("exp", unbinned)
    theta = np.r_[one.start, 7.0]
    fixed = one.at_yield(7.0)
    assert fixed.size == one.size - 1
    assert fixed.evaluate(theta[None, :-1])[0] == pytest.approx(one.evaluate(theta[None])[0], rel=1e-12)
    np.testing.assert_allclose(fixed.expected(theta[None, :-1]), one.expected(theta[None]))


def test_neighbours_are_joined_until_there_is_enough():
    content = np.array([1.0, 1, 1, 3, 1])
    assert groups(content, 2).tolist() == [0, 2]
    assert groups(content, 2, join_rest=False).tolist() == [0, 2, 4]
    assert groups(np.array([2.0, 2]), 2, join_rest=False).tolist() == [0, 1]
    assert groups(np.array([1.0, 0.5]), 2).tolist() == [0]
