"""Folds: random, balanced, and one for an event wherever it occurs."""

from __future__ import annotations

import numpy as np
import pytest

from raypipe.fit.classifier import EVERY_FOLD, deal_folds

K = 5


def sizes(fold: np.ndarray) -> np.ndarray:
    return np.bincount(fold, minlength=K)


@pytest.mark.parametrize("kind", ["continuous", "category", "padded", "one value"])
@pytest.mark.parametrize("numbers", [(1000, 1000), (1003, 511), (7, 2001)])
def test_folds_are_balanced_whatever_the_values(kind, numbers):
    rng = np.random.default_rng(1)
    make = {
        "continuous": lambda n: rng.normal(size=(n, 2)),
        "category": lambda n: rng.integers(0, 8, (n, 1)),
        "padded": lambda n: np.where(rng.random((n, 1)) < 0.4, 0.0, rng.normal(size=(n, 2))),
        "one value": lambda n: np.ones((n, 1)),
    }[kind]
    found, _ = deal_folds([make(n) for n in numbers], [], K, 1)
    for fold, n in zip(found, numbers, strict=True):
        assert len(fold) == n
        assert np.ptp(sizes(fold)) <= 1


def test_every_value_is_spread_over_all_folds():
    code = np.random.default_rng(2).integers(0, 8, (4000, 1))
    (fold,), _ = deal_folds([code], [], K, 1)
    for value in range(8):
        share = sizes(fold[code[:, 0] == value]) / (code == value).sum()
        assert share == pytest.approx(0.2, abs=5 * np.sqrt(0.16 / 500))


def test_an_event_has_one_fold_wherever_it_is():
    rng = np.random.default_rng(3)
    common, twice = rng.normal(size=(300, 3)), rng.normal(size=(50, 3))
    data = np.concatenate([rng.normal(size=(700, 3)), common, twice, twice])
    background = np.concatenate([twice, rng.normal(size=(900, 3)), common[::-1].astype(np.float32)])
    new = rng.normal(size=(40, 3))
    (d, b), (s,) = deal_folds([data, background], [np.concatenate([new, data, background])], K, 1)
    assert (s[:40] == EVERY_FOLD).all()
    assert (s[40:] == np.r_[d, b]).all()
    assert (d[700:1000] == b[950:][::-1]).all()
    assert (d[1000:1050] == d[1050:]).all()
    assert (d[1000:1050] == b[:50]).all()
    assert np.ptp(sizes(d)) <= 1
    assert np.ptp(sizes(b)) <= 1


def test_the_events_of_a_category_are_held_out_one_by_one():
    """Equal rows can be exchanged: each row of the table is scored by models without one such row, and no two share."""
    rng = np.random.default_rng(4)
    data, background = rng.integers(0, 4, (1000, 1)), rng.integers(0, 4, (600, 1))
    (d, b), (s, t) = deal_folds([data, background], [data[::-1], background], K, 1)
    for value in range(4):
        mine, theirs = s[data[::-1, 0] == value], d[data[:, 0] == value]
        assert (np.sort(mine) == np.sort(theirs)).all()
    assert (t == b).all()


def test_seed_and_values_decide_not_the_order():
    rng = np.random.default_rng(5)
    data, turn = rng.normal(size=(900, 2)), rng.permutation(900)
    (fold,), _ = deal_folds([data], [], K, 1)
    assert (deal_folds([data[turn]], [], K, 1)[0][0] == fold[turn]).all()
    assert (deal_folds([data], [], K, 2)[0][0] != fold).mean() == pytest.approx(0.8, abs=0.06)
