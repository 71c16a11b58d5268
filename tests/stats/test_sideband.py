"""The sideband fit against the spectra it was drawn from."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from raypipe.config import MassFit, MassWindow
from raypipe.errors import UserError
from raypipe.stats.sideband import fit_sidebands

WINDOW = MassWindow()


def draw(n: float, rng: np.random.Generator, slope: float = 30.0) -> np.ndarray:
    """Poisson(n) masses of an exponential with the given slope in GeV over the window."""
    u = rng.random(rng.poisson(n))
    span = 1 - np.exp(-(WINDOW.high - WINDOW.low) / slope)
    return WINDOW.low - slope * np.log(1 - span * u)


def test_regions_tile_the_window():
    mass = np.linspace(100, 165, 1301)
    sr, sb = WINDOW.inside(mass), WINDOW.beside(mass)
    assert not (sr & sb).any()
    assert ((sr | sb) == ((mass >= 105) & (mass < 160))).all()


def test_pull_of_the_predicted_signal_region_is_standard_normal():
    """The fit sees only the sidebands; over 60 toys (prediction - truth)/error has mean 0 and width 1."""
    rng = np.random.default_rng(4)
    n, slope = 20_000, 30.0
    share = (np.exp(-15 / slope) - np.exp(-25 / slope)) / (1 - np.exp(-55 / slope))
    pulls = []
    for _ in range(60):
        fit = fit_sidebands(draw(n, rng, slope), WINDOW, MassFit())
        value, error = fit.integral(WINDOW.sr_low, WINDOW.sr_high)
        pulls.append((value - n * share) / error)
    assert np.mean(pulls) == pytest.approx(0, abs=3.5 / np.sqrt(60))
    assert np.std(pulls) == pytest.approx(1, abs=3.5 / np.sqrt(120))


def test_chi2_and_conservation():
    masses = draw(50_000, np.random.default_rng(5))
    fit = fit_sidebands(masses, WINDOW, MassFit())
    assert fit.ndf == 45 - 3
    assert stats.chi2.sf(fit.chi2, fit.ndf) > 1e-3
    # A maximum-likelihood fit with a free normalisation reproduces the number of fitted events.
    inside = sum(fit.integral(a, b)[0] for a, b in ((105, 120), (130, 160)))
    assert inside == pytest.approx(WINDOW.beside(masses).sum(), rel=1e-4)


def test_sampled_masses_follow_the_fit():
    fit = fit_sidebands(draw(50_000, np.random.default_rng(6)), WINDOW, MassFit(order=1))
    masses = fit.sample(20_000, 120, 130, np.random.default_rng(7))
    total = fit.integral(120, 130)[0]
    cdf = np.vectorize(lambda m: fit.integral(120, max(m, 120 + 1e-9))[0] / total)
    assert stats.kstest(masses[:2000], cdf).pvalue > 1e-3
    assert masses.min() >= 120
    assert masses.max() <= 130


@pytest.mark.parametrize(("low", "high", "which"), [(120, 160, "lower"), (105, 130, "upper")])
def test_empty_sideband_is_named(low, high, which):
    masses = np.random.default_rng(8).uniform(low, high, 500)
    with pytest.raises(UserError, match=f"the {which} sideband .* is empty"):
        fit_sidebands(masses, WINDOW, MassFit())
