"""The comparisons beside the search, on made-up latents where the best possible answer is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from raypipe.config import load_config
from raypipe.errors import UserError
from raypipe.search.case import Tables
from raypipe.search.cathode import background_flow, build_template
from raypipe.search.contrastive import draw_case, search
from raypipe.search.counting import sideband_calibration
from raypipe.search.diphoton import prepare_tables, trial_grid
from raypipe.search.evaluate import evaluate
from raypipe.search.result import NO_SIGNAL, Tools, Trial
from raypipe.search.truth import supervised
from raypipe.stats.sideband import fit_sidebands
from tests.conftest import ROOT
from tests.search.test_contrastive import OVERRIDES, best_sic, events

MORE = ["classifier.members=4", "classifier.ensemble=2", "classifier.ensembles=3", "classifier.rounds=40"]


@pytest.fixture(scope="module")
def config():
    return load_config(ROOT / "configs/contrastive/laptop.yaml", [*OVERRIDES, *MORE])


@pytest.fixture(scope="module")
def tables(config) -> Tables:
    def with_feature(table):
        # One of the nine features is the optimal variable, so that the best cut has a closed form.
        features = np.zeros((len(table), 9), np.float32)
        features[:, 6] = table.latent.sum(1)
        return replace(table, features=features)

    higgs = [with_feature(events(2000, 20.0, f, 1.5, True, f)) for f in (200_000, 300_000)]
    search_split = {
        "yy": with_feature(events(40_000, 900.0, 0, 0.0, False, 1)),
        "ggf": higgs[0],
        "wn_150": with_feature(events(2000, 1.0, 100_000, 3.0, True, 2)),
    }
    return prepare_tables({"search": search_split, "embedding": {"ggf": higgs[1]}}, config)


@pytest.mark.parametrize(("method", "least"), [("idealised", 0.8), ("supervised", 0.9), ("cut", 0.95)])
def test_sic_against_the_closed_form(tables, config, method, least):
    row = search(tables, config, Trial("wn_150", 2.0, 0, "id", method)).rows[0]
    assert least < row["sic"] / best_sic(row["background_efficiency"], row["b_expected_sr"]) < 1.1
    assert row["background_efficiency"] == pytest.approx(0.02, abs=0.003)
    assert row["ensembles"] == (1 if method == "cut" else 3)
    assert (row["sic_spread"] > 0) == (method != "cut")


def test_halves_of_the_simulated_events_differ_by_the_quoted_error(tables, config):
    """`supervised` judged on one half of the events and on the other: they differ by the errors that both quote."""
    given = config.model_copy(update={"pseudodata": config.pseudodata.model_copy(update={"luminosity": 1.0})})
    case = draw_case(tables, given, Trial("wn_150", 0.5, 0))
    judged = supervised(case, given, 1, Tools())
    scores, rng, differences, quoted = judged.scores[0], np.random.default_rng(2), [], []
    for _ in range(30):
        masks = {name: rng.random(len(scores.of(name))) < 0.5 for name in ("background", "signal")}
        rows = []
        for side in (masks, {name: ~mask for name, mask in masks.items()}):
            others = {name: scores.of(name)[mask] for name, mask in side.items()}
            better = {name: scores.above(name)[mask] for name, mask in side.items()}
            half = replace(scores, others=scores.others | others, better=scores.better | better)
            left = {"left": case.left.take(side["background"]), "left_weight": case.left_weight[side["background"]]}
            less = replace(case, signal=case.signal.take(side["signal"]), **left)
            rows.append(evaluate(less, half, judged.template, 0.02, given))
        differences.append(rows[0]["sic"] - rows[1]["sic"])
        quoted += [np.std(row["sic_replicas"], ddof=1) for row in rows]
    assert np.sqrt(np.mean(np.square(differences)) / 2) == pytest.approx(np.mean(quoted), rel=0.3)  # of 30: 13 %


def test_idealised_background_leaves_no_false_signal(tables, config):
    z = [search(tables, config, Trial(NO_SIGNAL, 0.0, i, "id", "idealised")).rows[0]["z_after"] for i in range(6)]
    assert np.mean(z) == pytest.approx(0, abs=3.5 / np.sqrt(6))


def test_two_encoders_are_pooled(tables, config):
    """Two views of the same events: the rows are the mean over both, the pseudo-data the same."""
    mirrored = Tables(
        {k: replace(e, latent=-e.latent) for k, e in tables.search.items()},
        {k: replace(e, latent=-e.latent) for k, e in tables.higgs.items()},
    )
    trial = Trial("wn_150", 2.0, 0, "id", "idealised")
    one = search(tables, config, trial).rows[0]
    both = search([tables, mirrored], config, trial).rows[0]
    assert both["encoders"] == 2
    assert both["ensembles"] == 6
    assert (both["n_before"], both["s_before"]) == (one["n_before"], one["s_before"])
    assert both["sic"] == pytest.approx(one["sic"], rel=0.1)


def test_disjoint_instances_are_counted_before_any_trial(tables, config):
    more = {"disjoint": True, "luminosity": 4.0}
    given = config.model_copy(update={"pseudodata": config.pseudodata.model_copy(update=more)})
    many = given.model_copy(update={"scan": given.scan.model_copy(update={"background_instances": 30})})
    latents = {"search": tables.search, "embedding": tables.higgs}
    with pytest.raises(UserError, match=r"^pseudodata.disjoint: 30 instances are asked for and \d+ of 4 fb\^-1 fit"):
        prepare_tables(latents, many)
    rows = [search(tables, given, Trial(NO_SIGNAL, 0.0, i, "id", "idealised")).rows[0] for i in range(2)]
    assert [row["instance_overlap"] for row in rows] == [0, 0]


def test_what_needs_a_signal_says_so(tables, config):
    for method in ("supervised", "cut"):
        with pytest.raises(UserError, match="need a signal"):
            search(tables, config, Trial(NO_SIGNAL, 0.0, 0, "id", method))
    grid = trial_grid(["a"], [1.0], 2, 3, ["id", "ip"], ["cathode", "cut"])
    assert {(t.embedding, t.method) for t in grid if t.signal == NO_SIGNAL} == {("id", "cathode")}
    assert len(grid) == 3 + 2 * 2 * 2


def test_latents_that_are_not_finite_are_named(tables, config):
    latent = tables.search["yy"].latent.copy()
    latent[:, 0] = np.nan
    broken = Tables(tables.search | {"yy": replace(tables.search["yy"], latent=latent)}, tables.higgs)
    with pytest.raises(UserError, match=r"latent of event \d+ is not finite"):
        search(broken, config, Trial(NO_SIGNAL, 0.0, 0))


def test_injections_share_flows_and_keep_their_own_data(tables, config):
    """Sharing leaves out an injection's tail in the sidebands and nothing else; not sharing trains one flow a trial."""
    trials = [Trial(NO_SIGNAL, 0.0, 0), Trial("wn_150", 2.0, 0), Trial("wn_150", 4.0, 0, "id", "no_higgs")]
    rows, flows = {}, {}
    for share in (True, False):
        given = config.model_copy(update={"flow": config.flow.model_copy(update={"share": share})})
        flows[share] = {}

        def stage(kind, key, make, kept=flows[share]):
            if key not in kept:
                kept[key] = make()
            return kept[key]

        rows[share] = [search(tables, given, trial, Tools(stage=stage)).rows[0] for trial in trials]
    assert [len(flows[share]) for share in (True, False)] == [1, 3]
    for shared, own in zip(rows[True], rows[False], strict=True):
        assert (shared["n_before"], shared["z_before"]) == (own["n_before"], own["z_before"])
    assert rows[True][1]["sic"] == pytest.approx(rows[False][1]["sic"], rel=0.15)


