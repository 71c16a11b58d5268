"""`python jobs/bench peers` compares like with like."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from bench.peers import DRAWS, context, continuum_masses, demo, sensitivity

from raypipe.fit.flows import ConditionalFlow
from raypipe.search.cathode import flow_set
from raypipe.search.contrastive import draw_case
from raypipe.search.evaluate import true_background
from raypipe.search.result import Trial
from raypipe.stats.roc import sic_curve
from raypipe.stats.sideband import fit_sidebands


@pytest.fixture(scope="module")
def drawn():
    config, tables = demo(True)
    return config, draw_case(tables, config, Trial("wn_150", 2.0, 0))


def test_the_sic_is_that_of_the_curve_and_its_replicas_scatter_around_it(drawn):
    config, case = drawn
    rng = np.random.default_rng(1)
    sizes = {"data": case.inside.sum(), "background": len(case.left), "signal": len(case.signal)}
    scores = {name: rng.random(size) ** (2 if name == "signal" else 1) for name, size in sizes.items()}
    background, weights = true_background(case, scores.__getitem__)
    signal = np.r_[scores["data"][case.data.is_signal[case.inside]], scores["signal"]]
    found = sensitivity(case, config, scores.__getitem__)
    efficiencies = np.array(config.selection.working_points)
    assert [value for value, _ in found] == pytest.approx(sic_curve(signal, background, weights, efficiencies)[1])
    for value, replicas in found:
        assert replicas.mean() == pytest.approx(value, abs=4 * replicas.std() / np.sqrt(len(replicas)))


def test_the_script_expects_as_many_events_as_our_fit_and_draws_them_in_the_signal_region(drawn):
    config, case = drawn
    masses = case.data.events.mass
    found = continuum_masses(masses[case.side], config, np.random.default_rng(1))
    expected, error = fit_sidebands(masses, config.window, config.massfit).integral(120, 130)
    assert len(found) / DRAWS == pytest.approx(expected, abs=error)  # bins of few events: by least squares
    assert config.window.inside(found).all()


def test_zuko_sees_the_mass_as_our_flows_do(drawn):
    config, case = drawn
    learnt = flow_set(case, config, 1)
    flow = ConditionalFlow(None, {}, np.zeros(6), np.ones(6), *learnt.window)
    assert torch.equal(
        context(config, learnt.sidebands.masses), torch.from_numpy(flow._context(learnt.sidebands.masses)).float()
    )
