"""The search on a user's table: finds what is there, finds nothing where there is nothing, and says what is wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from raypipe.config import load_config
from raypipe.errors import UserError
from raypipe.events.readers.features import FeatureTable
from raypipe.search.table import search_table
from raypipe.stats.roc import max_sic
from tests.conftest import ROOT
from tests.search.toys import WINDOW, log_likelihood_ratio, toy_table

OVERRIDES = [
    "data.path=toy.npy",
    "data.columns.features=[1, 2]",
    "data.columns.label=3",
    *(f"window.{k}={v}" for k, v in WINDOW.items()),
    "massfit.order=2",
    "flow.members=3",
    "flow.leave_out=1",
    "flow.layers=2",
    "flow.hidden=16",
    "flow.epochs=6",
    "flow.batch_size=512",
    "flow.learning_rate=0.005",
    "flow.oversampling=2",
    "classifier.folds=3",
    "classifier.ensemble=2",
    "classifier.rounds=25",
    "classifier.leaves=16",
    "classifier.min_child_weight=10",
    "selection.working_points=[0.02]",
]


@pytest.fixture(scope="module")
def config():
    return load_config(ROOT / "configs/lhco/laptop.yaml", OVERRIDES)


def as_features(table: np.ndarray) -> FeatureTable:
    n = len(table)
    return FeatureTable(np.arange(n), table[:, 0], table[:, 1:3], np.ones(n), table[:, 3] == 1, ("1", "2"))


@pytest.fixture(scope="module")
def found(config):
    table = toy_table(24_000, 120, 1)
    result, scores = search_table(as_features(table), config)
    return table, result.rows[0], scores, result


def test_an_injected_signal_is_found_and_measured_against_the_best_classifier(found):
    table, row, _, _ = found
    inside = (table[:, 0] >= 3.3) & (table[:, 0] < 3.7)
    best = max_sic(*(log_likelihood_ratio(table[inside & (table[:, 3] == k)]) for k in (1, 0)))
    assert 0.6 * best.sic < row["max_sic"] < 1.15 * best.sic
    assert row["z_after"] > 5
    assert row["z_after"] > row["z_before"] + 3
    assert row["s_after"] + row["b_after"] == row["n_after"]
    assert row["s_before"] + row["b_before"] == row["n_before"] == inside.sum()
    # The flow predicts the background after the cut: within three of its own errors and the Poisson error.
    error = np.hypot(row["expected_after_error"], np.sqrt(row["expected_after"]))
    assert row["b_after"] == pytest.approx(row["expected_after"], abs=3 * error)
    assert row["normalisation"] == "sidebands"


def test_every_event_of_the_signal_region_has_a_score(found):
    table, row, scores, result = found
    inside = np.flatnonzero((table[:, 0] >= 3.3) & (table[:, 0] < 3.7))
    assert (scores["event_id"].to_numpy() == inside).all()
    assert scores["mass"].to_numpy() == pytest.approx(table[inside, 0])
    assert (scores["background_percentile"].to_numpy() <= 0.02).sum() == row["n_after"]
    order = np.corrcoef(scores["score"].to_numpy(), -np.log(scores["background_percentile"].to_numpy() + 1e-3))[0, 1]
    assert order > 0.5
    assert result.arrays["mass_data"].sum() == len(table)
    assert result.flow_state is not None


def test_nothing_is_found_where_there_is_nothing(config):
    z = []
    for seed in range(2):
        table = toy_table(12_000, 0, 10 + seed)
        changed = config.model_copy(update={"seed": seed})
        z.append(search_table(as_features(table), changed)[0].rows[0]["z_after"])
    assert np.mean(z) == pytest.approx(0, abs=3.5 / np.sqrt(2))


def test_a_background_sample_replaces_the_flow_where_there_are_no_sidebands(config):
    table = toy_table(60_000, 150, 2)
    table = table[(table[:, 0] >= 3.3) & (table[:, 0] < 3.7)]
    pure = toy_table(60_000, 0, 3)
    with pytest.raises(UserError, match=r"0 events in the lower sideband 2\.5-3\.3.*background\.path=FILE"):
        search_table(as_features(table), config, source="x.npy")
    row = search_table(as_features(table), config, background=as_features(pure))[0].rows[0]
    assert row["normalisation"] == "data"
    assert row["background_model"] == "table"
    assert row["z_before"] == 0
    assert row["z_after"] > 5
    # Labels are for the evaluation alone: without them everything else is the same.
    blind = replace(as_features(table), label=None)
    again, scores = search_table(blind, config, background=replace(as_features(pure), label=None))
    assert again.rows[0]["z_after"] == row["z_after"]
    assert np.isnan([again.rows[0][k] for k in ("sic", "max_sic", "auc", "signal_efficiency")]).all()
    assert "label" not in scores.column_names


def repeated(table: np.ndarray, share: float, seed: int) -> np.ndarray:
    """The table and behind it a share of its rows once more."""
    again = np.random.default_rng(seed).choice(len(table), round(share * len(table)), replace=False)
    return np.concatenate([table, table[again]])


def policy(config, value: str | None, what: str = "data"):
    section = getattr(config, what).model_copy(update={"duplicates": value})
    return config.model_copy(update={what: section})


def test_repeated_events_are_refused_dropped_or_held_out_together(config):
    table, pure = toy_table(6000, 0, 20), as_features(toy_table(20_000, 0, 21))
    twice = as_features(repeated(table, 0.3, 1))
    words = r"1800 of 7800 events \(23\.08%\) repeat an earlier one in all columns: x row 6000 = x row \d+, .*"
    with pytest.raises(UserError, match=words + r"data\.duplicates=drop uses each once, data\.duplicates=keep all"):
        search_table(twice, config, background=pure, source="x")
    once, _ = search_table(as_features(table), config, background=pure)
    dropped, scores = search_table(twice, policy(config, "drop"), background=pure)
    for name in ("n_before", "n_after", "expected_after", "z_after", "auc_data_template"):
        assert dropped.rows[0][name] == once.rows[0][name]
    assert (dropped.rows[0]["repeated"], dropped.rows[0]["duplicates"]) == (1800, "drop")
    assert scores["event_id"].to_numpy().max() < 6000
    kept, scores = search_table(twice, policy(config, "keep"), background=pure)
    inside = (twice.mass >= 3.3) & (twice.mass < 3.7)
    assert kept.rows[0]["n_before"] == inside.sum()
    # One fold for an event and its repetition: one score.
    order = np.lexsort((scores["score"].to_numpy(), scores["mass"].to_numpy()))
    same = np.diff(scores["mass"].to_numpy()[order]) == 0
    assert same.sum() == inside[6000:].sum()
    assert (np.diff(scores["score"].to_numpy()[order])[same] == 0).all()


def test_repeated_background_events_are_refused_too(config):
    data, background = as_features(toy_table(6000, 0, 22)), as_features(repeated(toy_table(6000, 0, 23), 0.05, 1))
    with pytest.raises(UserError, match=r"300 of 6300 events .*background\.duplicates=drop"):
        search_table(data, config, background=background)
    row = search_table(data, policy(config, "drop", "background"), background=background)[0].rows[0]
    assert row["repeated"] == 0


def test_events_that_are_data_and_background_are_told(config):
    table = toy_table(6000, 0, 26)
    mixed = as_features(np.concatenate([toy_table(6000, 0, 27), table[:500]]))
    inside = (table[:500, 0] >= 3.3) & (table[:500, 0] < 3.7)
    row = search_table(as_features(table), config, background=mixed)[0].rows[0]
    assert (row["shared"], row["repeated"]) == (inside.sum(), 0)


def test_a_few_repeated_events_are_counted_and_features_may_repeat(config):
    table = repeated(toy_table(6000, 0, 24), 0.001, 1)
    pure = as_features(toy_table(6000, 0, 25))
    assert search_table(as_features(table), config, background=pure)[0].rows[0]["repeated"] == 6
    table[:, 1:3] = np.round(table[:, 1:3])  # flags: the masses tell the events apart
    assert search_table(as_features(table[:6000]), config, background=pure)[0].rows[0]["repeated"] == 0


def test_no_excess_where_repeated_events_are_kept(config):
    """Without a signal 30 % of the events are there twice: memorised twins would pass every cut (mean z 1.5)."""
    eager = config.classifier.model_copy(update={"leaves": 64, "min_child_weight": 1.0})
    config = config.model_copy(update={"classifier": eager})
    z = []
    for seed in range(8):
        table = repeated(toy_table(8000, 0, 30 + seed), 0.3, seed)
        pure = as_features(toy_table(24_000, 0, 50 + seed))
        changed = policy(config.model_copy(update={"seed": seed}), "keep")
        z.append(search_table(as_features(table), changed, background=pure)[0].rows[0]["z_after"])
    # Counts of repeated events fluctuate by sqrt(1.9 / 1.3) more.
    assert np.mean(z) == pytest.approx(0, abs=3 * 1.21 / np.sqrt(8))


def test_a_background_with_signs_is_their_sum(config):
    """A fifth of the sample has weight -1, an image of a part of it: what remains is the background of the data."""
    data, pure = as_features(toy_table(20_000, 0, 40)), as_features(toy_table(32_000, 0, 41))
    weight = np.where(np.random.default_rng(1).random(32_000) < 0.2, -1.0, 1.0)
    row = search_table(data, config, background=replace(pure, weight=weight))[0].rows[0]
    assert row["negative_weights"] == pytest.approx(0.2, abs=0.02)
    assert abs(row["z_after"]) < 3.5
    error = np.hypot(row["expected_after_error"], np.sqrt(row["expected_after"]))
    assert row["n_after"] == pytest.approx(row["expected_after"], abs=4 * error)
    assert row["auc_data_template"] == pytest.approx(0.5, abs=4 * row["auc_error"])
    plain = search_table(data, config, background=pure)[0].rows[0]
    # Effective events are 0.36 of the number.
    assert row["expected_after_error"] > plain["expected_after_error"]
    with pytest.raises(UserError, match="no positive sum of weights"):
        search_table(data, config, background=replace(pure, weight=-np.abs(weight)))


def test_regions_without_events_and_weighted_data_are_told(config):
    table = toy_table(3000, 0, 4)
    gev = table * np.array([1000, 1, 1, 1])
    with pytest.raises(UserError, match=r"x: 0 events in the signal region 3\.3-3\.7 \(masses 2500"):
        search_table(as_features(gev), config, source="x")
    weighted = as_features(table)
    weighted.weight[:5] = 2.0
    with pytest.raises(UserError, match="recorded events count one each"):
        search_table(weighted, config, source="x")


def test_configuration_refuses_the_mass_as_a_feature():
    for override, words in (
        ("data.columns.features=[0, 1]", "features holds the mass column 0"),
        ("data.columns.features=[1, 1]", "feature '1' is named twice"),
        ("selection.working_points=[2]", "working point 2"),
    ):
        with pytest.raises(UserError, match=words):
            load_config(ROOT / "configs/lhco/laptop.yaml", [*OVERRIDES, override])
    with pytest.raises(UserError, match=r"key 'data\.path' is missing"):
        load_config(ROOT / "configs/lhco/laptop.yaml")
