"""A peak with free mass and width against a fit written by hand, and its global p-value against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from iminuit import Minuit
from scipy import stats

from raypipe.errors import UserError
from raypipe.events.masses import Masses
from raypipe.events.spectra import Spectrum
from raypipe.stats.backgrounds import family
from raypipe.stats.floating import Ranges
from raypipe.stats.peakdata import known_peak
from raypipe.stats.peakfit import PeakFit, fit_peak
from raypipe.stats.peaks import CrystalBall, Gaussian

LOW, HIGH, SLOPE = 100.0, 160.0, 30.0
EDGES = np.linspace(LOW, HIGH, 121)
PEAK = Gaussian(128.0, 2.0)


def expected(total: float, s: float, peak=PEAK) -> np.ndarray:
    shape = -np.diff(np.exp(-EDGES / SLOPE))
    return total * shape / shape.sum() + s * peak.integral(EDGES[:-1], EDGES[1:])


def spectrum(counts) -> Spectrum:
    return Spectrum(EDGES[:-1], EDGES[1:], counts, None, "h")


def by_hand(counts: np.ndarray) -> Minuit:
    def cost(a, b, s, m, w):
        mu = np.exp(a) * -np.diff(np.exp(-b * (EDGES - LOW))) / b + s * np.diff(stats.norm.cdf(EDGES, m, w))
        mu = np.maximum(mu, 1e-9)
        return 2 * (mu - counts + np.where(counts > 0, counts * np.log(np.where(counts > 0, counts, 1) / mu), 0)).sum()

    minuit = Minuit(cost, a=np.log(counts[0] * 2), b=1 / SLOPE, s=300, m=127, w=2.5)
    minuit.errordef = 1
    minuit.strategy = 2
    minuit.migrad()
    minuit.hesse()
    return minuit


def test_mass_width_and_yield_are_those_of_a_fit_by_hand():
    counts = np.random.default_rng(3).poisson(expected(8000, 400)).astype(float)
    reference = by_hand(counts)
    ranges = Ranges((115, 145), (1, 5), toys=0)
    row = fit_peak(spectrum(counts), PeakFit(window=(LOW, HIGH), peak=Gaussian(120, 1.5), ranges=ranges, level=None))
    assert row["valid"]
    for name, ours, error in (
        ("m", row["peak"]["mass"], row["peak"]["mass_err"]),
        ("w", row["peak"]["width"], row["peak"]["width_err"]),
        ("s", row["s"], row["s_err"]),
    ):
        assert ours == pytest.approx(reference.values[name], abs=0.02 * reference.errors[name])
        assert error == pytest.approx(reference.errors[name], rel=0.03)
    assert row["s_err"] > row["s_err_fixed_peak"]
    assert row["chi2"] == pytest.approx(reference.fval, abs=0.01)
    assert row["ndf"] == 120 - 5


def test_unbinned_events_give_the_same_mass():
    rng = np.random.default_rng(4)
    u = rng.random(4000)
    m = np.r_[LOW - SLOPE * np.log(1 - u * (1 - np.exp(-(HIGH - LOW) / SLOPE))), rng.normal(128, 2, 250)]
    counts = np.histogram(m, EDGES)[0].astype(float)
    binned = by_hand(counts)
    row = fit_peak(
        Masses(m, None, "m"), PeakFit(window=(LOW, HIGH), peak=PEAK, ranges=Ranges((120, 136), None, 0), level=None)
    )
    assert row["likelihood"] == "unbinned"
    assert row["peak"]["width_err"] is None
    assert row["peak"]["mass"] == pytest.approx(binned.values["m"], abs=0.3 * binned.errors["m"])
    assert row["peak"]["mass_err"] == pytest.approx(binned.errors["m"], rel=0.15)


def test_global_p_of_a_floating_mass_is_uniform_without_signal():
    """Forty background-only spectra: the maximum over the range has its own distribution, which the toys know."""
    rng = np.random.default_rng(5)
    found, local = [], []
    for k in range(40):
        counts = rng.poisson(expected(3000, 0)).astype(float)
        row = fit_peak(
            spectrum(counts),
            PeakFit(window=(LOW, HIGH), peak=PEAK, level=None, ranges=Ranges((115, 140), toys=100, seed=k)),
        )
        found.append(row["global"]["p"])
        local.append(row["p0"])
    assert stats.kstest(found, "uniform").pvalue > 0.01
    assert stats.kstest(local, "uniform").pvalue < 1e-4  # the local one is no p-value of a search


def test_ranges_are_checked():
    data = spectrum(expected(3000, 0).round())
    with pytest.raises(UserError, match="low before high"):
        Ranges((130, 120))
    with pytest.raises(UserError, match="a width must be positive"):
        Ranges(None, (0, 2))
    with pytest.raises(UserError, match="needs a peak to begin with"):
        fit_peak(data, PeakFit(window=(LOW, HIGH), ranges=Ranges((110, 120))))
    with pytest.raises(UserError, match="leaves the fitted bins"):
        fit_peak(data, PeakFit(window=(LOW, HIGH), peak=PEAK, ranges=Ranges((120, 200), toys=0)))


def test_a_known_resonance_of_unknown_yield():
    """Its free yield beside the tested one: both as in one linear least-squares problem."""
    other = Gaussian(112.0, 1.5)
    errors = np.sqrt(expected(8000, 0)) * 1.1
    values = (
        expected(8000, 200) + 500 * other.integral(EDGES[:-1], EDGES[1:]) + np.random.default_rng(6).normal(0, errors)
    )
    data = Spectrum(EDGES[:-1], EDGES[1:], values, errors, "h")
    row = fit_peak(
        data, PeakFit(window=(LOW, HIGH), background="poly:3", peak=PEAK, fixed=[known_peak("112:1.5")], level=None)
    )
    x = (EDGES[1:] + EDGES[:-1] - LOW - HIGH) / (HIGH - LOW)
    integrals = [np.diff(((2 * EDGES - LOW - HIGH) / (HIGH - LOW)) ** (k + 1)) / (k + 1) for k in range(4)]
    columns = np.stack([*integrals, other.integral(EDGES[:-1], EDGES[1:]), PEAK.integral(EDGES[:-1], EDGES[1:])], 1)
    assert columns.shape == (len(x), 6)
    solution, *_ = np.linalg.lstsq(columns / errors[:, None], values / errors, rcond=None)
    covariance = np.linalg.inv((columns / errors[:, None]).T @ (columns / errors[:, None]))
    assert row["s"] == pytest.approx(solution[5], abs=1e-3 * row["s_err"])
    assert row["s_err"] == pytest.approx(covariance[5, 5] ** 0.5, rel=1e-3)
    assert row["components"]["known 112"] == pytest.approx([solution[4], covariance[4, 4] ** 0.5], rel=1e-3)


def test_known_peaks_as_written():
    free, exact, about = (known_peak(f"125:1.7{text}") for text in ("", "=40", "=40+-5"))
    assert (free.expected, free.error) == (0, np.inf)
    assert (exact.expected, exact.error) == (40, 0)
    assert (about.expected, about.error) == (40, 5)
    assert known_peak("125:1.7:1.2:3:1.6:5=40±5").peak == CrystalBall(125, 1.7, 1.2, 3, 1.6, 5)
    for bad in ("125", "125:1=x", "125:1=4+-x", "125:1=4+--1"):
        with pytest.raises(UserError):
            known_peak(bad)


def test_a_known_peak_inside_the_blinded_region_needs_its_yield():
    rng = np.random.default_rng(7)
    data = spectrum(rng.poisson(expected(8000, 300)).astype(float))
    with pytest.raises(UserError, match="known 128: the peak has no share"):
        fit_peak(data, PeakFit(window=(LOW, HIGH), region=(120, 136), fixed=[known_peak("128:1")], level=None))
    alone = fit_peak(data, PeakFit(window=(LOW, HIGH), region=(120, 136), level=None))["signal_region"]
    known = fit_peak(
        data, PeakFit(window=(LOW, HIGH), region=(120, 136), fixed=[known_peak("128:1=300+-40")], level=None)
    )
    region = known["signal_region"]
    assert region["b"] == pytest.approx(alone["b"] + 300, rel=1e-3)
    assert region["b_err"] == pytest.approx(np.hypot(alone["b_err"], 40), rel=1e-2)
    assert known["z"] < 4 < alone["z"]


def test_diphoton_function_of_atlas():
    """1606.03833, equation 1, term by term."""
    x = np.array([300.0, 700, 1500]) / 13000
    values = family("diphoton:4", 200, 2000).basis(13000 * x) @ np.array([2.0, 9.6, -1.7, 0.18])
    np.testing.assert_allclose(np.exp(values), np.exp(2) * (1 - x ** (1 / 3)) ** 9.6 * x ** (-1.7 + 0.18 * np.log(x)))


def test_what_the_data_cannot_determine_is_refused():
    five = Spectrum(EDGES[:5], EDGES[1:6], np.array([90.0, 85, 88, 70, 77]), None, "h")
    with pytest.raises(UserError, match=r"6 parameters .* for 5 bins"):
        fit_peak(five, PeakFit(window=(100, 102.5), background="poly:4", peak=Gaussian(101, 0.5)))
    row = fit_peak(five, PeakFit(window=(100, 102.5), background="poly:3", peak=Gaussian(101, 0.5), level=None))
    assert any("as many parameters as bins" in note for note in row["notes"])
    m = np.random.default_rng(1).uniform(LOW, HIGH, 2000)
    with pytest.raises(UserError, match="the background can take the shape of the signal"):
        fit_peak(Masses(m, None, "m"), PeakFit(window=(LOW, HIGH), background="poly:2", peak=Gaussian(130, 100)))
    with pytest.raises(UserError, match=r"3 parameters .* for 2 different masses"):
        fit_peak(Masses(np.array([110.0, 130, 130]), None, "m"), PeakFit(window=(LOW, HIGH), peak=PEAK))
    with pytest.raises(UserError, match="a Gaussian chi-square needs errors"):
        fit_peak(spectrum(expected(3000, 0).round()), PeakFit(window=(LOW, HIGH), peak=PEAK, likelihood="gaussian"))
    with pytest.raises(UserError, match="need between one and 100000"):
        fit_peak(Masses(m, None, "m"), PeakFit(window=(LOW, HIGH), peak=PEAK, bins=10**7))
    bad = expected(3000, 0).round() + np.where(np.arange(120) % 2, 25, 0)
    row = fit_peak(spectrum(bad), PeakFit(window=(LOW, HIGH), peak=PEAK, level=None))
    assert any("describes the data badly" in note for note in row["notes"])
