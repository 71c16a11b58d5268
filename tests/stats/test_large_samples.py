"""The same spectrum times k: errors grow as sqrt(k) and so does Z, up to 10^12 events."""

from __future__ import annotations

import math

import numpy as np
import pytest

from raypipe.config import MassFit, MassWindow
from raypipe.events.masses import Masses
from raypipe.events.spectra import Spectrum
from raypipe.stats.floating import Ranges
from raypipe.stats.hunt import Hunt, hunt
from raypipe.stats.peakdata import known_peak
from raypipe.stats.peakfit import PeakFit, fit_peak
from raypipe.stats.peaks import Gaussian
from raypipe.stats.sideband import fit_sidebands
from raypipe.stats.significance import counting_significance
from raypipe.stats.widths import Width

EDGES = np.linspace(100, 180, 161)
PEAK = Gaussian(125.0, 1.7)
FACTORS = (1e3, 1e6, 1e8, 2e8)
FAMILIES = ["exp", "exppoly:3", "poly:3", "poly:5", "bernstein:4", "power:2", "dijet:4", "diphoton:3", "flat"]


def masses() -> np.ndarray:
    rng = np.random.default_rng(1)
    m = 100 + rng.exponential(40, 5000)
    return np.r_[m[m < 180], rng.normal(125, 1.7, 150)]


COUNTS = np.histogram(masses(), EDGES)[0].astype(float)


def spectrum(k: float) -> Spectrum:
    return Spectrum(EDGES[:-1], EDGES[1:], COUNTS * k, None, "h")


def check(measure, factors=FACTORS, power=0.5) -> None:
    first = np.array(measure(1))
    for k in factors:
        assert np.array(measure(k)) / first / k**power == pytest.approx(1, rel=5e-3), k


def errors(row) -> list[float]:
    assert row["status"] == "converged"
    return [row["s_err"], row["b_err"], row["z"]]


@pytest.mark.parametrize("background", FAMILIES)
def test_binned_errors(background):
    check(
        lambda k: errors(
            fit_peak(spectrum(k), PeakFit(window=(100, 180), background=background, peak=PEAK, level=None))
        )
    )


@pytest.mark.parametrize("background", ["exp", "exppoly:3", "poly:3", "bernstein:3", "power:2", "dijet:4"])
def test_unbinned_errors(background):
    m = masses()
    check(
        lambda k: errors(
            fit_peak(
                Masses(np.repeat(m, int(k)), None, "m"),
                PeakFit(window=(100, 180), background=background, peak=PEAK, level=None, unbinned=True),
            )
        ),
        factors=(30,),
    )


def test_weighted_unbinned_errors_scale_with_the_weights():
    """The same events with weights k: errors grow as k, Z stays."""
    m = masses()
    w = np.random.default_rng(2).gamma(4, 0.25, len(m))
    check(
        lambda k: errors(fit_peak(Masses(m, w * k, "m"), PeakFit(window=(100, 180), peak=PEAK, level=None)))[:2],
        power=1,
    )


def test_mass_and_width_errors():
    ranges = Ranges((115, 135), (0.8, 4), toys=0)

    def measure(k):
        row = fit_peak(spectrum(k), PeakFit(window=(100, 180), peak=Gaussian(124, 2), level=None, ranges=ranges))
        return [*errors(row), k * row["peak"]["mass_err"], k * row["peak"]["width_err"]]

    check(measure)


def test_counted_regions_and_known_peaks():
    def region(k):
        row = fit_peak(spectrum(k), PeakFit(window=(100, 180), region=(120, 130), level=None))
        return [row["s_err"], row["z"], row["signal_region"]["b_err"], row["signal_region"]["z"]]

    def known(k):
        fixed = [known_peak("150:3"), known_peak(f"110:1={20 * k}")]
        row = fit_peak(spectrum(k), PeakFit(window=(100, 180), peak=PEAK, level=None, fixed=fixed))
        return [*errors(row), row["components"]["known 150"][1]]

    check(region)
    check(known)


def test_intervals_and_limits():
    """From 10^6 events on the likelihood is a parabola: half the 68 % interval is the error."""
    limits = []
    for k in (1e3, 1e6, 2e8):
        row = fit_peak(spectrum(k), PeakFit(window=(100, 180), peak=PEAK))
        low, high = row["s_interval"]
        assert (high - low) / 2 == pytest.approx(row["s_err"], rel=5e-3)
        limits.append([row["expected_limit"] / k**0.5, (row["upper_limit"] - row["s"]) / k**0.5])
    assert limits[1] == pytest.approx(limits[0], rel=5e-3)
    assert limits[2] == pytest.approx(limits[0], rel=5e-3)


def test_hunts():
    def measure(k):
        found = hunt(spectrum(k), Hunt(window=(100, 180), widths=[Width(1.7)], points=5, level=None))
        assert found.row["valid"]
        return [*found.s_err[0], found.row["best"]["z"], found.row["best"]["s_err"]]

    check(measure)


def test_sideband_errors():
    m = masses()
    window = MassWindow()
    check(lambda k: [fit_sidebands(np.repeat(m, int(k)), window, MassFit()).integral(120, 130)[1]], factors=(10, 300))


@pytest.mark.parametrize("b", [1e3, 1e9, 1e12, 1e15])
def test_a_background_error_as_large_as_the_poisson_one_is_never_forgotten(b):
    """Of 10^12 events it is a millionth. Gaussian limit: Z = (n - b) / sqrt(b + sigma^2)."""
    z = counting_significance(b + 4 * math.sqrt(b), b, 0.5 * math.sqrt(b))
    assert z == pytest.approx(4 / math.sqrt(1.25), rel=0.03 if b < 1e6 else 1e-3)
