"""What a bin of a simulated background adds to -2 ln L, against a minimum found by trying every factor."""

from __future__ import annotations

import time

import numpy as np
import pytest

from raypipe.events.masses import Masses
from raypipe.stats import binned as contents
from raypipe.stats import massfit
from raypipe.stats.backgrounds import template_family
from raypipe.stats.binned import Binned
from raypipe.stats.hunt import Hunt, hunt
from raypipe.stats.peakdata import match_reference
from raypipe.stats.peaks import Gaussian
from raypipe.stats.scan import scan
from raypipe.stats.shape import make_shape
from raypipe.stats.spectrum import bin_masses
from raypipe.stats.widths import Width


def by_trying(n: float, b: float, t: float, error: float) -> float:
    """Least -2 ln L over factors beta >= 0 with an expectation >= 0."""
    beta = np.unique(np.r_[np.linspace(0, 4, 400_001), max(-t / b, 0.0)])
    mu = beta * b + t
    with np.errstate(divide="ignore", invalid="ignore"):
        poisson = 2 * (mu - n + (n * np.log(n / mu) if n else 0.0))
    value = np.where((mu >= 0) & np.isfinite(poisson), poisson + ((beta - 1) / error) ** 2, np.inf)
    return float(value.min())


@pytest.mark.parametrize("n", [0.0, 1.0, 7.0])
@pytest.mark.parametrize("b", [0.05, 0.8, 4.0])
@pytest.mark.parametrize("error", [0.1, 0.6, 1.0])
def test_the_best_factor_is_the_best_of_all(n, b, error):
    row = lambda x: np.array([[x]])  # noqa: E731
    for t in (-0.9 * b, -0.3 * b, 0.0, 0.4, 3.0):
        cost = contents.simulated(row(n), row(b), row(t), np.ones(1), np.array([error]), 1.0)
        assert cost.value[0] == pytest.approx(by_trying(n, b, t, error), abs=1e-4)
        if n == 0 and t == 0:
            continue  # a kink, where the factor is nought
        step = 1e-5
        values = [
            contents.simulated(row(n), row(b), row(t + s), np.ones(1), np.array([error]), 1.0).value[0]
            for s in (-step, step)
        ]
        assert cost.slope[0, 0] == pytest.approx((values[1] - values[0]) / (2 * step), abs=1e-3)


def sparse(simulated: int, seed: int = 2) -> tuple[Masses, Masses]:
    """3000 events of a falling spectrum and a simulation of few."""
    rng = np.random.default_rng(seed)
    found = []
    for number, weight in ((3000, 1.0), (simulated, 3000 / simulated)):
        m = 100 + rng.exponential(40, number)
        m = m[m < 400]
        found.append(Masses(m, np.full(len(m), weight), "m"))
    return Masses(found[0].values, None, "data"), found[1]


@pytest.mark.parametrize("simulated", [30, 100, 300, 1000])
def test_a_hunt_over_a_sparse_simulation_stays_in_the_batch(simulated):
    data, simulation = sparse(simulated)
    start = time.process_time()
    found = hunt(data, Hunt(window=(100, 400), reference=simulation, toys=0, level=None))
    assert time.process_time() - start < 4  # a twentieth of a second a fit is 18; measured 0.3
    assert found.row["valid"]
    assert np.isfinite(found.s).all()
    assert (found.s_err > 0).all()
    assert (found.r < 0).any()


def test_deficits_over_empty_bins_are_the_least_of_minus_two_ln_l():
    """No yield on a fine grid fits better than the one found, deficits and kinks included."""
    data, simulation = sparse(1000, seed=1)
    bins, reference = match_reference(bin_masses(data, (100, 400), np.linspace(100, 400, 241)), simulation)
    shape = make_shape(template_family(0, 100, 400), bins, reference.counts)
    problem = Binned(
        shape, bins.counts[None], np.zeros(1, int), bins.scale, template_error=reference.errors / reference.counts
    )
    null = massfit.fit(problem, shape.start, "null")
    signals = np.array([Gaussian(m, 5.0).integral(bins.low, bins.high) for m in np.r_[np.linspace(110, 390, 15), 220]])
    found = scan(problem, bins.counts[None], signals, null.theta, one_sided=False, tolerance=1e-7)
    assert not found.failed.any()
    at_nought = 0
    for signal, s, r in zip(signals, found.s[0], found.r[0], strict=True):
        curve = massfit.Profile(problem.with_signal(signal), {0.0: null.theta})
        least = curve(float(s))
        around = s + np.array([-2, -0.5, -0.05, 0.05, 0.5, 2]) * max(abs(s), 1.0)
        assert min(curve(float(x)) for x in around) > least - 1e-4
        assert r**2 == pytest.approx(curve(0.0) - least, abs=1e-3)
        at_nought += s == 0
    assert at_nought > 0


def test_too_sparse_a_simulation_is_told():
    row = hunt(*sparse(30)[:1], Hunt(window=(100, 400), reference=sparse(30)[1], level=None)).row
    assert any("of all: use wider bins or a larger simulation" in note for note in row["notes"])
    assert [Width(5.0).label] == [row["scan"]["widths"][0]["width"]]
