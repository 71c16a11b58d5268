"""Paper A's search on made-up latents: the bump hunt finds what was injected, and nothing where nothing was."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from raypipe.config.haxad import HaxadConfig
from raypipe.errors import UserError
from raypipe.report import haxad as pages
from raypipe.search.case import Tables
from raypipe.search.diphoton import prepare_tables
from raypipe.search.evaluate import mean_and_spread
from raypipe.search.haxad import choose_family, search
from raypipe.search.result import NO_SIGNAL, Trial
from tests.search.test_contrastive import events

SIZES = {name: {"events": 1000} for name in ("yy", "ggf", "wn_150")}


def made_up_config() -> HaxadConfig:
    return HaxadConfig.model_validate(
        {
            "simulate": {"samples": SIZES},
            "embedding": {"samples": ["yy", "ggf"]},
            "pseudodata": {"luminosity": 10.0, "background": ["yy", "ggf"]},
            "flow": {
                "members": 3,
                "leave_out": 1,
                "layers": 2,
                "hidden": 16,
                "blocks": 1,
                "epochs": 8,
                "batch_size": 256,
                "learning_rate": 0.005,
            },
            "classifier": {"folds": 3, "ensemble": 1, "rounds": 40},
            "selection": {"working_points": [0.05]},
            "scan": {"signals": ["wn_150"], "strengths": [2.0]},
        }
    )


def made_up_tables(config: HaxadConfig) -> Tables:
    higgs = [events(3000, 20.0, f, 1.5, True, f) for f in (200_000, 300_000)]
    return prepare_tables(
        {
            "search": {
                "yy": events(20_000, 900.0, 0, 0.0, False, 1),
                "ggf": higgs[0],
                "wn_150": events(2000, 1.0, 100_000, 3.0, True, 2),
            },
            "embedding": {"ggf": higgs[1], "yy": events(20_000, 900.0, 600_000, 0.0, False, 3)},
        },
        config,
    )


@pytest.fixture(scope="module")
def config() -> HaxadConfig:
    return made_up_config()


@pytest.fixture(scope="module")
def tables(config) -> Tables:
    return made_up_tables(config)


def test_an_injected_signal_is_fitted_above_the_higgs(tables, config):
    row = search(tables, config, Trial("wn_150", 2.0, 0)).rows[0]
    assert row["fit_valid_after"]
    # Mass and width of the made-up peak; expected Higgs from the weights: 20 per fb^-1 at 10 fb^-1.
    assert row["peak_mass"] == pytest.approx(125, abs=0.15)
    assert row["peak_width"] == pytest.approx(1.6, rel=0.1)
    assert row["higgs_before"] == pytest.approx(200, rel=1e-6)
    assert 0 < row["higgs_after"] < row["higgs_before"]
    assert abs(row["fit_s_after"] - row["s_after"]) < 3 * row["fit_s_err_after"]
    assert row["fit_z_after"] > max(4, row["fit_z_before"])
    assert row["asimov_after"] > row["asimov_before"]


def test_rows_are_means_over_all_ensembles(tables, config):
    """Every ensemble judges; what each finds alone is known from the classifiers' own seeds."""
    trial, rows = Trial("wn_150", 2.0, 0), {}
    cheap = config.model_copy(update={"flow": config.flow.model_copy(update={"epochs": 2})})
    for count in (1, 3):
        classifier = config.classifier.model_copy(update={"ensembles": count, "members": 4, "rounds": 10})
        rows[count] = search(tables, cheap.model_copy(update={"classifier": classifier}), trial).rows[0]
    assert (rows[1]["ensembles"], rows[3]["ensembles"]) == (1, 3)
    assert rows[1]["fit_z_after_spread"] == rows[1]["fit_s_after_spread"] == 0
    assert rows[3]["fit_z_after"] != rows[1]["fit_z_after"]
    # The mean of three is within the spread of three of the first of them: at most 2 s / sqrt(3) away.
    for name in ("fit_z_after", "fit_s_after", "sic"):
        assert rows[3][f"{name}_spread"] > 0
        assert abs(rows[3][name] - rows[1][name]) <= 2 / 3**0.5 * rows[3][f"{name}_spread"] * (1 + 1e-9)
    assert rows[3]["fit_s_before"] == pytest.approx(rows[1]["fit_s_before"], rel=1e-12)  # no classifier enters


