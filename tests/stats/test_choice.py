"""Choice of the background: the F-test keeps its size and finds what bends, the spurious-signal test what is biased."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from raypipe.errors import UserError
from raypipe.events.masses import Masses
from raypipe.events.spectra import Spectrum
from raypipe.stats.bins import Bins
from raypipe.stats.choice import choose, choose_listed, choose_order, fits_of, spurious_signal
from raypipe.stats.peakfit import PeakFit, fit_peak
from raypipe.stats.peaks import Gaussian

EDGES = np.linspace(105, 160, 56)
CENTRES = (EDGES[1:] + EDGES[:-1]) / 2


def bins(counts: np.ndarray) -> Bins:
    return Bins(EDGES[:-1], EDGES[1:], counts, np.ones(len(counts)), None, (105.0, 160.0))


def test_f_test_keeps_its_size_and_sees_curvature():
    rng = np.random.default_rng(2)
    straight = np.exp(-CENTRES / 30)
    straight *= 20_000 / straight.sum()
    spectra = [bins(rng.poisson(straight).astype(float)) for _ in range(40)]
    chosen = [choose_order(data.window, "exp", fits_of(data))[0] for data in spectra]
    assert chosen.count("exp") >= 34  # each of two comparisons errs in 5 % of the cases
    bent = straight * np.exp(1.2 * ((CENTRES - 132) / 27) ** 2)
    data = bins(rng.poisson(bent).astype(float))
    name, record = choose_order(data.window, "exp", fits_of(data))
    assert name == "exppoly:2"
    assert record[0]["p"] < 1e-6
    assert record[0]["improvement"] == pytest.approx(record[0]["chi2"] - record[1]["chi2"], abs=1e-3)


def test_spurious_signal_rejects_what_cannot_follow_the_template():
    bent = np.exp(-CENTRES / 30 + 0.6 * ((CENTRES - 132) / 27) ** 3)
    bent *= 50_000 / bent.sum()
    masses = np.linspace(110, 155, 19)
    names = ["exp", "exppoly:2", "exppoly:3", "exppoly:4"]
    name, record = spurious_signal(bent, bins(bent), names, masses, Gaussian(0, 1.5))
    assert name == "exppoly:3"  # the fewest parameters that contain the truth
    first, _, third, _ = record
    assert not first["passed"]
    assert first["largest"] > 1
    assert third["largest"] < 5e-3  # the template holds densities at bin centres, the fit integrates


def test_the_fit_records_its_choice():
    rng = np.random.default_rng(4)
    data = Masses(105 + rng.exponential(25, 5000), None, "m")
    row = fit_peak(data, PeakFit(window=(105, 160), background="exp:auto", peak=Gaussian(125, 1.5), level=None))
    assert row["background"]["family"] in {"exp", "exppoly:2"}
    assert row["background"]["chosen_by"] == "F-test"
    assert row["background"]["compared"][0]["family"] == "exp"
    with pytest.raises(UserError, match="orders are chosen for"):
        fit_peak(data, PeakFit(window=(105, 160), background="spline:auto", peak=Gaussian(125, 1.5)))


def test_listed_families_follow_fishers_formula():
    """F = (gain / extra parameters) / (chi2 / ndf) against scipy's tail; the first sufficient family is taken."""
    rng = np.random.default_rng(7)
    bent = np.exp(-CENTRES / 30 + 0.8 * ((CENTRES - 132) / 27) ** 2)
    data = bins(rng.poisson(30_000 * bent / bent.sum()).astype(float))
    name, record = choose_listed(data.window, ["exp", "exppoly:2", "exppoly:4"], fits_of(data))
    assert name == "exppoly:2"
    one, two = record[0], record[1]
    expected = stats.f.sf((one["chi2"] - two["chi2"]) / (two["chi2"] / two["ndf"]), 1, two["ndf"])
    assert one["p"] == pytest.approx(expected, rel=1e-6)
    assert two["p"] > 0.05
    with pytest.raises(UserError, match="exp is not more flexible than exppoly:2"):
        choose_listed(data.window, ["exppoly:2", "exp"], fits_of(data))


def test_auto_finds_the_family_of_the_truth():
    """A power law that no exponential follows with few parameters; a signal does not bend the choice."""
    rng = np.random.default_rng(8)
    edges = np.linspace(200, 2000, 91)
    truth = 2e5 * -np.diff(edges**-3.0) / (200**-3.0 - 2000**-3.0)
    data = Bins(edges[:-1], edges[1:], rng.poisson(truth).astype(float), np.ones(90), None, (200.0, 2000.0))
    found = choose(data, "auto")
    assert found.family == "power:1"
    assert {step["family"].split(":")[0] for step in found.record} >= {"power", "bernstein"}
    peak = Gaussian(800, 40)
    counts = rng.poisson(truth + 3000 * peak.integral(edges[:-1], edges[1:])).astype(float)
    row = fit_peak(
        Spectrum(edges[:-1], edges[1:], counts, None, "h"),
        PeakFit(window=(200, 2000), background="auto", peak=peak, level=None),
    )
    assert row["background"]["family"] == "power:1"
    assert row["s"] == pytest.approx(3000, abs=3 * row["s_err"])


def test_simulation_chooses_through_the_fit():
    bent = np.exp(-CENTRES / 30 + 0.6 * ((CENTRES - 132) / 27) ** 3)
    rng = np.random.default_rng(9)
    data = Spectrum(EDGES[:-1], EDGES[1:], rng.poisson(50_000 * bent / bent.sum()).astype(float), None, "data")
    simulated = Spectrum(EDGES[:-1], EDGES[1:], 1e6 * bent / bent.sum(), None, "simulation")
    options = {"peak": Gaussian(125, 1.5), "level": None, "simulation": simulated}
    row = fit_peak(data, PeakFit(window=(105, 160), background="exp,exppoly:2,exppoly:3,exppoly:4", **options))
    assert row["background"]["family"] == "exppoly:3"
    assert row["background"]["chosen_by"] == "spurious signal"
    # What the chosen background feigns under the peak is an uncertainty of the yield.
    (step,) = (step for step in row["background"]["compared"] if step["family"] == "exppoly:3")
    assert row["spurious"] == max(abs(s) for m, s in step["yields"] if abs(m - 125) <= 4.5)
    alone = fit_peak(data, PeakFit(window=(105, 160), background="exppoly:3", peak=Gaussian(125, 1.5), level=None))
    assert row["s_err"] == pytest.approx(np.hypot(alone["s_err"], row["spurious"]))
    wide = fit_peak(
        data, PeakFit(window=(105, 160), background="exppoly:3", spurious=500.0, **options | {"simulation": None})
    )
    assert abs(wide["z_signed"]) < 0.5 * abs(alone["z_signed"])
    assert wide["z_without_spurious"] == pytest.approx(alone["z"], abs=1e-6)
    row = fit_peak(data, PeakFit(window=(105, 160), background="exp,exppoly:2", **options))
    assert any("least biased" in note for note in row["notes"])
    with pytest.raises(UserError, match="it is given: exp"):
        fit_peak(data, PeakFit(window=(105, 160), **options))
    with pytest.raises(UserError, match="--spurious-signal is of a peak whose mass and width are given"):
        fit_peak(data, PeakFit(window=(105, 160), region=(120, 130), spurious=3.0))
