"""Flows of several pseudo-data sets as one stack: what is in it changes no flow."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from raypipe.config import Flow
from raypipe.fit.flow_training import FlowTraining, Sidebands, steps_of
from raypipe.fit.flows import fit_flows
from tests.fit.test_flows import WINDOW, toy

CONFIG = Flow(
    members=5,
    leave_out=1,
    layers=2,
    hidden=8,
    blocks=1,
    bins=4,
    epochs=4,
    patience=2,
    batch_size=100,
    learning_rate=5e-3,
    mixing="rotate",
)


def sets(count: int) -> list[Sidebands]:
    return [Sidebands(*toy(1000, seed), seed=10 + seed) for seed in range(count)]


def trained(training: FlowTraining) -> FlowTraining:
    while not training.finished:
        training.finish_epoch(training.train_epoch())
    return training


def test_the_flows_of_a_set_are_the_same_alone_and_in_a_stack():
    data = sets(3)
    together = trained(FlowTraining(data, WINDOW, CONFIG)).flows()
    for one, flow in zip(data, together, strict=True):
        alone = fit_flows(one.latents, one.masses, WINDOW, CONFIG, seed=one.seed)
        at, mass = toy(100, 99)
        assert flow.log_prob(at, mass) == pytest.approx(alone.log_prob(at, mass), abs=1e-5)
        assert (flow.part == alone.part).all()
        assert flow.history[0]["validation"] == pytest.approx(alone.history[0]["validation"], abs=1e-5)


def test_some_members_are_the_same_as_among_all():
    data = sets(2)
    every = trained(FlowTraining(data, WINDOW, CONFIG))
    some = trained(FlowTraining(data, WINDOW, CONFIG, members=[(0, 3), (1, 0)]))
    assert some.best_loss.tolist() == pytest.approx(every.best_loss[[3, 5]].tolist(), abs=1e-5)
    with pytest.raises(ValueError, match="some members were trained elsewhere"):
        some.flows()


def test_a_set_whose_patience_is_spent_is_final(monkeypatch):
    """The first set gets worse after the first epoch, the second better: only the second's best epoch moves on."""
    training = FlowTraining(sets(2), WINDOW, CONFIG)
    losses = iter(
        torch.tensor([[3.0] * 5 + [3.0] * 5, [4.0] * 5 + [2.0] * 5, [4.0] * 5 + [1.0] * 5, [0.0] * 5 + [0.5] * 5])
    )
    monkeypatch.setattr("raypipe.fit.flow_training._evaluate", lambda *_: next(losses))
    while not training.finished:
        training.finish_epoch(torch.zeros(10))
    assert training.epoch == 4  # the second set never tired
    assert training.best_loss.tolist() == [3.0] * 5 + [0.5] * 5  # 0.0 came after the first set's patience of two


def test_steps_follow_from_the_events_alone():
    (one,) = sets(1)
    assert steps_of(one, CONFIG, 5) == (100, 8)  # 1000 events, of which each member leaves a fifth out
    assert steps_of(one, CONFIG.model_copy(update={"batch_size": 5000}), 5) == (800, 1)
    short = Sidebands(one.latents[:500], one.masses[:500], 1)
    with pytest.raises(ValueError, match="equal numbers of steps"):
        FlowTraining([one, short], WINDOW, CONFIG)


def test_tensors_and_arrays_make_the_same_batches():
    from raypipe.bench.samples import arrays
    from raypipe.config import Embedding
    from raypipe.fit.encoder import EncoderPlan, rank_batches

    config, inputs = Embedding(samples=["yy"], batch_size=50, steps_per_epoch=2), arrays(600)
    plan = EncoderPlan.of(inputs, config, 1)
    both = [list(rank_batches(given, plan.train, range(3), config)) for given in (inputs, inputs.on("cpu"))]
    for a, b in zip(*both, strict=True):
        for name in a:
            np.testing.assert_array_equal(a[name], np.asarray(b[name]))
