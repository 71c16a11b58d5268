"""Spectra of weighted events: one answer for histogram and masses, total = sum of weights, errors that cover."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from raypipe.errors import UserError
from raypipe.events.masses import Masses
from raypipe.events.spectra import Spectrum
from raypipe.stats.bins import Bins
from raypipe.stats.floating import Ranges
from raypipe.stats.hunt import Hunt, hunt
from raypipe.stats.peakfit import PeakFit, fit_peak
from raypipe.stats.peaks import Gaussian
from raypipe.stats.spectrum import bin_spectrum, counting_errors, rate_scale
from raypipe.stats.weighted import join_negative, of_events
from raypipe.stats.widths import Width

LOW, HIGH = 100.0, 180.0
PEAK = Gaussian(125.0, 1.7)
WEIGHTS = {
    "gamma": (1.0, lambda rng, m: rng.gamma(4, 0.25, len(m))),
    "exponential": (1.0, lambda rng, m: rng.exponential(1, len(m))),
    "15 % negative": (0.7, lambda rng, m: np.where(rng.random(len(m)) < 0.15, -1.0, 1.0)),
    "with the mass": (None, lambda rng, m: 0.5 + (m - LOW) / 80),
    "one, two, three": (2.0, lambda rng, m: 1.0 + rng.integers(0, 3, len(m))),
    "equal": (0.5, lambda rng, m: np.full(len(m), 0.5)),
}


def draw(n: float, rng: np.random.Generator, signal: float = 0.03) -> np.ndarray:
    """Poisson(n) masses of 100 + Exp(40) below 180, and a share of the peak."""
    u = rng.random(rng.poisson(n))
    return np.r_[LOW - 40 * np.log(1 - u * (1 - np.exp(-2))), rng.normal(125, 1.7, rng.poisson(signal * n))]


def histogram(m: np.ndarray, w: np.ndarray, bins: int = 80) -> Spectrum:
    """As TH1 with Sumw2 writes it."""
    edges = np.linspace(LOW, HIGH, bins + 1)
    counts, squares = (np.histogram(m, edges, weights=x)[0] for x in (w, w**2))
    return Spectrum(edges[:-1], edges[1:], counts, np.sqrt(squares), "h")


@pytest.mark.parametrize("n", [400, 4000, 25_000])
@pytest.mark.parametrize("kind", list(WEIGHTS))
def test_histogram_and_masses_give_one_answer_whose_total_is_the_sum_of_weights(kind, n):
    rng = np.random.default_rng(n)
    m = draw(n, rng)
    w = WEIGHTS[kind][1](rng, m)
    data = (histogram(m, w, 160), Masses(m, w, "e"))
    rows = [fit_peak(d, PeakFit(window=(LOW, HIGH), peak=PEAK, level=None)) for d in data]
    rows.append(fit_peak(data[1], PeakFit(window=(LOW, HIGH), peak=PEAK, bins=160, level=None)))
    for row in rows:
        assert row["valid"]
        assert row["b"] + row["s"] * row["peak"]["share_in_window"] == pytest.approx(w.sum(), rel=1e-4)
        # Half-GeV bins and single masses differ by what is lost inside the bins.
        assert row["s"] == pytest.approx(rows[0]["s"], abs=0.25 * row["s_err"])
        assert row["s_err"] == pytest.approx(rows[0]["s_err"], rel=0.05)
        assert row["b_err"] == pytest.approx(rows[0]["b_err"], rel=0.02)
        assert row["z"] == pytest.approx(rows[0]["z"], abs=0.3)
    same = [rows[0][key] for key in ("s", "s_err", "b", "b_err", "q0")]
    assert [rows[2][key] for key in ("s", "s_err", "b", "b_err", "q0")] == pytest.approx(same, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("background", ["exp", "exppoly:2", "poly:3", "bernstein:3", "power:2", "dijet:3", "flat"])
@pytest.mark.parametrize("kind", ["gamma", "15 % negative"])
def test_the_error_of_the_whole_is_that_of_the_sum_of_weights(kind, background):
    """Without a peak b is the sum of weights, so its error is sqrt(sum w^2), whatever the function."""
    rng = np.random.default_rng(3)
    m = draw(3000, rng, 0.0)
    w = WEIGHTS[kind][1](rng, m)
    for data in (histogram(m, w), Masses(m, w, "e")):
        row = fit_peak(data, PeakFit(window=(LOW, HIGH), background=background, level=None))
        assert row["b"] == pytest.approx(w.sum(), rel=1e-5)
        assert row["b_err"] == pytest.approx(np.sqrt((w**2).sum()), rel=2e-3)


@pytest.mark.parametrize(
    ("kind", "n", "toys"),
    [
        ("gamma", 400, 200),
        ("15 % negative", 400, 200),
        ("gamma", 4000, 200),
        ("15 % negative", 4000, 200),
        ("exponential", 4000, 200),
        ("15 % negative", 25_000, 150),
    ],
)
def test_pulls_are_standard_normal(kind, n, toys):
    mean, weigh = WEIGHTS[kind]
    rng = np.random.default_rng(19)
    pulls = []
    for _ in range(toys):
        m = draw(n, rng)
        row = fit_peak(histogram(m, weigh(rng, m)), PeakFit(window=(LOW, HIGH), peak=PEAK, level=None))
        assert row["valid"]
        pulls.append([(row["s"] - 0.03 * n * mean) / row["s_err"], (row["b"] - n * mean) / row["b_err"]])
    assert np.abs(np.mean(pulls, 0)).max() < 0.25
    assert np.std(pulls, 0) == pytest.approx(1, abs=0.1)


def test_z_is_standard_normal_without_a_signal_though_weights_differ_by_place():
    """A scan of spectra whose weights follow the mass and change sign: signed roots, and the toys' global p."""
    rng = np.random.default_rng(5)
    roots, judged = [], []
    for k in range(120):
        m = draw(4000, rng, 0.0)
        w = np.where(rng.random(len(m)) < 0.15, -1.0, 1.0) * (0.5 + (m - LOW) / 80)
        found = hunt(
            Masses(m, w, "e"),
            Hunt(
                window=(LOW, HIGH), background="exppoly:2", widths=[Width(2.0)], points=7, toys=50, seed=k, level=None
            ),
        )
        assert found.row["valid"]
        roots.append(found.r[0])
        judged.append(found.row["global"]["toys"]["p"])
    assert np.std(roots) == pytest.approx(1, abs=0.08)
    assert abs(np.mean(roots)) < 0.1
    assert stats.kstest(judged, "uniform").pvalue > 0.01


