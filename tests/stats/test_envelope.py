"""Discrete profiling of background functions (CMS 1408.6865) against closed forms, brute force and toys."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import optimize, stats

from raypipe.errors import UserError
from raypipe.events.masses import Masses
from raypipe.events.spectra import Spectrum
from raypipe.stats import massfit
from raypipe.stats.hunt import Hunt, hunt
from raypipe.stats.limits import cls
from raypipe.stats.peakfit import PeakFit, fit_peak
from raypipe.stats.peaks import Gaussian
from raypipe.stats.scan import draw_toys
from raypipe.stats.widths import width

WINDOW, PEAK = (105.0, 160.0), Gaussian(125, 1.5)
EDGES = np.linspace(*WINDOW, 56)


def expected(background: float = 4000.0, signal: float = 60.0) -> np.ndarray:
    """Events of an exponential and of a peak in bins of 1 GeV."""
    return background * np.diff(-np.exp(-(EDGES - 105) / 25)) + signal * PEAK.integral(EDGES[:-1], EDGES[1:])


def spectrum(counts: np.ndarray) -> Spectrum:
    return Spectrum(EDGES[:-1], EDGES[1:], counts, None, "toy")


def data(seed: int = 1) -> Spectrum:
    return spectrum(np.random.default_rng(seed).poisson(expected()).astype(float))


def fitted(background: str, counts: Spectrum | Masses, **asked) -> dict:
    return fit_peak(counts, PeakFit(window=WINDOW, background=background, peak=PEAK, **asked))


NUMBERS = ("s", "q0", "z", "upper_limit", "expected_limit")


@pytest.mark.parametrize("unbinned", [False, True])
def test_one_function_twice_is_that_function(unbinned):
    rng = np.random.default_rng(3)
    masses = np.r_[105 + rng.exponential(25, 900), rng.normal(125, 1.5, 20)]
    events = Masses(masses[masses < 160], None, "toy") if unbinned else data()
    single, double = fitted("exp", events), fitted("envelope:exp,exp", events)
    assert [double[n] for n in NUMBERS] == pytest.approx([single[n] for n in NUMBERS], rel=1e-6)
    assert double["s_interval"] == pytest.approx(single["s_interval"], abs=0.01)
    assert double["background"]["chosen_by"] == "envelope"
    assert [c["above"] for c in double["background"]["compared"]] == [0.0, 0.0]


def brute(counts: np.ndarray, s: float | None) -> tuple[float, np.ndarray]:
    """-2 ln L + parameters of the better of two functions, by scipy with the yield fixed or free, and its mean."""
    share, x = PEAK.integral(EDGES[:-1], EDGES[1:]), (EDGES[1:] + EDGES[:-1] - 265) / 55

    def exponential(p):  # its integrals, exactly
        return math.exp(p[0]) * -np.diff(np.exp(-p[1] * (EDGES - 105))) / p[1]

    def straight(p):  # of a line the middle is the mean
        return p[0] * (1 + p[1] * x)

    found = []
    for model, start in ((exponential, [math.log(160.0), 0.04]), (straight, [counts.mean(), -0.8])):

        def mean(p, model=model):
            return model(p) + (p[2] if s is None else s) * share

        def cost(p):
            mu = mean(p)
            if (mu <= 0).any():
                return 1e9
            return 2 * (mu - counts + np.where(counts > 0, counts * np.log(np.maximum(counts, 1e-9) / mu), 0)).sum()

        at = [*start, *([10.0] if s is None else [])]
        for _ in range(4):
            how = {"xatol": 1e-9, "fatol": 1e-9, "maxiter": 9000}
            at = optimize.minimize(cost, at, method="Nelder-Mead", options=how).x
        found.append((cost(at) + 2, mean(at)))
    return min(found, key=lambda f: f[0])


def test_the_lower_of_two_curves_by_brute_force():
    """Few events of a line on which an exponential is nearly as good: q0, interval and limit of the lower curve."""
    counts = np.random.default_rng(5).poisson(8 * (1 - 0.8 * np.linspace(-1, 1, 55))).astype(float)
    row = fitted("envelope:exp,poly:1", spectrum(counts))
    assert max(c["above"] for c in row["background"]["compared"]) < 4
    free, (none, background) = brute(counts, None)[0], brute(counts, 0.0)
    assert row["q0"] == pytest.approx((none - free) * (row["s"] > 0), abs=2e-4)
    for end in row["s_interval"]:
        assert brute(counts, end)[0] - free == pytest.approx(1.0, abs=0.01)
    # CLs at the limit is 5 %, with q of the data and of the background alone (1007.1727, equations 14 and 16).
    mu = row["upper_limit"]
    q = brute(counts, mu)[0] - (free if row["s"] >= 0 else none)
    asimov = brute(background, mu)[0] - brute(background, 0.0)[0]
    assert cls(q, asimov) == pytest.approx(0.05, abs=5e-4)


def test_penalty_is_one_a_parameter():
    row = fitted("envelope:exp,exppoly:2", data())
    one, two = row["background"]["compared"]
    alone = [fitted(name, data()) for name in ("exp", "exppoly:2")]
    gain = alone[0]["chi2"] - alone[1]["chi2"]  # nested: never negative
    assert gain >= 0
    assert two["above"] - one["above"] == pytest.approx(1 - gain, abs=1e-4)


@pytest.mark.parametrize(("truth", "seed"), [("exp", 10), ("poly", 11)])
def test_pull_and_coverage_whichever_is_true(truth, seed):
    """Over 60 toys each: the 68 % interval covers the injected yield, whichever of the two made the data."""
    rng, toys = np.random.default_rng(seed), 60
    mean = 600 / 55 * (1 - 0.45 * (EDGES[1:] + EDGES[:-1] - 265) / 55)
    if truth == "exp":
        mean = 1000 * np.diff(-np.exp(-(EDGES - 105) / 60))
    mean += 30 * PEAK.integral(EDGES[:-1], EDGES[1:])
    rows = [fitted("envelope:exp,poly:1", spectrum(rng.poisson(mean).astype(float))) for _ in range(toys)]
    taken = [row["background"]["family"] for row in rows]
    assert min(taken.count("exp"), taken.count("poly:1")) > 5  # neither is clearly the better one
    inside = sum(row["s_interval"][0] <= 30 <= row["s_interval"][1] for row in rows)
    assert stats.binomtest(inside, toys, 0.683).pvalue > 0.01
    pulls = np.array([(row["s"] - 30) / row["s_err"] for row in rows])
    assert abs(pulls.mean()) < 3 / math.sqrt(toys)
    below = sum(row["upper_limit"] < 30 for row in rows)  # of 5 % or, with CLs, fewer
    assert stats.binomtest(below, toys, 0.05, alternative="greater").pvalue > 0.01


def test_a_hunt_over_an_envelope_is_the_fit_at_its_place():
    asked = Hunt(
        window=WINDOW, background="envelope:exp,poly:3", widths=[width("1.5")], scan_range=(124, 126), points=3
    )
    row = hunt(data(), asked).row
    assert row["best"]["mass"] in (124, 125, 126)
    place = Gaussian(row["best"]["mass"], 1.5)
    fit = fit_peak(data(), PeakFit(window=WINDOW, background="envelope:exp,poly:3", peak=place))
    assert row["best"]["q0"] == pytest.approx(fit["q0"], abs=1e-4)
    assert row["best"]["s"] == pytest.approx(fit["s"], rel=1e-4)
    assert row["background_chosen_by"] == "envelope"


@pytest.mark.parametrize("spec", ["envelope:exp,poly:1", "envelope:exp,exppoly:2"])
def test_every_place_of_a_hunt_is_the_fit_there(spec):
    """An exponential and a line that describe the data alike: here the one, there the other is the better."""
    line = 600 / 55 * (1 - 0.45 * (EDGES[1:] + EDGES[:-1] - 265) / 55)
    counts = np.random.default_rng(0).poisson(line).astype(float)
    masses = np.linspace(110, 150, 9)
    asked = Hunt(window=WINDOW, background=spec, widths=[width("1.5")], scan_range=(110, 150), points=9)
    found = hunt(spectrum(counts), asked)
    fits = [fit_peak(spectrum(counts), PeakFit(window=WINDOW, background=spec, peak=Gaussian(m, 1.5))) for m in masses]
    assert len({fit["background"]["family"] for fit in fits}) == (2 if "poly:1" in spec else 1)
    assert found.s[0] == pytest.approx([fit["s"] for fit in fits], abs=0.02)
    assert found.r[0] == pytest.approx([fit["z_signed"] for fit in fits], abs=2e-3)


def test_a_function_that_does_not_converge_is_told(monkeypatch):
    fit = massfit.fit_signal

    def failing(problem, *given):
        one = fit(problem, *given)
        bad = problem.shape.family.name == "poly:1"
        return replace(one, best=replace(one.best, valid=False)) if bad else one

    monkeypatch.setattr(massfit, "fit_signal", failing)
    row = fitted("envelope:exp,poly:1", data())
    assert row["background"]["family"] == "exp"
    assert (row["valid"], row["upper_limit"]) == (False, None)


@pytest.mark.parametrize(
    ("background", "region"),
    [("envelope:exp,poly:3", None), ("exppoly:auto", None), ("exp,exppoly:2", None), ("exppoly:auto", (121, 129))],
)
def test_toys_choose_as_the_data_do(background, region):
    """q0 of each toy is that of a hunt in this toy, with the background chosen anew (in the sidebands of a region)."""
    about = {"widths": [width("1.5")], "points": 12} if region is None else {"region": region}
    asked = Hunt(window=WINDOW, background=background, toys=6, seed=4, **about)
    found = hunt(data(), asked)
    ((toys, _),) = draw_toys(found.problem, found.null.theta, 6, 4)
    alone = replace(asked, toys=0)
    again = [hunt(Spectrum(found.bins.low, found.bins.high, toy, None, "toy"), alone).q0.max() for toy in toys]
    assert found.toys == pytest.approx(again, abs=2e-3)


@pytest.mark.parametrize(
    ("background", "asked", "words"),
    [
        ("envelope:exp", {}, "an envelope is of several families"),
        ("envelope:exp,poly:1", {"region": (121, 129)}, "an envelope needs --peak MASS:WIDTH"),
        ("envelope:exp,poly:1", {"spurious": 2.0}, "an envelope needs --peak MASS:WIDTH"),
        ("envelope:exp,nonsense", {}, "nonsense"),
    ],
)
def test_bad_input_is_one_line(background, asked, words):
    with pytest.raises(UserError, match=words) as told:
        fitted(background, data(), **asked)
    assert "\n" not in str(told.value)


def test_weighted_events_are_refused():
    events = Masses(np.linspace(106, 159, 500), np.linspace(0.5, 1.5, 500), "weighted.root")
    with pytest.raises(UserError, match="weighted events"):
        fitted("envelope:exp,poly:1", events)