def test_the_mean_of_ensembles():
    made = [
        {
            "n_after": 3,
            "fit_s_after": 2.0,
            "fit_z_after": 1.0,
            "fit_valid_after": True,
            "fit_status_after": "converged",
            "sic": 1.0,
            "z_after": 1.0,
            "signal_efficiency": 0.5,
            "family": "exp",
        },
        {
            "n_after": 5,
            "fit_s_after": 6.0,
            "fit_z_after": 2.0,
            "fit_valid_after": False,
            "fit_status_after": "at limit",
            "sic": 2.0,
            "z_after": 3.0,
            "signal_efficiency": 0.7,
            "family": "exp",
        },
    ]
    row = mean_and_spread(made)
    assert (row["n_after"], row["fit_s_after"], row["fit_z_after"]) == (4, 4, 1.5)
    assert (row["fit_valid_after"], row["fit_status_after"], row["family"]) == (False, "at limit", "exp")
    assert row["fit_s_after_spread"] == pytest.approx(8**0.5)
    assert row["sic_spread"] == pytest.approx(0.5**0.5)
    assert mean_and_spread(made[:1]) == made[0] | dict.fromkeys(
        ("fit_s_after_spread", "fit_z_after_spread", "sic_spread", "z_after_spread", "signal_efficiency_spread"), 0.0
    )


def test_without_a_signal_the_yield_is_compatible_with_none(tables, config):
    rows = [search(tables, config, Trial(NO_SIGNAL, 0.0, i)).rows[0] for i in range(2)]
    study = pages.null_study([r | {"status": "ok"} for r in rows], 0.05)
    assert study["instances"] == 2
    assert abs(study["pull_mean"]) < 3.5 / 2**0.5
    assert max(r["fit_z_after"] for r in rows) < 3.5


def test_the_simplest_sufficient_family_is_chosen(tables, config):
    # The made-up continuum is exactly an exponential.
    assert choose_family(tables, config) == "exp"
    u = np.random.default_rng(3).random(60_000)
    assert choose_family(replace(tables, continuum=105 + 55 * u**2), config) != "exp"


def test_the_family_is_chosen_without_the_events_that_play_data(tables, config):
    none = tables.search["yy"].take(np.zeros(0, dtype=int))
    assert choose_family(replace(tables, search=tables.search | {"yy": none}), config) == "exp"
    with pytest.raises(UserError, match="no embedded event of yy in the embedding split"):
        choose_family(replace(tables, continuum=None), config)


def test_the_error_of_a_line_allows_for_the_background_that_injections_share():
    rng = np.random.default_rng(5)
    offsets, quoted = [], []
    for _ in range(300):
        made = [
            {
                "method": "cathode",
                "working_point": 0.05,
                "fit_valid_after": True,
                "signal": "s",
                "instance": i,
                "strength": x,
                "s_after": x,
                "fit_s_after": shared + x + rng.normal(),
                "fit_s_err_after": 5.0,
            }
            for i, shared in enumerate(rng.normal(scale=5, size=6))
            for x in (10.0, 20.0, 30.0)
        ]
        line = pages.linearity(made, 0.05)
        offsets.append(line["offset"])
        quoted.append(line["offset_error"])
    # Taking the 18 runs for independent would say 3.1; the six backgrounds vary the offset by 5 / sqrt(6) and more.
    assert np.sqrt(np.mean(np.square(quoted))) == pytest.approx(np.std(offsets), rel=0.15)


def test_linearity_of_a_constructed_line():
    made = [
        {
            "method": "cathode",
            "working_point": 0.05,
            "fit_valid_after": True,
            "signal": "s",
            "instance": 0,
            "strength": x,
            "s_after": x,
            "fit_s_after": 3 + 1.5 * x,
            "fit_s_err_after": 1.0 + x,
        }
        for x in (1.0, 2.0, 5.0)
    ]
    line = pages.linearity(made, 0.05)
    assert (line["slope"], line["offset"]) == pytest.approx((1.5, 3.0))
    assert line["chi2"] == pytest.approx(0, abs=1e-9)
