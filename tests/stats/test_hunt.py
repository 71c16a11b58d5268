"""The bump hunt: batched fits against iminuit one by one, local and global p-values against brute force."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from raypipe.errors import UserError
from raypipe.events.masses import Masses
from raypipe.events.spectra import Spectrum
from raypipe.stats import massfit
from raypipe.stats.backgrounds import family, template_family
from raypipe.stats.binned import Binned
from raypipe.stats.bins import Bins
from raypipe.stats.hunt import Hunt, hunt
from raypipe.stats.likelihood import Component
from raypipe.stats.lookelsewhere import LEVELS, asymptotic, euler_characteristic, from_toys, upcrossings
from raypipe.stats.peakdata import match_reference
from raypipe.stats.peakfit import PeakFit, fit_peak
from raypipe.stats.peaks import Gaussian
from raypipe.stats.scan import draw_toys, scan
from raypipe.stats.shape import make_shape
from raypipe.stats.widths import Width, width

LOW, HIGH, SLOPE = 100.0, 160.0, 30.0
EDGES = np.linspace(LOW, HIGH, 61)
MASSES = np.linspace(104, 156, 14)


def expected(total: float) -> np.ndarray:
    shape = -np.diff(np.exp(-EDGES / SLOPE))
    return total * shape / shape.sum()


def bins(counts: np.ndarray, errors: np.ndarray | None = None) -> Bins:
    return Bins(EDGES[:-1], EDGES[1:], counts, np.ones(len(counts)), errors, (LOW, HIGH))


def templates(sigma: float = 2.0) -> np.ndarray:
    return np.array([Gaussian(m, sigma).integral(EDGES[:-1], EDGES[1:]) for m in MASSES])


def problem(kind: str, counts: np.ndarray) -> Binned:
    data = bins(counts)
    zero = np.zeros(1, int)
    if kind == "reference":
        shape = make_shape(template_family(1, LOW, HIGH), data, expected(9000) + 0.01)
        return Binned(shape, counts[None], zero, data.scale, template_error=np.full(60, 0.08))
    shape = make_shape(family(kind, LOW, HIGH), data)
    if kind == "exp":  # with the Higgs in the null hypothesis
        higgs = Component("higgs", Gaussian(125, 1.5).integral(EDGES[:-1], EDGES[1:]), 40.0, 10.0)
        return Binned(shape, counts[None], zero, data.scale, components=(higgs,))
    if kind == "exppoly:2":
        return Binned(shape, counts[None], zero, data.scale, errors=1.3 * np.sqrt(counts + 1))
    return Binned(shape, counts[None], zero, data.scale)


@pytest.mark.parametrize("kind", ["exp", "exppoly:2", "poly:3", "bernstein:3", "dijet:4", "reference"])
def test_batched_q0_is_iminuits(kind):
    """Every batched fit, one- and two-sided, equals Fisher + MIGRAD on the same data one by one to 1e-3 in q0."""
    counts = np.random.default_rng(3).poisson(expected(4000) + 60 * templates()[4]).astype(float)
    one = problem(kind, counts)
    null = massfit.fit(one, np.r_[one.shape.start, [c.expected for c in one.components]], "null")
    toys, auxiliary = next(draw_toys(one, null.theta, 3, 1))
    both = scan(one, toys, templates(), null.theta, auxiliary, one_sided=False, tolerance=1e-7)
    half = scan(one, toys, templates(), null.theta, auxiliary)
    assert not both.failed.any()
    assert not half.failed.any()
    np.testing.assert_allclose(half.q0, both.q0, atol=1e-3)
    for t in range(len(toys)):
        alone = replace(one, counts=toys[t : t + 1], auxiliary=None if auxiliary is None else auxiliary[t : t + 1])
        for g in (0, 4, 9):
            fit = massfit.fit_signal(alone, templates()[g], alone, level=None)
            assert half.q0[t, g] == pytest.approx(fit.q0, abs=1e-3)
            assert both.s[t, g] == pytest.approx(fit.s, abs=2e-3 * fit.s_err)
            assert both.s_err[t, g] == pytest.approx(fit.s_err, rel=0.05)  # expected against observed information


def test_local_p_values_are_uniform_without_signal():
    """Signed roots of 600 background-only spectra are standard normal at every mass; half of q0 is zero."""
    rng = np.random.default_rng(5)
    counts = rng.poisson(expected(6000), (600, 60)).astype(float)
    one = problem("dijet:3", counts[0])
    found = scan(one, counts, templates(), one.shape.start, one_sided=False)
    assert not found.failed.any()
    for g in (0, 3, 7, 13):
        assert stats.kstest(found.r[:, g], "norm").pvalue > 0.01
        assert (found.q0[:, g] == 0).mean() == pytest.approx(0.5, abs=0.06)
        pulls = found.s[:, g] / found.s_err[:, g]
        assert np.mean(pulls) == pytest.approx(0, abs=0.1)
        assert np.std(pulls) == pytest.approx(1, abs=0.1)


def test_global_p_agrees_with_brute_force_and_upcrossings():
    """Toys of the fitted background, toys of the true one, and the Gross-Vitells extrapolation say the same."""
    rng = np.random.default_rng(6)
    counts = rng.poisson(expected(6000) + 75 * templates()[5]).astype(float)
    data = Spectrum(EDGES[:-1], EDGES[1:], counts, None, "toy")
    result = hunt(data, Hunt(window=(LOW, HIGH), widths=[Width(2.0)], points=50, toys=1000, level=None))
    found = result.row["global"]
    truth = rng.poisson(expected(6000), (1000, 60)).astype(float)
    one = Binned(make_shape(family("exp", LOW, HIGH), bins(counts)), counts[None], np.zeros(1, int), np.ones(60))
    shapes = np.array([Gaussian(m, 2.0).integral(EDGES[:-1], EDGES[1:]) for m in result.masses])
    brute = from_toys(result.row["best"]["q0"], scan(one, truth, shapes, one.shape.start).q0.max(1))
    assert 0.001 < brute.p < 0.3
    assert abs(found["toys"]["p"] - brute.p) < 3.5 * np.hypot(brute.error, found["toys"]["p_err"])
    assert abs(found["asymptotic"]["p"] - brute.p) < 3.5 * brute.error + 0.15 * brute.p
    assert found["toys"]["trials_factor"] > 3
    assert result.row["peaks"][0]["mass"] == pytest.approx(MASSES[5], abs=1.5)
    again = hunt(data, Hunt(window=(LOW, HIGH), widths=[Width(2.0)], points=50, toys=300, level=None))
    # Toy k is the same however many are asked for (fits in other blocks differ by rounding).
    np.testing.assert_allclose(again.toys, result.toys[:300], rtol=1e-9)


def test_crossings_and_euler_characteristic_by_hand():
    line = np.array([[0.0, 1, 0, 1, 1, 0], [1, 1, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0]])
    np.testing.assert_array_equal(upcrossings(line, 0.5), [2, 1, 0])
    ring = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]])[None]
    island = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1]])[None]
    assert euler_characteristic(ring, 0.5)[0] == 0  # one piece with one hole
    assert euler_characteristic(island, 0.5)[0] == 2  # two pieces that touch only at a corner
    scans = np.zeros((4, 1, 6))
    scans[:2, 0, 2] = 1.0  # half the toys cross once
    c = 16.0
    expectation = stats.norm.sf(4) + 0.5 * np.exp(-(c - LEVELS[0]) / 2)
    assert asymptotic(c, scans).p == pytest.approx(expectation)
    assert from_toys(5.0, np.array([1.0, 2, 3, 6])).p == pytest.approx(2 / 5)
    assert from_toys(9.0, np.array([1.0, 2, 3, 6])).is_bound


def test_signal_region_hunt_is_the_counting_fit():
    """Unbinned masses, blinded region, polynomial: the hunt's one test is the joint fit of sidebands and count."""
    rng = np.random.default_rng(8)
    m = np.r_[rng.uniform(5, 16, 3000), rng.normal(9.8, 0.3, 150)]
    data = Masses(m, None, "m")
    result = hunt(data, Hunt(window=(5, 16), background="poly:5", region=(9, 10.6), toys=500))
    fit = fit_peak(data, PeakFit(window=(5, 16), background="poly:5", region=(9, 10.6), unbinned=False))
    assert result.row["best"]["z"] == pytest.approx(fit["z"], abs=0.02)
    assert result.row["best"]["s"] == pytest.approx(fit["signal_region"]["excess"], abs=0.5)
    local = result.row["best"]["p_local"]
    assert result.row["global"]["toys"]["p"] == pytest.approx(local, abs=4 * np.sqrt(local / 500) + 0.004)


