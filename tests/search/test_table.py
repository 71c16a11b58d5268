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
    "data.path=toy.npy", "data.columns.features=[1, 2]", "data.columns.label=3",
    *(f"window.{k}={v}" for k, v in WINDOW.items()), "massfit.order=2",
    "flow.members=3", "flow.leave_out=1", "flow.layers=2", "flow.hidden=16", "flow.epochs=6", "flow.batch_size=512",
    "flow.learning_rate=0.005", "flow.oversampling=2", "classifier.folds=3", "classifier.ensemble=2",
    "classifier.rounds=25", "classifier.leaves=16", "classifier.min_child_weight=10",
    "selection.working_points=[0.02]",
]  # fmt: skip


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
    assert (scores.event_id == inside).all()
    assert scores.mass == pytest.approx(table[inside, 0])
    assert (scores.percentile <= 0.02).sum() == row["n_after"]
    order = np.corrcoef(scores.score, -np.log(scores.percentile + 1e-3))[0, 1]
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
    assert scores.label is None


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