@pytest.mark.parametrize(("judged", "draws"), [(4.0, 1), (20.0, 10)])
def test_what_a_template_draws_for_itself_is_the_error_it_quotes(tables, config, judged, draws):
    """Drawn again from the same flows, the events that pass a cut vary by their number, which the errors know."""
    flow = config.flow.model_copy(update={"judged": judged, "sideband_draws": draws, "epochs": 2})
    data = config.pseudodata.model_copy(update={"luminosity": 3.0})
    given = config.model_copy(update={"flow": flow, "pseudodata": data})
    case, config = draw_case(tables, given, Trial(NO_SIGNAL, 0.0, 0)), given
    fit, side = fit_sidebands(case.data.events.mass, config.window, config.massfit), case.data.events.mass[case.side]
    flow, fold, _ = background_flow(case, config, 1, Tools())
    kappa, after, folds_less = [], [], config.classifier.folds - 1
    for seed in range(40):
        template = build_template(flow, fit, side, fold, case.higgs, config, seed)
        homes = template.homes
        assert len(template.sideband) == draws * len(side) == len(homes["sideband_template"])
        assert (homes["sideband_template"].reshape(-1, draws) == fold[:, None]).all()  # which flows made each, no other
        assert template.weight[~template.is_higgs].sum() == pytest.approx(template.continuum)
        assert sum(w.sum() for _, w in template.training) == pytest.approx(folds_less * template.weight.sum(), rel=0.05)
        passed = (template.latent.sum(1) > 2.5) & ~template.is_higgs  # of which there is one simulation
        beside = template.sideband.sum(1) > 2.5
        kappa.append((*sideband_calibration(case.data.events.latent[case.side].sum(1) > 2.5, beside), beside.sum()))
        after.append((template.weight[passed].sum(), np.sqrt((template.weight[passed] ** 2).sum())))
    kappa, after = np.array(kappa), np.array(after)
    data = (case.data.events.latent[case.side].sum(1) > 2.5).sum() + 1
    of_draws = np.sqrt(kappa[:, 1] ** 2 - kappa[:, 0] ** 2 * (1 / data - 1 / len(side)))
    assert kappa[:, 0].std() == pytest.approx(of_draws.mean(), rel=0.35)  # of 40: 11 %
    assert kappa[:, 2].mean() == pytest.approx(draws * data / kappa[:, 0].mean(), rel=0.05)
    assert after[:, 0].std() == pytest.approx(after[:, 1].mean(), rel=0.35)


def test_without_higgs_in_the_template_the_higgs_is_the_anomaly(tables, config):
    trial = Trial(NO_SIGNAL, 0.0, 0)
    with_higgs = search(tables, config, trial).rows[0]
    without = search(tables, config, replace(trial, method="no_higgs")).rows[0]
    assert without["expected_before"] == pytest.approx(with_higgs["expected_before"] - 200, abs=5)
    assert without["z_after"] > with_higgs["z_after"] + 3