def test_reference_histograms_nest_and_carry_their_errors():
    counts = np.random.default_rng(9).poisson(expected(5000)).astype(float)
    fine = np.linspace(LOW, HIGH, 121)
    simulated = Spectrum(fine[:-1], fine[1:], np.full(120, 3.0), np.full(120, 0.3), "mc")
    _, reference = match_reference(bins(counts), simulated)
    np.testing.assert_allclose(reference.counts, 6.0)
    np.testing.assert_allclose(reference.errors, 0.3 * np.sqrt(2))
    events = Masses(np.repeat((EDGES[1:] + EDGES[:-1]) / 2, 4)[:-4], np.full(236, 0.5), "events")
    matched, reference = match_reference(bins(counts), events)
    np.testing.assert_allclose(reference.counts, np.r_[np.full(59, 2.0), 0.5])
    np.testing.assert_allclose(reference.errors, np.r_[np.full(59, 1.0), 0.5])
    assert "1 bins without simulated events" in matched.notes[-1]
    odd = np.linspace(LOW, HIGH, 38)
    with pytest.raises(UserError, match="do not tile"):
        match_reference(bins(counts), Spectrum(odd[:-1], odd[1:], np.ones(37), np.ones(37), "mc"))


def test_a_million_events_in_unequal_bins_with_a_relative_width():
    edges = np.geomspace(1000, 6000, 40)
    mass = np.random.default_rng(10).pareto(4.0, 1_300_000) * 1000 + 1000
    mass = np.r_[mass[mass < 6000], np.random.default_rng(11).normal(2500, 75, 2500)]
    counts, _ = np.histogram(mass, edges)
    data = Spectrum(edges[:-1], edges[1:], counts.astype(float), np.sqrt(counts), "dijets")
    result = hunt(data, Hunt(window=(1000, 6000), background="dijet:4", widths=[width("3%")], toys=0))
    assert result.row["valid"]
    assert result.row["likelihood"] == "poisson"
    assert result.row["best"]["mass"] == pytest.approx(2500, rel=0.02)
    assert result.row["best"]["s"] == pytest.approx(2500, abs=4 * result.row["best"]["s_err"])
    assert result.row["best"]["z"] > 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scan_range": (90, 120)}, "must lie inside the window"),
        ({"points": 0}, "at least one"),
        ({"widths": [Width(0.01)]}, "scan points"),
        ({"masks": [(90, 170)]}, "leave"),
        ({"toys": -1}, "must not be negative"),
        ({"tails": (1.0, 0.5, 1.0, 2.0)}, "Crystal Ball needs"),
    ],
)
def test_bad_input(options, message):
    data = Spectrum(EDGES[:-1], EDGES[1:], np.round(expected(2000)), None, "toy")
    with pytest.raises(UserError, match=message):
        hunt(data, Hunt(window=(LOW, HIGH), **{"widths": [Width(2.0)], **options}))
    with pytest.raises(UserError, match="not positive"):
        width("-1")
