"""Flows of several pseudo-data sets in one training: what else is in it changes no bit of a flow."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch

from raypipe.config import Flow
from raypipe.errors import UserError
from raypipe.fit import flow_stack
from raypipe.fit.flow_stack import FlowStack, Sidebands, blocks_of, steps_of
from raypipe.fit.flows import ConditionalFlow, FlowSet, FlowTraining
from raypipe.fit.training import finish
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


def sets(count: int, events: int = 1000) -> list[Sidebands]:
    """Toy sidebands with widths, from which the flows draw the events anew."""
    found = []
    for seed in range(count):
        x, mass = toy(events, seed)
        found.append(Sidebands(x, mass, 10 + seed, np.stack([x, np.full_like(x, 0.2)], axis=1)))
    return found


def trained(training: FlowTraining) -> FlowTraining:
    finish(training)
    return training


def assert_same_bits(flow: ConditionalFlow, other: ConditionalFlow) -> None:
    for (name, value), twin in zip(
        flow.ensemble.state_dict().items(), other.ensemble.state_dict().values(), strict=True
    ):
        assert torch.equal(value, twin), name
    assert (flow.part == other.part).all()
    assert flow.history == other.history


@pytest.fixture(params=["one block a set", "several"])
def blocks(request, monkeypatch) -> int:
    """How many blocks the five members of a set are computed in."""
    if request.param == "several":
        monkeypatch.setattr(flow_stack, "BLOCK", 2 * CONFIG.hidden * CONFIG.batch_size)
    count = 3 if request.param == "several" else 1
    assert len(blocks_of(sets(1)[0], CONFIG, 5)) == count
    return count


def test_a_set_has_the_same_bits_alone_and_among_others(blocks):
    data = [*sets(3), *sets(1, 700)]  # the last has fewer steps an epoch
    together = trained(FlowTraining(data, WINDOW, CONFIG))
    for k, one in enumerate(data):
        alone = FlowSet(one, WINDOW, CONFIG).fit()
        assert_same_bits(together.flow(k), alone)


def test_members_trained_apart_have_the_same_bits(blocks):
    """What two workers train of two sets, put together; each tells the other its losses."""
    data = sets(2)
    every = [(k, m) for k in range(2) for m in range(5)]
    whole = trained(FlowTraining(data, WINDOW, CONFIG))
    cut = 5 if blocks == 1 else 5 + len(blocks_of(data[1], CONFIG, 5)[0])
    parts = [FlowTraining(data, WINDOW, CONFIG, members=some) for some in (every[:cut], every[cut:])]
    for part in parts:
        part.trained[:] = True
    while not parts[0].finished:
        losses = parts[0].train_epoch() + parts[1].train_epoch()
        for part in parts:
            part.finish_epoch(*losses)
    assert_same_bits(parts[0].flow(0), whole.flow(0))
    pieces = [part.piece(1) for part in parts[blocks == 1 :]]
    assert_same_bits(parts[1].flow(1, pieces), whole.flow(1))
    if blocks > 1:
        with pytest.raises(ValueError, match="some members were trained elsewhere"):
            parts[0].flow(1)


@pytest.mark.parametrize("epochs", [1, 3])
def test_a_training_that_is_saved_and_restored_goes_on_as_if_never_interrupted(blocks, epochs):
    data = sets(2)
    whole = trained(FlowTraining(data, WINDOW, CONFIG))
    first, second = (FlowTraining(data, WINDOW, CONFIG) for _ in range(2))
    for _ in range(epochs):
        first.run_epoch()
    buffer = io.BytesIO()
    torch.save(first.state(), buffer)
    buffer.seek(0)
    second.load_state(torch.load(buffer, weights_only=True))
    trained(second)
    assert second.epoch == whole.epoch > epochs
    for k in range(2):
        assert_same_bits(second.flow(k), whole.flow(k))


def test_a_set_whose_patience_is_spent_is_final():
    """The first set gets worse after the first epoch, the second better: only the second's best epoch moves on."""
    training = FlowTraining(sets(2), WINDOW, CONFIG)
    losses = torch.tensor([[3.0] * 5 + [3.0] * 5, [4.0] * 5 + [2.0] * 5, [4.0] * 5 + [1.0] * 5, [0.0] * 5 + [0.5] * 5])
    for valid in losses:
        assert not training.finished
        training.finish_epoch(torch.zeros(10), valid)
    assert training.active.tolist() == [False, True]  # the second set never tired
    assert training.best_loss.tolist() == [3.0, 0.5]  # 0.0 came after the first set's patience of two
    assert [len(history) for history in training.history] == [3, 4]
    spent = training.train_epoch()
    assert (spent[:, :5] == 0).all()  # what is final costs nothing
    assert (spent[:, 5:] > 0).all()


def test_all_members_of_a_set_keep_the_epoch_that_is_best_in_the_mean():
    training = FlowTraining(sets(1), WINDOW, CONFIG)
    kept = []
    for valid in ([3.0, 3, 3, 3, 3], [1.0, 2, 2, 2, 2], [0.0, 4, 4, 4, 4]):  # the first member alone gets better
        training.train_epoch()
        training.finish_epoch(torch.zeros(5), torch.tensor(valid))
        kept.append([{name: value.clone() for name, value in stack.best.items()} for stack in training.stacks])
    assert training.best_loss.item() == pytest.approx(1.8)
    for before, after in zip(kept[1], kept[2], strict=True):
        assert all(torch.equal(before[name], after[name]) for name in before)


def test_flows_that_diverged_are_one_line():
    training = FlowTraining(sets(1), WINDOW, CONFIG)
    training.finish_epoch(torch.zeros(5), torch.tensor([1.0, 1.0, float("nan"), 1.0, 1.0]))
    with pytest.raises(UserError, match="the background flow diverged"):
        training.flow(0)


def test_steps_follow_from_the_events_alone():
    (one,) = sets(1)
    assert steps_of(one, CONFIG, 5) == (100, 8)  # 1000 events, of which each member leaves a fifth out
    assert steps_of(one, CONFIG.model_copy(update={"batch_size": 5000}), 5) == (800, 1)
    short = Sidebands(one.latents[:500], one.masses[:500], 1)
    with pytest.raises(ValueError, match="equal numbers of steps"):
        FlowStack([one, short], [(0, 0), (1, 0)], WINDOW, CONFIG)


def test_tensors_and_arrays_make_the_same_batches():
    from bench.samples import arrays

    from raypipe.config import Embedding
    from raypipe.fit.encoder import EncoderPlan, rank_batches

    config, inputs = Embedding(samples=["yy"], batch_size=50, steps_per_epoch=2), arrays(600)
    plan = EncoderPlan.of(inputs, config, 1)
    both = [list(rank_batches(given, plan.train, range(3), config)) for given in (inputs, inputs.on("cpu"))]
    for a, b in zip(*both, strict=True):
        for name in a:
            np.testing.assert_array_equal(a[name], np.asarray(b[name]))
