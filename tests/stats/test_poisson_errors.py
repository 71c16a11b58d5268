"""Counts behind published rates, recovered from their errors alone."""

from __future__ import annotations

import numpy as np
import pytest

from raypipe.events.spectra import Spectrum
from raypipe.stats.hunt import Hunt, hunt
from raypipe.stats.peakfit import PeakFit, fit_peak
from raypipe.stats.peaks import Gaussian
from raypipe.stats.spectrum import bin_spectrum, garwood, rate_scale
from raypipe.stats.widths import Width

# The upper end of the dijet spectrum of CMS (1911.03947, figure 5; HEPData ins1764471): edges in GeV, pb/TeV.
EDGES = np.array(
    [4337, 4509, 4686, 4869, 5058, 5253, 5455, 5663, 5877, 6099, 6328, 6564, 6808, 7060, 7320, 7589, 7866, 8152, 8752.0]
)
RATE = np.array(
    [
        0.061311,
        0.044992,
        0.031793,
        0.021356,
        0.01365,
        0.0091449,
        0.0054545,
        0.0038403,
        0.0025553,
        0.0015562,
        0.0010169,
        0.00053651,
        0.00023088,
        0.00022378,
        0.00021629,
        0.0,
        7.6287e-05,
        1.2121e-05,
    ]
)
UP = np.array(
    [
        0.0016528,
        0.0014012,
        0.0011643,
        0.00094558,
        0.00075148,
        0.00061057,
        0.00047262,
        0.00039632,
        0.00032333,
        0.00025559,
        0.00020964,
        0.0001586,
        0.00011386,
        0.00011036,
        0.00010666,
        4.726e-05,
        7.4208e-05,
        2.7874e-05,
    ]
)
DOWN = np.array(
    [
        0.0016099,
        0.0013595,
        0.0011239,
        0.00090628,
        0.0007132,
        0.00057344,
        0.00043625,
        0.00036073,
        0.00028871,
        0.00022155,
        0.00017613,
        0.00012527,
        7.9897e-05,
        7.7439e-05,
        7.4848e-05,
        0.0,
        4.1519e-05,
        1.0027e-05,
    ]
)
EVENTS = np.array([366, 254, 156, 113, 78, 49, 33, 18, 8, 8, 8, 0, 3, 1.0])
"""Their product with the bin widths and 137.5 fb^-1, from 5058 GeV on."""


def test_garwood_intervals_are_those_of_root():
    """TH1's kPoisson errors, as on the CMS points below: +1.84, +2.30 -0.83, +2.64 -1.29."""
    low, high = garwood(np.array([0, 1, 2, 10]))
    np.testing.assert_allclose(low, [0, 0.8272, 1.2918, 3.1087], atol=1e-4)
    np.testing.assert_allclose(high, [1.8410, 2.2995, 2.6379, 4.2669], atol=1e-4)


def test_published_cross_sections_become_the_events_counted():
    both = Spectrum(EDGES[:-1], EDGES[1:], RATE, (UP + DOWN) / 2, "cms", UP).scaled(1.0, density=True)
    bins = bin_spectrum(both, (4337, 8752))
    assert bins.likelihood == "scaled poisson"
    counts = bins.counts / bins.scale
    assert (np.abs(counts[4:] - EVENTS) < 2e-3 * EVENTS + 0.02).all()
    np.testing.assert_allclose(1 / bins.scale[[8, 12, 16]], 137.5, rtol=1e-3)  # the luminosity
    # The fit of the rates is that of the counts.
    rates = fit_peak(both, PeakFit(window=(4337, 8752), background="dijet:3"))
    events = fit_peak(
        Spectrum(EDGES[:-1], EDGES[1:], np.round(counts), None, "n"), PeakFit(window=(4337, 8752), background="dijet:3")
    )
    assert rates["chi2"] == pytest.approx(events["chi2"], abs=0.02)
    assert rates["b"] * 137.5 == pytest.approx(events["b"], rel=1e-3)


def test_errors_drawn_as_the_upper_one_on_both_sides():
    """CMS's diphotons (2405.09320, figure 2): dN/dm and the upper error, or the content, below."""
    n = np.array([7, 6, 10, 4, 4, 7, 3, 4, 7, 1, 2, 3, 0, 4, 3, 1, 1, 2, 0, 1.0])
    width = np.repeat([17.0, 18, 19], [5, 8, 7])
    up = garwood(n)[1] / width
    found = rate_scale(n / width, (up + np.minimum(up, n / width)) / 2, up)
    assert found is not None
    np.testing.assert_allclose(1 / found[0][n > 0], width[n > 0], rtol=1e-6)


MUONS = np.array([10, 7, 8, 10, 9, 7, 3, 1, 8, 5, 7, 3, 2, 1, 6, 2, 6, 2, 4, 3.0])
"""Muon pairs with one b jet of CMS (2307.08708, figure 4; HEPData ins2678141), 392-608 GeV in bins of 10.8."""


def test_counts_are_poisson_however_their_errors_are_drawn():
    """Published with +4.267 -3.1087 for ten events; people also pass on the mean, the upper one, or sqrt(n)."""
    low, high = garwood(MUONS)
    assert high[0] == pytest.approx(4.267, abs=1e-3)
    assert low[0] == pytest.approx(3.1087, abs=1e-4)
    edges = 392 + 10.8 * np.arange(21)
    rows = []
    for error in (None, (low + high) / 2, high, np.sqrt(MUONS)):
        data = Spectrum(edges[:-1], edges[1:], MUONS, error, "cms")
        rows.append(fit_peak(data, PeakFit(window=(392, 608), peak=Gaussian(440, 8), level=None)))
        assert rows[-1]["likelihood"] == "poisson"
        assert rows[-1]["q0"] == rows[0]["q0"]


def test_errors_of_another_size_stay_gaussian():
    rng = np.random.default_rng(1)
    y = rng.uniform(1, 10, 40)
    for error in (np.full(40, 1.3), 0.1 * y, rng.uniform(0.3, 1.5, 40) * y):
        assert rate_scale(y, error) is None


def test_a_hunt_over_an_empty_bin_of_published_data_converges():
    """Deficits at the edge of what is possible, which the batch of Newton fits gives up, are fitted one by one."""
    data = Spectrum(EDGES[:-1], EDGES[1:], RATE, (UP + DOWN) / 2, "cms", UP).scaled(137.5, density=True)
    found = hunt(
        data, Hunt(window=(4337, 8752), widths=[Width(153.0)], scan_range=(4500, 8600), points=120, level=None)
    )
    assert found.row["valid"]
    k = int(np.argmin(np.abs(found.masses - 7669.7)))
    alone = fit_peak(data, PeakFit(window=(4337, 8752), peak=Gaussian(float(found.masses[k]), 153.0), level=None))
    assert found.s[0, k] == pytest.approx(alone["s"], abs=1e-3)
    assert found.r[0, k] == pytest.approx(alone["z_signed"], abs=1e-3)
    assert found.r[0, k] < 0
