"""Choice of the background: the F-test keeps its size and finds what bends, the spurious-signal test what is biased."""

from __future__ import annotations

import numpy as np
import pytest

from raypipe.errors import UserError
from raypipe.events.masses import Masses
from raypipe.stats.choice import choose_order, spurious_signal
from raypipe.stats.peakfit import fit_peak
from raypipe.stats.peaks import Gaussian
from raypipe.stats.spectrum import Bins

EDGES = np.linspace(105, 160, 56)
CENTRES = (EDGES[1:] + EDGES[:-1]) / 2


def bins(counts: np.ndarray) -> Bins:
    return Bins(EDGES[:-1], EDGES[1:], counts, np.ones(len(counts)), None, (105.0, 160.0))


def test_f_test_keeps_its_size_and_sees_curvature():
    rng = np.random.default_rng(2)
    straight = np.exp(-CENTRES / 30)
    straight *= 20_000 / straight.sum()
    chosen = [choose_order(bins(rng.poisson(straight).astype(float)), "exp")[0] for _ in range(40)]
    assert chosen.count("exp") >= 34  # each of two comparisons errs in 5 % of the cases
    bent = straight * np.exp(1.2 * ((CENTRES - 132) / 27) ** 2)
    name, record = choose_order(bins(rng.poisson(bent).astype(float)), "exp")
    assert name == "exppoly:2"
    assert record[0]["p"] < 1e-6
    assert record[0]["improvement"] == pytest.approx(record[0]["chi2"] - record[1]["chi2"], abs=1e-3)


def test_spurious_signal_rejects_what_cannot_follow_the_template():
    bent = np.exp(-CENTRES / 30 + 0.6 * ((CENTRES - 132) / 27) ** 3)
    bent *= 50_000 / bent.sum()
    masses = np.linspace(110, 155, 19)
    name, record = spurious_signal(bent, bins(bent), ["exp", "exppoly:2", "exppoly:3", "exppoly:4"], masses, 1.5)
    assert name == "exppoly:3"  # the fewest parameters that contain the truth
    first, _, third, _ = record
    assert not first["passed"]
    assert first["largest"] > 1
    assert third["largest"] < 5e-3  # the template holds densities at bin centres, the fit integrates


def test_the_fit_records_its_choice():
    rng = np.random.default_rng(4)
    data = Masses(105 + rng.exponential(25, 5000), None, "m")
    row = fit_peak(data, (105, 160), "exp:auto", Gaussian(125, 1.5), level=None).row
    assert row["background"]["family"] in {"exp", "exppoly:2"}
    assert row["background"]["chosen_by_f_test"][0]["family"] == "exp"
    with pytest.raises(UserError, match="orders are chosen for"):
        fit_peak(data, (105, 160), "spline:auto", Gaussian(125, 1.5))
