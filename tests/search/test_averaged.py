"""Averaged scores of several encoders: one count whose expectation is right, and sharper than each."""

from dataclasses import replace

import numpy as np
import pytest

from raypipe.config import load_config
from raypipe.events.latents import Events
from raypipe.report.contrastive import TEXTS
from raypipe.report.html import table_of
from raypipe.report.summary import build_summary
from raypipe.search.case import Tables
from raypipe.search.cathode import cathode
from raypipe.search.contrastive import draw_case, search, trial_seed
from raypipe.search.diphoton import prepare_tables
from raypipe.search.evaluate import AVERAGED, Averaged, evaluate
from raypipe.search.result import ALONE, NO_SIGNAL, Trial
from tests.conftest import ROOT
from tests.search.test_contrastive import OVERRIDES, made_up_latents

SIGNAL = Trial("wn_150", 2.0, 0)
SMALL = [*OVERRIDES, "pseudodata.luminosity=3", "classifier.rounds=20"]


@pytest.fixture(scope="module")
def config():
    return load_config(ROOT / "configs/contrastive/laptop.yaml", SMALL)


@pytest.fixture(scope="module")
def tables(config) -> Tables:
    return prepare_tables(made_up_latents(), config)


def noisy(tables: Tables, number: int) -> Tables:
    """The same events seen by an encoder that adds noise of its own."""

    def seen(events: Events) -> Events:
        rng = np.random.default_rng([number, int(events.event_id[0])])
        latent = (events.latent + rng.normal(0, 0.7, events.latent.shape)).astype("f4")
        return replace(events, latent=latent, posterior=np.stack([latent, 0 * latent], axis=1))

    sets = ({name: seen(events) for name, events in of.items()} for of in (tables.search, tables.higgs))
    return Tables(*sets)


def columns(rows: list[dict]) -> list[str]:
    """Of the table of a report."""
    rows = [row | {"status": "ok", "key": "a"} for row in rows]
    every = build_summary(rows, working_point=rows[0]["working_point"], target=5.0)["results_all_working_points"]
    return table_of(TEXTS["tables"]["results"], every).head


def test_one_ensemble_is_not_averaged(tables, config):
    rows = search(tables, config, SIGNAL).rows
    assert not [name for row in rows for name in row if name.startswith("averaged")]
    assert "z averaged" not in columns(rows)


def test_the_average_of_equal_scores_is_the_cut_itself(tables, config):
    case = draw_case(tables, config, SIGNAL)
    judged, averaged = cathode(case, config, trial_seed(config, SIGNAL), ALONE), Averaged()
    for _ in range(3):
        averaged.add(case, judged, config.selection.working_points)
    for point in config.selection.working_points:
        alone = evaluate(case, judged.scores[0], judged.template, point, config)
        found = averaged.row(case, judged.template, point, "", config)
        assert sorted(found) == sorted(f"averaged_{name}" for name in AVERAGED)
        for name in ("n_after", "s_after", "b_after", "signal_efficiency", "background_efficiency", "sic"):
            assert found[f"averaged_{name}"] == alone[name]
        # The single cut adds one event to those of the sidebands that pass, the average half a one.
        passing = point * case.side.sum()
        assert found["averaged_expected_after"] == pytest.approx(alone["expected_after"], rel=1.5 / passing)
        assert found["averaged_expected_after_error"] == pytest.approx(alone["expected_after_error"], rel=0.15)
        withheld = averaged.row(case, judged.template, point, "does not close", config)
        assert np.isnan(withheld["averaged_z_after"])


def test_encoders_that_see_different_noise_find_more_together(tables, config):
    views = [noisy(tables, number) for number in range(4)]
    row, *_ = rows = search(views, config, SIGNAL).rows
    assert {"z averaged", "SIC averaged"} <= set(columns(rows))
    assert row["encoders"] == 4
    assert row["averaged_sic"] > 1.1 * row["sic"]
    assert row["averaged_z_after"] > row["z_after"]
    for one, point in zip(rows, config.selection.working_points, strict=True):
        assert one["averaged_background_efficiency"] == pytest.approx(point, rel=0.3)
    assert row["averaged_s_after"] + row["averaged_b_after"] == row["averaged_n_after"]


def test_encoders_must_see_the_same_events(tables, config):
    order = np.arange(len(tables.search["yy"]))[::-1]
    turned = replace(tables, search=tables.search | {"yy": tables.search["yy"].take(order)})
    fewer = replace(tables, higgs={"ggf": tables.higgs["ggf"].take(np.arange(50))})
    for other in (turned, fewer):
        with pytest.raises(ValueError, match="the encoders see other events"):
            search([tables, other], config, SIGNAL)


@pytest.mark.slow
def test_the_expected_background_of_the_averaged_cut_is_right(tables):
    """In sets that share no event, with and without a signal: pull 0 within three errors, width 0.75 to 1.25."""
    more = ["pseudodata.disjoint=true", "scan.instances=6", "scan.background_instances=6"]
    config, pulls = load_config(ROOT / "configs/contrastive/laptop.yaml", [*SMALL, *more]), []
    for seed in range(8):
        own = config.model_copy(update={"seed": seed})
        views = [noisy(tables, 10 * seed + number) for number in range(3)]
        for trial in (Trial(signal, x, k) for k in range(6) for signal, x in ((NO_SIGNAL, 0.0), ("wn_150", 2.0))):
            pulls.append([row["averaged_background_pull"] for row in search(views, own, trial).rows])
    mean, width = np.mean(pulls, axis=0), np.std(pulls, axis=0)
    assert (np.abs(mean) < 3 * width / np.sqrt(len(pulls) / 2)).all(), mean  # a signal shares its background
    assert ((width > 0.75) & (width < 1.25)).all(), width
