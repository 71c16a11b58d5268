"""Cuts at shares of the background that the sidebands know, where the flow is wrong by a known amount."""

from __future__ import annotations

import numpy as np
import pytest

from raypipe.config.sections import Cuts
from raypipe.fit.classifier import FoldScores
from raypipe.search.case import Template
from raypipe.search.counting import background_percentiles, counting_row

EVENTS, HIGGS, EXPECTED, RESONANT = 20_000, 3000, 900.0, 100.0
POWER, PEAK = 0.8, 0.5
"""The continuum passes a cut at the share f of the template with f^0.8 (2.5 times too often at 1 %), the Higgs with
f^0.5."""


def scored(rng: np.random.Generator, ties: int = 0) -> tuple[FoldScores, Template]:
    """Percentiles of a template as a flow gives them that is off by `POWER`; ``ties``: steps of the percentiles."""

    def draw(n: int, power: float) -> np.ndarray:
        values = rng.random(n) ** (1 / power)
        return np.ceil(values * ties) / ties if ties else values

    is_higgs = np.arange(EVENTS + HIGGS) >= EVENTS
    weight = np.where(is_higgs, RESONANT / HIGGS, EXPECTED / EVENTS)
    template = Template(
        np.zeros((len(weight), 1)), weight, is_higgs, None, EXPECTED, 5.0, sideband=np.zeros((EVENTS, 1))
    )
    others = {
        "sideband_data": draw(EVENTS, POWER),
        "sideband_template": draw(EVENTS, 1.0),
        "background": np.r_[draw(90_000, POWER), draw(10_000, PEAK)],
    }
    data = np.r_[draw(900, POWER), draw(100, PEAK)]
    return FoldScores(data, np.r_[draw(EVENTS, 1.0), draw(HIGGS, PEAK)], others, -data), template


@pytest.mark.parametrize("point", [0.1, 0.01, 0.004])
@pytest.mark.parametrize("ties", [0, 15_000])
def test_a_cut_keeps_that_share_of_the_true_background(point, ties):
    rng = np.random.default_rng(3)
    passed, uncut = [], []
    for _ in range(30):
        scores, template = scored(rng, ties)
        uncut.append((scores.others["background"] <= point).mean())
        passed.append((background_percentiles(scores, template).others["background"] <= point).mean())
    assert np.mean(uncut) > 1.3 * point  # what there is to mend
    assert np.mean(passed) == pytest.approx(point, abs=4 * np.std(passed) / np.sqrt(30))
    assert np.std(passed) < 1.3 * np.sqrt(point / EVENTS + point / 100_000)


def test_the_order_stays_and_the_expectation_is_that_of_the_sidebands():
    scores, template = scored(np.random.default_rng(4))
    found = background_percentiles(scores, template)
    for before, after in ((scores.data, found.data), (scores.template, found.template)):
        assert (np.diff(after[np.argsort(before)]) >= 0).all()
        assert ((after > 0) & (after <= 1)).all()
    assert found.margin is scores.margin
    assert set(found.others) == set(scores.others)
    chosen = Cuts(working_points=[0.02])
    row = counting_row(found, template, 0.02, chosen)
    assert row["expected_after"] == pytest.approx(0.02 * (EXPECTED + RESONANT), rel=0.03)
    wider = counting_row(found, template, 0.02, chosen.model_copy(update={"transfer_uncertainty": 0.3}))
    passed = found.passes("template", 0.02) & ~template.is_higgs
    added = 0.3 * row["kappa"] * template.weight[passed].sum()
    assert wider["expected_after_error"] == pytest.approx(np.hypot(row["expected_after_error"], added))
    # A template that the sidebands confirm is left as it is.
    rng = np.random.default_rng(5)
    flat = FoldScores(rng.random(1000), rng.random(EVENTS + HIGGS), {"sideband_data": rng.random(EVENTS)}, np.empty(0))
    assert np.abs(background_percentiles(flat, template).data - flat.data).max() < 0.02


def test_without_sidebands_there_is_nothing_to_know_it_by():
    scores, template = scored(np.random.default_rng(6))
    bare = Template(template.latent, template.weight, template.is_higgs, None, EXPECTED, 5.0)
    with pytest.raises(ValueError, match="need scored sideband data"):
        background_percentiles(scores, bare)
