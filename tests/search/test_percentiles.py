"""Without a signal a cut keeps as many events as it says, however few the background's, and ties are counted right."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from raypipe.config import Classifier, load_config
from raypipe.config.sections import Cuts
from raypipe.errors import UserError
from raypipe.events.readers.features import FeatureTable
from raypipe.fit.classifier import FoldScores, out_of_fold_scores
from raypipe.search.case import Template
from raypipe.search.counting import background_percentiles, counting_row, cut_lines
from raypipe.search.table import search_table
from tests.conftest import ROOT

EVENTS = 930
BASE = [
    "data.path=toy.npy",
    "data.columns.features=[1, 2]",
    "data.columns.label=null",
    "blind=false",
    "window.low=100",
    "window.sr_low=120",
    "window.sr_high=130",
    "window.high=160",
    "massfit.bin_width=1",
    "classifier.ensemble=2",
]


def config(seed: int, points: str, *more: str):
    return load_config(
        ROOT / "configs/lhco/laptop.yaml", [*BASE, f"seed={seed}", f"selection.working_points={points}", *more]
    )


def inside(rng: np.random.Generator, features: np.ndarray) -> FeatureTable:
    """Events of the signal region alone."""
    n = len(features)
    return FeatureTable(np.arange(n), rng.uniform(120, 130, n), features, np.ones(n), None, ("1", "2"))


def test_no_signal_no_excess_at_any_cut():
    """Background of the same distribution as the data, three times as many."""
    rows = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        data, background = (inside(rng, rng.normal(size=(n, 2))) for n in (2000, 6000))
        rows.append(search_table(data, config(seed, "[0.05, 0.01]"), background=background)[0].rows)
    observed, expected, z = (
        np.array([[r[k] for r in s] for s in rows]) for k in ("n_after", "expected_after", "z_after")
    )
    print(f"\nobserved/expected {observed.sum(0) / expected.sum(0)}, mean z {z.mean(0)}, width {z.std(0)}")
    assert observed.sum(0) / expected.sum(0) == pytest.approx([1, 1], abs=0.1)
    assert (np.abs(z.mean(0)) < 0.5).all()


def test_the_best_of_all_is_not_at_zero_and_a_finer_cut_is_refused():
    rng = np.random.default_rng(1)
    template = rng.normal(size=(EVENTS, 2))
    signal = rng.normal(8, 0.1, (100, 2))
    scores = out_of_fold_scores(
        np.r_[rng.normal(size=(400, 2)), signal],
        template,
        np.ones(EVENTS),
        Classifier(rounds=20, early_stopping=None),
        seed=1,
    )
    assert scores.data.min() == pytest.approx(1 / 187)  # 186 template events in each of five folds
    assert scores.template.min() == pytest.approx(1 / 187)
    assert scores.template.max() == pytest.approx(186 / 187)
    background = inside(rng, template)
    words = r"working_points: a cut at 0\.10% cannot be made with 186 events in a fold.*smallest is 0\.53%.*path"
    with pytest.raises(UserError, match=words):
        search_table(inside(rng, rng.normal(size=(EVENTS, 2))), config(1, "[0.01, 0.001]"), background=background)
    allowed = config(1, f"[{1 / 187!r}]")
    row = search_table(inside(rng, rng.normal(size=(EVENTS, 2))), allowed, background=background)[0].rows[0]
    assert row["expected_after"] >= 5  # the best of each fold, and what has the same score
    assert row["kept"] == pytest.approx(row["expected_after"] / EVENTS)


def test_background_events_of_weight_zero_are_as_if_they_were_not_there():
    rng = np.random.default_rng(2)
    data, some = (inside(rng, rng.normal(size=(EVENTS, 2))) for _ in range(2))
    other = inside(rng, rng.normal(size=(EVENTS, 2)))
    joined = FeatureTable(
        np.arange(2 * EVENTS),
        np.r_[some.mass, other.mass],
        np.r_[some.features, other.features],
        np.repeat([1.0, 0.0], EVENTS),
        None,
        some.names,
    )
    rows = [search_table(data, config(3, "[0.05, 0.006]"), background=b)[0].rows for b in (some, joined)]
    for alone, with_zeros in zip(*rows, strict=True):
        assert with_zeros["z_after"] == alone["z_after"]
        assert with_zeros["expected_after"] == alone["expected_after"] > 0


@pytest.mark.parametrize("point", [0.05, 0.01])
def test_a_block_of_equal_scores_passes_as_a_whole_and_is_told(point):
    """A flag that is set for 12.7 % of all events: no cut divides them."""
    observed, expected, z = [], [], []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        data, background = (inside(rng, np.c_[rng.random(k * EVENTS) < 0.127, np.ones(k * EVENTS)]) for k in (1, 3))
        # Truly more flags in the data than in the background make them the best for every fold.
        data.features[:40, 0] = 1
        row = search_table(data, config(seed, f"[{point}]"), background=background)[0].rows[0]
        assert row["n_after"] == data.features[:, 0].sum()
        share = background.features[:, 0].mean()
        assert row["kept"] == pytest.approx(share)
        assert row["expected_after"] == pytest.approx(EVENTS * share)
        assert f"this cut keeps {share:.2%} of the background" in cut_lines(row)[1]
        observed.append(row["n_after"])
        expected.append(row["expected_after"] + 40 * (1 - 0.127))
        z.append(row["z_after"])
    assert np.sum(observed) == pytest.approx(np.sum(expected), abs=4 * np.sqrt(np.sum(observed)))
    assert np.mean(z) > 1


def test_ties_do_not_make_an_excess():
    """Coarse features, no signal: where blocks lie about the cut the counts agree all the same."""
    z = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        data, background = (inside(rng, rng.poisson(1, (EVENTS, 2)).astype(float)) for _ in range(2))
        z.append(
            [r["z_after"] for r in search_table(data, config(seed, "[0.05, 0.01]"), background=background)[0].rows]
        )
    print(f"\nmean z {np.mean(z, 0)}, width {np.std(z, 0)}")
    assert (np.abs(np.mean(z, axis=0)) < 0.5).all()


def hand_made(block: float, n: int = 4000) -> tuple[FoldScores, Template]:
    """A block of equal best scores in data, template and sidebands, the rest without ties."""
    rng = np.random.default_rng(5)

    def draw(k: int) -> np.ndarray:
        values = rng.random(k)
        return np.where(values < block, block, values)

    template = Template(
        np.zeros((n, 1)), np.full(n, 0.25), np.zeros(n, bool), None, n / 4, 5.0, sideband=np.zeros((n, 1))
    )
    data = draw(n // 4)
    return FoldScores(data, draw(n), {k: draw(n) for k in ("sideband_data", "sideband_template")}, -data), template


@pytest.mark.parametrize("by_sidebands", [False, True])
def test_the_best_block_is_counted_not_skipped(by_sidebands):
    scores, template = hand_made(0.127)
    if by_sidebands:
        scores = background_percentiles(scores, template)
    row = counting_row(scores, template, 0.05, Cuts(working_points=[0.05], sideband_calibration=by_sidebands))
    assert row["kept"] == pytest.approx(0.127, abs=4 * np.sqrt(0.127 / 4000))
    assert row["n_after"] == pytest.approx(127, abs=4 * np.sqrt(127))
    assert row["expected_after"] == pytest.approx(127, abs=4 * np.sqrt(127 / 4))
    assert abs(row["z_after"]) < 4
    fine = replace(scores, better={})
    plain = Cuts(working_points=[0.3], sideband_calibration=False)
    assert counting_row(fine, template, 0.3, plain)["kept"] == pytest.approx(0.3, abs=0.03)


def test_background_events_of_weight_zero_that_repeat_are_as_if_they_were_not_there():
    """Folds of events that occur twice are dealt to what is judged, not to what is left out of it."""
    rng = np.random.default_rng(2)
    data, some, other = (inside(rng, rng.normal(size=(EVENTS, 2))) for _ in range(3))
    joined = FeatureTable(
        np.arange(2 * EVENTS),
        np.r_[some.mass, other.mass],
        np.r_[some.features, other.features],
        np.repeat([1.0, 0.0], EVENTS),
        None,
        some.names,
    )
    some.mass[:3], joined.mass[:3] = data.mass[:3], data.mass[:3]
    some.features[:3], joined.features[:3] = data.features[:3], data.features[:3]
    rows = [search_table(data, config(3, "[0.05]"), background=b)[0].rows[0] for b in (some, joined)]
    assert rows[1]["z_after"] == rows[0]["z_after"]
    assert rows[1]["shared"] == rows[0]["shared"] == 3
