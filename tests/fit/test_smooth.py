"""Features made smooth for a flow and back: standard normal there, the user's own values here."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kstest

from raypipe.fit.smooth import Pieces, Plain, fit_feature

N = 4000


def features() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    isolation = np.maximum(0, rng.normal(size=N))
    return {
        "zeros": isolation,
        "flag": (rng.random(N) < 0.1) * 1.0,
        "counts": rng.poisson(3, N) * 1.0,
        "codes": rng.choice([11.0, 13.0, 22.0, 2212.0], N, p=[0.3, 0.05, 0.6, 0.05]),
        "bound": 1 - isolation,
        "both bounds": rng.normal(size=N).clip(-1, 1),
        "default": np.where(rng.random(N) < 0.1, -999, isolation),
        "grid": rng.normal(size=N).round(1),
        "zeros on a grid": isolation.round(2),
        "cauchy": rng.standard_cauchy(N),
        "thirds": rng.integers(0, 9, N) / 3,
        "large counts": rng.poisson(2000, N) * 1.0,
        "middle": np.where(rng.random(N) < 0.2, 0.5, rng.normal(size=N)),
        "spike and rare": np.where(rng.random(N) < 0.999, 0.0, rng.normal(size=N)),
    }


@pytest.mark.parametrize("name", features())
def test_what_is_not_smooth_becomes_normal_and_comes_back(name):
    x = features()[name]
    found = fit_feature(x, logit=True, margin=1e-3)
    assert isinstance(found, Pieces)
    assert found.said
    rng = np.random.default_rng(4)
    z = found.forward(x, rng.random(N))
    # A unit Gaussian but for the steps of its smooth maps: the Kolmogorov distance of N draws is 1.6/sqrt(N) at 99 %.
    assert kstest(z, "norm").statistic < 0.04
    assert np.abs(found.inverse(z) - x).max() <= 1e-6 * np.abs(x).max()
    assert (found.bounded(x) == x).all()
    # What a flow draws are values that occur, each as often as in the data.
    drawn = found.inverse(rng.normal(size=N))
    assert x.min() - 1e-2 * np.ptp(x) <= drawn.min() <= drawn.max() <= x.max() + 1e-2 * np.ptp(x)
    values, counts = np.unique(x, return_counts=True)
    often = values[counts > 40]
    share = np.array([[(y == v).mean() for v in often] for y in (x, drawn)]).reshape(2, -1)
    assert share[1] == pytest.approx(share[0], abs=5 * np.sqrt(0.5 / N))
    if found.levels is not None or len(values) <= 40:
        assert np.isin(drawn, values).all()


def test_smooth_features_stay_as_they_were():
    rng = np.random.default_rng(5)
    for x in (
        rng.normal(size=N),
        rng.exponential(1, N),
        rng.beta(2, 5, N),
        rng.normal(size=N).astype("f4").astype(float),
    ):
        found = fit_feature(x, logit=True, margin=1e-3)
        assert isinstance(found, Plain)
        assert found.said == ""
        low, high = x.min() - 1e-3 * np.ptp(x), x.max() + 1e-3 * np.ptp(x)
        assert found.forward(x, x) == pytest.approx(np.log((x - low) / (high - x)), rel=1e-6, abs=1e-9)
        assert fit_feature(x, logit=False, margin=1e-3).forward(x, x) is x


def test_what_the_sidebands_do_not_know_is_taken_to_the_nearest_that_they_do():
    found = fit_feature(features()["default"], logit=True, margin=1e-3)
    got = found.bounded(np.array([-999.0, -800.0, -0.3, 0.7, 99.0]))
    assert got[:2].tolist() == [-999, -999]
    assert got[3] == 0.7
    assert 0 <= got[2] < 0.01
    assert 3 < got[4] < 5
    flag = fit_feature(features()["flag"], logit=True, margin=1e-3)
    assert flag.bounded(np.array([-3.0, 0.2, 0.9, 7.0])).tolist() == [0, 0, 1, 1]
