"""The batch plan: balanced, without repetition, and a function of seed and step alone."""

from __future__ import annotations

import numpy as np
import pytest

from raypipe.errors import UserError
from raypipe.fit.batches import BatchPlan, parts_of

LABELS = np.r_[np.zeros(1000), np.full(90, 1), np.full(60, -1)].astype(int)


def test_parts_have_the_asked_shares_and_do_not_depend_on_the_others():
    ids = np.arange(200_000)
    parts = parts_of(ids, 7, 0.6, 0.2)
    shares = np.bincount(parts, minlength=3) / len(ids)
    assert shares == pytest.approx([0.6, 0.2, 0.2], abs=4 * np.sqrt(0.25 / len(ids)))
    assert (parts_of(ids[::17], 7, 0.6, 0.2) == parts[::17]).all()
    other = parts_of(ids, 8, 0.6, 0.2)
    # Independent of the first split: 0.36 + 0.04 + 0.04 agree by chance.
    assert (other == parts).mean() == pytest.approx(0.44, abs=0.01)
    # Neighbouring ids are independent too.
    assert (parts[1:] == parts[:-1]).mean() == pytest.approx(0.44, abs=0.01)


def test_batches_are_balanced_and_hold_no_event_twice():
    plan = BatchPlan.of(LABELS, 100, 3, "train")
    sizes = []
    for step in range(30):
        rows = plan.batch(step)
        assert len(np.unique(rows)) == 100
        counts = [int((LABELS[rows] == g).sum()) for g in plan.groups]
        assert max(counts) - min(counts) <= 1
        sizes.append(counts)
    # The odd event rotates over the groups.
    assert np.mean(sizes, axis=0) == pytest.approx([100 / 3] * 3, abs=0.01)


def test_plan_is_a_function_of_seed_part_and_step():
    plan, again = (BatchPlan.of(LABELS, 60, 3, "train") for _ in range(2))
    assert (plan.batch(11) == again.batch(11)).all()
    assert (plan.noise(11, 6) == again.noise(11, 6)).all()
    assert set(plan.batch(11)) != set(plan.batch(12))
    assert set(plan.batch(11)) != set(BatchPlan.of(LABELS, 60, 4, "train").batch(11))
    assert set(plan.batch(11)) != set(BatchPlan.of(LABELS, 60, 3, "validation").batch(11))


def test_only_the_given_rows_are_used():
    rows = np.arange(0, len(LABELS), 2)
    plan = BatchPlan.of(LABELS, 60, 3, "train", rows)
    assert set(np.concatenate([plan.batch(s) for s in range(20)])) <= set(rows)


@pytest.mark.parametrize(
    ("labels", "size", "words"),
    [
        (LABELS, 300, "group -1 has 60 events in the train part, a batch of 300 needs 100"),
        (LABELS, 5, "needs two events of each of 3 groups"),
        (np.zeros(50, int), 10, "at least two process groups"),
    ],
)
def test_what_cannot_be_balanced_is_refused(labels, size, words):
    with pytest.raises(UserError, match=words):
        BatchPlan.of(labels, size, 3, "train")