def test_a_signal_of_other_weights_than_the_background():
    """Signal events of weight three: the error is that of their squares, as in the closed form of counting."""
    rng = np.random.default_rng(6)
    pulls = []
    for _ in range(120):
        b, s = draw(4000, rng, 0.0), rng.normal(125, 1.7, rng.poisson(40))
        data = Masses(np.r_[b, s], np.r_[np.ones(len(b)), np.full(len(s), 3.0)], "e")
        row = fit_peak(data, PeakFit(window=(LOW, HIGH), peak=PEAK, level=None))
        pulls.append((row["s"] - 120) / row["s_err"])
        # Z belongs to the same error: sqrt(q0) is s / s_err up to the shape of the likelihood.
        assert row["z"] == pytest.approx(row["s"] / row["s_err"], rel=0.2)
    assert abs(np.mean(pulls)) < 0.25
    assert np.std(pulls) == pytest.approx(1, abs=0.12)


def test_unit_weights_are_counts():
    m = draw(2000, np.random.default_rng(7))
    counted = histogram(m, np.ones(len(m)))
    plain = Spectrum(counted.low, counted.high, counted.counts, None, "h")
    rows = [fit_peak(d, PeakFit(window=(LOW, HIGH), peak=PEAK)) for d in (counted, plain)]
    assert rows[0]["likelihood"] == "poisson"
    assert {k: v for k, v in rows[0].items() if k != "data"} == {k: v for k, v in rows[1].items() if k != "data"}
    events = [fit_peak(Masses(m, w, "e"), PeakFit(window=(LOW, HIGH), peak=PEAK)) for w in (None, np.ones(len(m)))]
    for key in ("s", "s_err", "b", "b_err", "z", "upper_limit"):
        assert events[0][key] == pytest.approx(events[1][key], rel=1e-9)


def test_mass_and_width_of_weighted_events():
    """Weights of plus and minus one: pulls of mass, width and yield that float together."""
    pulls = []
    for k in range(80):
        rng = np.random.default_rng(k)
        m = draw(6000, rng, 0.1)
        w = WEIGHTS["15 % negative"][1](rng, m)
        row = fit_peak(
            Masses(m, w, "e"),
            PeakFit(window=(LOW, HIGH), peak=PEAK, bins=160, ranges=Ranges((120, 130), (1, 3), toys=0), level=None),
        )
        peak = row["peak"]
        pulls.append(
            [
                (peak["mass"] - 125) / peak["mass_err"],
                (peak["width"] - 1.7) / peak["width_err"],
                (row["s"] - 420) / row["s_err"],
            ]
        )
    assert np.abs(np.mean(pulls, 0)).max() < 0.35
    assert np.std(pulls, 0) == pytest.approx(1, abs=0.25)


