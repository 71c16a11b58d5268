"""Calibration of p-values: closed forms, a search with a known distortion, global p-values against simulation."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import stats

from raypipe.errors import UserError
from raypipe.stats.calibration import Calibration, check_nulls, clopper_pearson, levels, tail

CUT = 0.01


def one_cut(z) -> Calibration:
    return Calibration("key", (CUT,), np.asarray(z, float)[:, None])


def test_counted_p_values_have_closed_forms():
    found = one_cut([0.0, 1.0, 1.0, 3.0])
    assert found.at(CUT, 3.0).p == pytest.approx(2 / 5)
    assert found.at(CUT, 1.0).p == pytest.approx(4 / 5)  # both of a tie count
    assert found.at(CUT, 2.0).p == pytest.approx(math.sqrt(2 / 5 * 4 / 5))  # half way, in log p
    assert found.at(CUT, 0.0).p == found.at(CUT, -9.0).p == pytest.approx(4 / 5)  # p = 1 has no finite z


def test_beyond_the_largest_null_there_is_a_bound_and_no_extrapolation():
    found = one_cut(np.linspace(-2, 3, 99))
    near, far = found.at(CUT, 3.01), found.at(CUT, 30.0)
    assert near == far
    assert near.is_bound
    assert near.p == pytest.approx(0.01)
    assert near.z == pytest.approx(stats.norm.isf(0.01))
    assert not found.at(CUT, 3.0).is_bound


def test_the_map_is_monotone():
    found = one_cut(np.random.default_rng(1).normal(size=300).round(1))
    p = [found.at(CUT, z).p for z in np.linspace(-4, 4, 400)]
    assert (np.diff(p) <= 0).all()


def test_withheld_nulls_say_nothing():
    assert one_cut([0.0, 1.0, math.nan]).at(CUT, 0.5) == one_cut([0.0, 1.0]).at(CUT, 0.5)
    assert tail(np.array([math.nan, 3.0, 0.0]), 0.01)[1:4] == (1, 2, 0.5)


def test_bands_are_those_of_clopper_and_pearson_and_cover():
    level = 0.9
    assert clopper_pearson(0, 20, level) == (0.0, pytest.approx(1 - 0.05 ** (1 / 20)))
    assert clopper_pearson(20, 20, level) == (pytest.approx(0.05 ** (1 / 20)), 1.0)
    for p in (0.003, 0.02, 0.3):
        counts = np.arange(201)
        inside = np.array([low <= p <= high for low, high in (clopper_pearson(int(k), 200, level) for k in counts)])
        assert stats.binom.pmf(counts[inside], 200, p).sum() >= level
    assert tail(stats.norm.isf(np.linspace(0.0005, 0.9995, 1000)), 0.01) == (
        *(0.01, 10, 1000, 0.01),
        *clopper_pearson(10, 1000),
    )


def test_a_known_distortion_is_undone():
    """True p-values u are reported as u^1.25, which is 1e-3 as 2e-4: calibrated on other nulls they are uniform."""
    rng = np.random.default_rng(20)
    reported = stats.norm.isf(rng.random(24_000) ** 1.25)
    made, held_out = reported[:20_000], reported[20_000:]
    found = one_cut(made)
    assert stats.kstest(stats.norm.sf(held_out), "uniform").pvalue < 1e-6
    calibrated = np.array([found.at(CUT, z).p for z in held_out])
    assert stats.kstest(calibrated, "uniform").pvalue > 0.05
    for p in (1e-1, 1e-2, 1e-3):
        z = float(stats.norm.isf(p**1.25))
        assert found.at(CUT, z).p == pytest.approx(p, rel=4 / math.sqrt(20_000 * p))
        counted = tail(made, p**1.25)
        low, high = clopper_pearson(counted.count, counted.nulls, 0.999)
        assert low < p < high


def test_global_p_of_correlated_cuts_agrees_with_simulation():
    rng, correlation = np.random.default_rng(3), np.array([[1, 0.6, 0.3], [0.6, 1, 0.6], [0.3, 0.6, 1]])
    nulls, truth = (rng.multivariate_normal(np.zeros(3), correlation, n) for n in (5000, 400_000))
    points = (0.05, 0.01, 0.002)
    found = Calibration("key", points, nulls)
    for z in (1.5, 2.0, 2.5):
        true = float((truth.max(1) >= z).mean())
        got = found.anywhere({points[0]: 0.0, points[1]: z, points[2]: -1.0})
        assert got.p == pytest.approx(true, rel=5 * math.sqrt(2 / (5000 * true)))
        assert found.at(points[1], z).p < got.p < 3 * found.at(points[1], z).p
    beyond = found.anywhere({points[1]: 99.0})
    assert beyond.is_bound
    assert 1 / 5001 <= beyond.p < 3.5 / 5001  # the largest null of each cut is as rare
    best = {point: shown for point, shown in found.tails([0.01]) if point is None}[None]
    assert best.empirical == pytest.approx(float((truth.max(1) >= stats.norm.isf(0.01)).mean()), rel=0.35)


def test_it_goes_to_json_and_back():
    z = np.random.default_rng(5).normal(size=(50, 2))
    z[3, 1] = math.nan
    found = Calibration("key", (0.02, 0.1), z)
    again = Calibration.of(json.loads(json.dumps(found.plain(), allow_nan=False)))
    assert (again.key, again.points) == (found.key, found.points)
    assert np.allclose(again.z, z, atol=1e-4, equal_nan=True)


def test_bad_input_is_one_line():
    check_nulls(99, 0.01)
    check_nulls(9999, 1e-4)
    with pytest.raises(UserError, match=r"^calibrate: with 98 nulls no p-value is below 0.01; 0.01 needs 99 or more"):
        check_nulls(98, 0.01)
    found = one_cut([0.0])
    assert found.check("key", "calibration.json") is found
    with pytest.raises(UserError, match=r"^calibration.json: made with another configuration"):
        found.check("other", "calibration.json")


def test_levels_are_those_that_the_nulls_reach():
    assert levels(9) == []
    assert levels(100) == pytest.approx([0.1, 0.01])
    assert levels(10_000) == pytest.approx([1e-1, 1e-2, 1e-3, 1e-4])
