"""The whole search on made-up latents where the answer is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from raypipe.config import load_config
from raypipe.errors import UserError
from raypipe.events.latents import Events
from raypipe.fit.encoder import drawn
from raypipe.search.case import Tables
from raypipe.search.cathode import background_flow
from raypipe.search.contrastive import draw_case, search
from raypipe.search.diphoton import prepare_tables, trial_grid
from raypipe.search.result import ALONE, NO_SIGNAL, Trial
from tests.conftest import ROOT

OVERRIDES = [
    "pseudodata.luminosity=10",
    "pseudodata.background=[yy, ggf]",
    "scan.signals=[wn_150]",
    "flow.members=3",
    "flow.leave_out=1",
    "flow.layers=2",
    "flow.hidden=16",
    "flow.blocks=1",
    "flow.epochs=10",
    "flow.batch_size=256",
    "flow.learning_rate=0.005",
    "classifier.folds=3",
    "classifier.ensemble=1",
    "classifier.rounds=60",
    "selection.working_points=[0.02, 0.1]",
]


def events(n: int, total: float, first: int, mean: float, resonant: bool, seed: int) -> Events:
    """Two Gaussian latents around ``mean``; the first of the continuum drifts with the mass."""
    rng = np.random.default_rng(seed)
    u = rng.random(n)
    mass = rng.normal(125, 1.6, n) if resonant else 105 - 40 * np.log(1 - u * (1 - np.exp(-55 / 40)))
    drift = 0 if resonant else 0.01 * (mass - 130)
    latent = rng.normal(0, 1, (n, 2)) + np.stack([mean + drift + np.zeros(n), np.full(n, mean)], 1)
    z = latent.astype("f4")
    weight, point = np.full(n, total / n), np.stack([z, 0 * z], axis=1)
    return Events(np.arange(first, first + n), mass, weight, z, np.zeros((n, 9), "f4"), point)


@pytest.fixture(scope="module")
def config():
    return load_config(ROOT / "configs/contrastive/laptop.yaml", OVERRIDES)


def made_up_latents() -> dict[str, dict[str, Events]]:
    higgs = [events(2000, 20.0, f, 1.5, True, f) for f in (200_000, 300_000)]
    return {
        "search": {
            "yy": events(20_000, 900.0, 0, 0.0, False, 1),
            "ggf": higgs[0],
            "wn_150": events(2000, 1.0, 100_000, 3.0, True, 2),
        },
        "embedding": {"ggf": higgs[1]},
    }


@pytest.fixture(scope="module")
def latents():
    return made_up_latents()


@pytest.fixture(scope="module")
def tables(latents, config) -> Tables:
    return prepare_tables(latents, config)


@pytest.fixture(scope="module")
def signal_rows(tables, config):
    return search(tables, config, Trial("wn_150", 2.0, 0)).rows


def best_sic(background_efficiency: float, background: float) -> float:
    """SIC of the best cut: along the diagonal continuum, Higgs and signal are unit Gaussians at these means."""
    continuum, higgs, signal = (norm(mean * np.sqrt(2)) for mean in (0.0, 1.5, 3.0))
    share = 10 * 20.0 / background  # 20 Higgs events per fb^-1, all in the signal region
    cut = brentq(lambda t: (1 - share) * continuum.sf(t) + share * higgs.sf(t) - background_efficiency, -5, 9)
    return signal.sf(cut) / np.sqrt(background_efficiency)


def test_higgs_template_is_independent_and_keeps_its_yield(latents, tables):
    higgs = tables.higgs["ggf"]
    assert higgs.weight.sum() == pytest.approx(20.0)
    assert not set(higgs.event_id) & set(latents["search"]["ggf"].event_id)
    assert len(higgs) == pytest.approx(0.2 * 2000, rel=0.2)  # the test part alone


def test_an_injected_signal_becomes_significant(signal_rows):
    row = signal_rows[0]
    assert 0.8 < row["sic"] / best_sic(row["background_efficiency"], row["b_expected_sr"]) < 1.1
    assert row["z_after"] > 2 * row["z_before"]
    assert row["z_after"] > 4
    assert row["truth_after"] > 2 * row["truth_before"]
    assert row["b_after"] + row["s_after"] == row["n_after"]
    assert row["b_before"] + row["s_before"] == row["n_before"]
    assert row["background_efficiency"] == pytest.approx(0.02, abs=0.008)


def test_without_a_signal_nothing_appears(tables, config):
    z = [search(tables, config, Trial(NO_SIGNAL, 0.0, i)).rows for i in range(5)]
    for point in (0, 1):
        values = [rows[point]["z_after"] for rows in z]
        assert np.mean(values) == pytest.approx(0, abs=3.5 / np.sqrt(5))
    assert np.mean([rows[0]["closure_auc"] for rows in z]) == pytest.approx(0.5, abs=0.03)
    assert all(np.isnan(rows[0]["sic"]) for rows in z)


def test_without_its_simulation_the_higgs_itself_is_the_anomaly(latents, tables, config):
    blind = config.model_copy(update={"selection": config.selection.model_copy(update={"include_higgs": False})})
    trial = Trial(NO_SIGNAL, 0.0, 0)
    with_higgs = search(tables, config, trial).rows[0]
    without = search(prepare_tables(latents, blind), blind, trial).rows[0]
    assert without["z_after"] > with_higgs["z_after"] + 3


def test_same_trial_same_bits(tables, config, signal_rows):
    again = search(tables, config, Trial("wn_150", 2.0, 0)).rows

    def physics(rows):
        return [{k: v for k, v in row.items() if not k.startswith("seconds")} for row in rows]

    assert repr(physics(again)) == repr(physics(signal_rows))  # NaN is not equal to itself


def test_raw_features_keep_their_axes_and_their_mass(tables, config):
    """What serves a latent space whose axes mean nothing, and that does not know the mass, is undone for them."""
    latent = ["classifier.rotate=true", "flow.mixing=rotate", "flow.mass_scale=0.1"]
    plain = ["classifier.rotate=false", "flow.mixing=reverse", "flow.mass_scale=1"]
    rows = []
    for settings, embedding in ((latent, "raw"), (plain, "id"), (latent, "id")):
        given = load_config(ROOT / "configs/contrastive/laptop.yaml", [*OVERRIDES, *settings])
        rows.append(search(tables, given, Trial("wn_150", 2.0, 0, embedding)).rows[0])
    raw, axes, turned = ((row["n_after"], row["kappa"], row["expected_after"], row["sic"]) for row in rows)
    assert raw == axes
    assert raw != turned


def test_template_and_data_errors_are_told(latents, config):
    missing = {"search": {"yy": latents["search"]["yy"]}, "embedding": latents["embedding"]}
    with pytest.raises(UserError, match=r"'ggf' has no embedded search events \(embedded: yy\)"):
        prepare_tables(missing, config)
    inside = latents["search"]["yy"].take(np.abs(latents["search"]["yy"].mass - 125) < 5)
    empty = {"search": latents["search"] | {"yy": inside}, "embedding": latents["embedding"]}
    with pytest.raises(UserError, match="sideband 105-120 GeV is empty"):
        search(prepare_tables(empty, config), config, Trial(NO_SIGNAL, 0.0, 0))


def test_grid_and_keys():
    grid = trial_grid(["a", "b"], [1.0, 2.0], 3, 4)
    assert len(grid) == 2 * 2 * 3 + 4
    keys = {t.key({"x": 1}) for t in grid}
    assert len(keys) == len(grid)
    assert Trial("a", 1.0, 0).key({"x": 1}) == Trial("a", 1.0, 0).key({"x": 1})
    assert Trial("a", 1.0, 0).key({"x": 2}) not in keys
    # An input that is called as a part of the trial is (the section `embedding`) must not hide it.
    assert Trial("a", 1.0, 0, "id").key({"embedding": 1}) != Trial("a", 1.0, 0, "raw").key({"embedding": 1})


def test_flows_redraw_what_has_a_width(tables, config):
    """With `flow.redraw` the flows learn the posteriors: points leave them as they are, widths change them."""
    data = draw_case(tables, config, Trial(NO_SIGNAL, 0.0, 0))
    wide = data.data.events.posterior.copy()
    wide[:, 1] = 1.0
    wider = replace(data, data=replace(data.data, events=replace(data.data.events, posterior=wide)))
    density = {}
    for case, name in ((data, "points"), (wider, "widths")):
        for redraw in (True, False):
            given = config.model_copy(update={"flow": config.flow.model_copy(update={"redraw": redraw})})
            flow = background_flow(case, given, 5, ALONE)[0]
            density[name, redraw] = flow.sample(np.full(2000, 110.0), np.random.default_rng(1)).std(0)
    assert density["points", True] == pytest.approx(density["points", False], rel=0.02)
    assert density["widths", False] == pytest.approx(density["points", False], rel=1e-6)
    assert (density["widths", True] > 1.2 * density["points", True]).all()  # unit Gaussians become sqrt(2) wide


def test_latents_are_drawn_from_their_posteriors():
    posterior = np.array([[[1.0, -2.0], [0.5, 3.0]]], np.float32)
    latent, kept = drawn(posterior, np.array([[2.0, -1.0]]))
    assert latent.tolist() == [[2.0, -5.0]]
    assert (kept == posterior).all()
    latent, kept = drawn(posterior, None)
    assert latent.tolist() == [[1.0, -2.0]]
    assert kept.tolist() == [[[1.0, -2.0], [0.0, 0.0]]]
