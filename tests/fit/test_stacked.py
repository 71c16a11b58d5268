"""Stacked training: equal to one network at a time, independent of the stacking, and right about a likelihood ratio."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from bench.ensemble import train_one

from raypipe.config.multilepton import Networks
from raypipe.errors import UserError
from raypipe.fit.stacked import LabelledSample, Network, ensemble_scores, network_order, train_stack

SMALL = Networks(hidden=[20, 20], epochs=3, batch_size=16)


def sample(seed: int, data: int, reference: int, shift: float = 0.0, weight: float = 1.0) -> LabelledSample:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(data + reference, 2))
    x[:data, 0] += shift
    is_data = np.arange(data + reference) < data
    return LabelledSample(x, is_data, np.where(is_data, 1.0, weight))


@pytest.mark.parametrize("loss", ["bce", "mlc"])
def test_stack_equals_one_by_one(loss):
    # Different numbers of events: the stack gets shorter on its way, and last batches are not full.
    samples = [sample(1, 83, 70, 0.5), sample(2, 120, 121, 0.0, 0.7), sample(3, 64, 64)]
    networks = [Network(i % 3, ("n", i)) for i in range(7)]
    stack = train_stack(samples, networks, SMALL, loss, 5, dtype=torch.float64)
    for i, network in enumerate(networks):
        alone = train_one(samples[network.sample], network.key, SMALL, loss, 5, dtype=torch.float64)
        for ours, theirs in zip(stack.weights, alone.weights, strict=True):
            torch.testing.assert_close(ours[i], theirs[0], atol=1e-5, rtol=0)


def test_the_paper_s_network_equals_one_by_one_after_20_epochs():
    config = Networks()
    given = sample(4, 300, 300, 0.4)
    stack = train_stack([given], [Network(0, ("n", i)) for i in range(2)], config, "mlc", 1, dtype=torch.float64)
    alone = train_one(given, ("n", 1), config, "mlc", 1, dtype=torch.float64)
    worst = max(float((a[1] - b[0]).abs().max()) for a, b in zip(stack.weights, alone.weights, strict=True))
    assert worst < 1e-5


def test_stacking_changes_nothing():
    samples = [sample(i, 90 + 7 * i, 100) for i in range(3)]
    networks = [Network(i % 3, ("n", i)) for i in range(9)]
    whole = train_stack(samples, networks, SMALL, "mlc", 1, stack=9)
    split = train_stack(samples, networks, SMALL, "mlc", 1, stack=2)
    shuffled = train_stack(samples, networks[::-1], SMALL, "mlc", 1, stack=4)
    for a, b, c in zip(whole.weights, split.weights, shuffled.weights, strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=0)
        torch.testing.assert_close(a, c.flip(0), atol=2e-5, rtol=0)
    assert not torch.equal(whole.weights[1][0], whole.weights[1][3])  # same sample, different streams


def test_every_epoch_sees_every_event_once():
    rows = network_order(37, SMALL, 1, ("n", 0))
    assert rows.shape == (3 * 3, 16)
    for epoch in rows.reshape(3, -1):
        assert sorted(epoch[epoch >= 0]) == list(range(37))
    assert not np.array_equal(rows[0], rows[3])


@pytest.mark.parametrize("loss", ["bce", "mlc"])
def test_two_gaussians_of_known_likelihood_ratio(loss):
    # N(0.8, 1) against N(0, 1), twice as much data: ln(n_d p_d / n_r p_r) = ln 2 + 0.8 x - 0.32.
    config = Networks(epochs=6, members=8)
    rng = np.random.default_rng(3)
    x = np.r_[rng.normal(0.8, 1, 8000), rng.normal(0, 1, 8000)][:, None]
    is_data = np.arange(16000) < 8000
    given = LabelledSample(x, is_data, np.where(is_data, 1.0, 0.5))
    stack = train_stack([given], [Network(0, ("n", i)) for i in range(8)], config, loss, 1)
    grid = np.linspace(-1.2, 2, 17)[:, None]
    score = ensemble_scores(stack, grid, loss)
    found = np.log(score / (1 - score)) if loss == "bce" else score
    truth = np.log(2) + 0.8 * grid[:, 0] - 0.32
    # Statistical error of the slope and intercept from 16k events is below 0.02; networks add a little.
    np.testing.assert_allclose(found, truth, atol=0.17)
    assert np.abs(found - truth).mean() < 0.07


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"features": np.zeros((5, 2)), "is_data": np.arange(5) < 2, "weights": np.ones(5)}, "fewer than one batch"),
        ({"weights": np.zeros(40)}, "all data weights are zero"),
        ({"weights": np.r_[np.ones(20), np.zeros(20)]}, "all reference weights are zero"),
        ({"weights": np.r_[np.nan, np.ones(39)]}, "row 0: weight nan"),
        ({"features": np.r_[[[0.0, np.nan]], np.zeros((39, 2))]}, "row 0, feature number 1 is nan"),
        ({"is_data": np.zeros(40, dtype=bool)}, "the data have no events"),
    ],
)
def test_bad_samples_are_one_line(change, words):
    base = {"features": np.zeros((40, 2)), "is_data": np.arange(40) < 20, "weights": np.ones(40)}
    with pytest.raises(UserError, match=words) as error:
        LabelledSample(**(base | change)).check("data set x", 16)
    assert "\n" not in str(error.value)


def test_a_learning_rate_that_explodes_is_named():
    with pytest.raises(UserError, match="learning_rate"):
        train_stack(
            [sample(1, 64, 64)],
            [Network(0, ("n", 0))],
            SMALL.model_copy(update={"learning_rate": 1e4, "epochs": 5}),
            "mlc",
            1,
        )