def test_a_counted_region_of_weighted_events():
    """s = n - b with the error sqrt(sum w^2 inside + b_err^2)."""
    rng = np.random.default_rng(9)
    m = draw(6000, rng)
    w = WEIGHTS["15 % negative"][1](rng, m)
    for data in (histogram(m, w), Masses(m, w, "e")):
        row = fit_peak(data, PeakFit(window=(LOW, HIGH), region=(120, 130), level=None))
        region = row["signal_region"]
        inside = (m >= 120) & (m < 130)
        assert region["n"] == pytest.approx(w[inside].sum())
        assert row["s"] == pytest.approx(region["excess"], abs=0.02 * row["s_err"])
        assert row["s_err"] == pytest.approx(np.hypot(np.sqrt((w[inside] ** 2).sum()), region["b_err"]), rel=0.02)
        assert row["z"] == pytest.approx(region["z"], rel=0.05)


def test_errors_that_are_not_of_events_stay_a_chi_square():
    rng = np.random.default_rng(10)
    edges = np.linspace(LOW, HIGH, 61)
    mean = 4000 * -np.diff(np.exp(-(edges - LOW) / 40))
    for errors in (np.full(60, 9.0), np.sqrt(mean) * 1.1, rng.uniform(3, 20, 60), 0.1 * mean):
        y = mean + rng.normal(0, errors)
        assert not of_events(y, errors)
        assert bin_spectrum(Spectrum(edges[:-1], edges[1:], y, errors, "h"), (LOW, HIGH)).likelihood == "gaussian"
    subtracted = rng.normal(0, 10, 60)
    subtracted[3] = -60
    assert not of_events(subtracted, np.full(60, 10.0))


@pytest.mark.parametrize("entries", [0.5, 5, 50, 500])  # of unlike weights, few in a bin or many
def test_errors_of_weighted_events_are_known_as_such(entries):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        m = draw(60 * entries, rng)
        for kind in ("gamma", "exponential", *(["15 % negative"] if entries > 1 else [])):
            data = histogram(m, WEIGHTS[kind][1](rng, m), 60)
            assert bin_spectrum(data, (LOW, HIGH)).likelihood == "weighted", (kind, seed)


def test_whole_numbers_need_not_be_counts():
    n = np.array([3.0, 3, 3, 3, 8, 8, 8, 20, 20, 20])
    assert counting_errors(n, np.sqrt(n))
    assert not counting_errors(n, np.sqrt(n + 2 * np.array([0, 1, 2, 0, 1, 0, 3, 2, 0, 4])))
    single = np.random.default_rng(1).exponential(1, 40)  # one weighted event in every bin
    assert rate_scale(single, single) is None


def test_negative_contents_are_added_to_a_neighbour():
    counts = np.array([5.0, -1, 2, -4, 1, 3, -2, 6])
    edges = np.arange(9.0)
    bins = Bins(edges[:-1], edges[1:], counts, np.ones(8), None, (0, 8), squares=np.abs(counts))
    joined = join_negative(bins)
    assert (joined.counts >= 0).all()
    assert joined.counts.sum() == counts.sum()
    assert joined.squares.sum() == np.abs(counts).sum()
    np.testing.assert_array_equal(joined.high[:-1], joined.low[1:])
    walled = join_negative(bins, (4.0, 7.0))
    assert {4.0, 7.0} <= set(walled.low)
    assert join_negative(bins, (6.0, 7.0)).likelihood == "gaussian"  # nothing beside it in the region


def test_what_cannot_be_fitted_is_told():
    edges = np.linspace(LOW, HIGH, 5)
    with pytest.raises(UserError, match="sum to -1"):
        bin_spectrum(
            Spectrum(edges[:-1], edges[1:], np.array([0, 1.5, -2.5, 0]), np.array([0, 1, 2, 0]), "h"), (LOW, HIGH)
        )
    with pytest.raises(UserError, match="a weighted likelihood needs errors"):
        bin_spectrum(Spectrum(edges[:-1], edges[1:], np.ones(4), None, "h"), (LOW, HIGH), "weighted")
    m = draw(500, np.random.default_rng(2))
    w = np.where(np.arange(len(m)) % 7, 1.0, -1.0)
    with pytest.raises(UserError, match="negative weights cannot be fitted unbinned"):
        fit_peak(Masses(m, w, "e"), PeakFit(window=(LOW, HIGH), peak=PEAK, unbinned=True))
