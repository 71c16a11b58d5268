"""Confusion matrices where the right answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from raypipe.config import Embedding, Encoder
from raypipe.errors import UserError
from raypipe.fit.encoder import EncoderInputs
from raypipe.search.confusion import balanced, confusion_of, supervised_confusion, tree_confusion
from tests.events.helpers import event_table


def test_rows_are_shares_of_the_true_group():
    confusion = confusion_of((0, 1), np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]))
    np.testing.assert_allclose(confusion.matrix, [[2 / 3, 1 / 3], [0, 1]])
    assert confusion.diagonal == pytest.approx((2 / 3 + 1) / 2)
    with pytest.raises(UserError, match="group 7 has no test event"):
        confusion_of((0, 7), np.array([0]), np.array([0]))


def test_trees_reach_the_optimum_of_three_gaussians():
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 1, -3], 6000)
    values = rng.normal(0, 1, (18000, 2)) + np.stack([np.repeat([0, 2, 4], 6000), np.zeros(18000)], 1)
    half = rng.random(18000) < 0.5
    train = balanced(labels, np.flatnonzero(half), 2500, 1, "train")
    confusion = tree_confusion(values.astype("f4"), labels, train, np.flatnonzero(~half), seed=1, rounds=60, depth=3)
    assert confusion.groups == (-3, 0, 1)
    # The optimal cuts are at 1 and 3: the outer groups are right with Phi(1), the middle one with 2 Phi(1) - 1.
    best = (2 * norm.cdf(1) + 2 * norm.cdf(1) - 1) / 3
    assert best - 0.03 < confusion.diagonal < best + 0.01
    assert len(train) == 3 * 2500


def test_a_transformer_with_labels_separates_what_the_objects_tell_apart():
    from raypipe.events.schema import tensor_values

    tables = [
        event_table(400, sample=s, group=g, split="embedding", first=1000 * k)
        for k, (s, g) in enumerate((("yy", 0), ("wn_150", -1)))
    ]
    objects = np.concatenate([tensor_values(t["objects"]) for t in tables])
    objects[400:, 0, 0] *= 20  # harder jets in the second group
    inputs = EncoderInputs(
        np.concatenate([t["event_id"].to_numpy() for t in tables]),
        objects,
        np.concatenate([np.stack([t["pt_yy"].to_numpy(), t["dr_yy"].to_numpy()], 1) for t in tables]),
        np.repeat([0, -1], 400),
    )
    small = Encoder(width=16, heads=2, particle_blocks=1, class_blocks=1, pair_width=8, dropout=0.0, layer_scale=0.1)
    config = Embedding(
        samples=["yy", "wn_150"],
        encoder=small,
        batch_size=64,
        steps_per_epoch=20,
        epochs=4,
        warmup_epochs=0,
        learning_rate=3e-3,
    )
    with_jet = np.flatnonzero(objects[:, 0, 0] > 0)
    confusion = supervised_confusion(inputs, config, with_jet, seed=1)
    assert confusion.groups == (-1, 0)
    assert confusion.diagonal > 0.9
