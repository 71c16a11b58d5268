"""Pseudo-nulls of the search on made-up latents: they look like its data, and nothing is found in them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from raypipe.config import load_config
from raypipe.report.calibrated import calibration_record
from raypipe.search.cathode import background_flow
from raypipe.search.contrastive import draw_case, search, trial_seed
from raypipe.search.diphoton import prepare_tables
from raypipe.search.haxad import null_hunted
from raypipe.search.nulls import drawn_null, search_null
from raypipe.search.result import ALONE, NO_SIGNAL, RETRAINED, SIMULATED, Null, Tools, Trial
from tests.conftest import ROOT
from tests.search.test_contrastive import OVERRIDES, made_up_latents
from tests.test_golden import cathode_tables, haxad_config

NULLS = 24


@pytest.fixture(scope="module")
def config():
    return load_config(ROOT / "configs/contrastive/laptop.yaml", OVERRIDES)


@pytest.fixture(scope="module")
def tables(config):
    return prepare_tables(made_up_latents(), config)


@pytest.fixture(scope="module")
def tools():
    """The flows of the trial are trained once."""
    kept = {}

    def stage(kind, key, make):
        if key not in kept:
            kept[key] = make()
        return kept[key]

    return Tools(stage=stage)


@pytest.fixture(scope="module")
def rows(tables, config, tools):
    return [search_null([tables], config, Null(NO_SIGNAL, 0.0, 0, number=k), tools).rows for k in range(NULLS)]


def test_a_null_looks_like_the_data_it_is_made_from(tables, config, tools):
    trial = Null(NO_SIGNAL, 0.0, 0)
    case = draw_case(tables, config, trial)
    flow = background_flow(case, config, trial_seed(config, trial), tools)[0]
    null = drawn_null(tables, case, flow, config, 7)
    real, made = case.data.events, null.data.events
    assert len(made) == pytest.approx(len(real), abs=5 * np.sqrt(2 * len(real)))
    assert stats.ks_2samp(real.mass, made.mass).pvalue > 1e-3
    for axis in (0, 1):
        assert made.latent[:, axis].mean() == pytest.approx(real.latent[:, axis].mean(), abs=0.1)
        assert made.latent[:, axis].std() == pytest.approx(real.latent[:, axis].std(), rel=0.1)
    higgs = made.event_id >= 0
    assert higgs.sum() == pytest.approx(200, abs=5 * np.sqrt(200))
    assert set(made.event_id[higgs]) <= set(tables.search["ggf"].event_id)
    assert not null.data.is_signal.any()
    blind = drawn_null(tables, replace(case, higgs={}), flow, config, 7)
    assert (blind.data.events.event_id < 0).all()


def test_nothing_is_found_in_nulls(rows):
    for at in (0, 1):
        z = np.array([of[at]["z_after"] for of in rows])
        assert z.mean() == pytest.approx(0, abs=4 / np.sqrt(NULLS))
        assert 0.6 < z.std(ddof=1) < 1.5
    assert {of[0]["number"] for of in rows} == set(range(NULLS))
    assert all("b_after" not in row for of in rows for row in of)  # there is no truth to look at


def test_nothing_is_found_in_all_bins_of_nulls(rows):
    """Half of the significances are nought, as q0 says of a yield that cannot be negative (1007.1727, equation 48)."""
    z = np.array([of[0]["z_likelihood"] for of in rows if not of[0]["verdict"]])
    assert len(z) > NULLS / 2
    assert stats.binomtest(int((z < 0.01).sum()), len(z), 0.5).pvalue > 1e-3
    assert z.max() < 4
    plain = [row | {"embedding": "id", "kind": "drawn"} for of in rows for row in of]
    (told,) = calibration_record(plain, {"id": "key"})["likelihood"]
    assert (told["nulls"], told["above_1"]) == (len(z), np.mean(z > 1))
    assert told["tails"][0]["count"] == (z >= stats.norm.isf(0.1)).sum()


def test_shares_of_made_up_nulls():
    """Two are nought, two above one sigma, one of these above two; one is withheld at one of the cuts, one at both."""
    told = {0: 0.0, 1: 1e-4, 2: 0.5, 3: 1.5, 4: 2.5, 5: np.nan}
    plain = [
        {"embedding": "id", "kind": "drawn", "number": k, "working_point": point, "z_after": 0.0}
        | {"z_likelihood": np.nan if (k, point) == (4, 0.01) else z}
        for k, z in told.items()
        for point in (0.01, 0.002)
    ]
    (found,) = calibration_record(plain, {"id": "key"})["likelihood"]
    assert (found["nulls"], found["zero"], found["above_1"], found["above_2"]) == (5, 0.4, 0.4, 0.2)


def test_the_same_null_has_the_same_numbers(rows, tables, config, tools):
    again = search_null([tables], config, Null(NO_SIGNAL, 0.0, 0, number=3), tools).rows
    timeless = [[{k: v for k, v in row.items() if k != "seconds"} for row in of] for of in (again, rows[3])]
    assert repr(timeless[0]) == repr(timeless[1])
    assert rows[3][0]["n_before"] != rows[4][0]["n_before"]


def test_flows_may_learn_the_null_itself(rows, tables, config):
    own = search_null([tables], config, Null(NO_SIGNAL, 0.0, 0, number=3, kind=RETRAINED), ALONE).rows[0]
    assert own["n_before"] == rows[3][0]["n_before"]  # the same data
    assert own["expected_after"] != rows[3][0]["expected_after"]
    assert abs(own["z_after"]) < 5


def test_encoders_take_turns(tables, config, tools):
    own, other = (
        search_null([tables, tables], config, Null(NO_SIGNAL, 0.0, 0, number=k), tools).rows[0] for k in (2, 3)
    )
    assert (own["encoder"], other["encoder"]) == (0, 1)
    assert Null(NO_SIGNAL, 0.0, 0, number=2).label() == "drawn null 2 of no signal, instance 0"


def test_a_simulated_null_is_the_data_of_the_trial(tables, config, tools):
    """Its z is that of the same pseudo-data and flows in a trial."""
    null = search_null([tables], config, Null(NO_SIGNAL, 0.0, 0, number=0, kind=SIMULATED), tools).rows
    trial = search(tables, config, Trial(NO_SIGNAL, 0.0, 0), tools).rows
    for mine, other in zip(null, trial, strict=True):
        assert mine["n_after"] == other["n_after"]
        assert mine["z_after"] == pytest.approx(other["z_after"], abs=1e-12)


def test_nulls_of_paper_a_are_fitted(tools):
    config = haxad_config()
    trial = Null(NO_SIGNAL, 0.0, 0, number=1)
    row = search_null([cathode_tables(config)], config, trial, tools, null_hunted).rows[0]
    assert row["fit_z_after"] == pytest.approx(np.sqrt(row["fit_q0_after"]))
    assert abs(row["fit_s_after"]) < 4 * row["fit_s_err_after"]
    assert "b_after" not in row
    assert {"family", "fit_s_before", "higgs_after"} <= set(row)
