"""Weights with signs: averages over nearest events keep every sum and none is negative."""

from __future__ import annotations

import numpy as np
import pytest

from raypipe.errors import UserError
from raypipe.events.signed import describe, positive_weights


@pytest.mark.parametrize("columns", [1, 3])
def test_averages_keep_sums_everywhere(columns):
    """A fifth is negative, more of them at high values: 0.6 of the moduli in all, 0.2 above one."""
    rng = np.random.default_rng(1)
    values = rng.normal(size=(20_000, columns))
    negative = np.where(values[:, 0] > 1, 0.4, 0.162)
    weights = np.where(rng.random(20_000) < negative, -1.0, 1.0) * rng.uniform(0.5, 2.0, 20_000)
    found = positive_weights(values, weights)
    assert found.min() >= 0
    assert found.sum() == pytest.approx(weights.sum(), rel=1e-12)
    assert weights.sum() / np.abs(weights).sum() == pytest.approx(0.6, abs=0.02)
    for cut in (-1.0, 0.0, 0.5, 1.5):
        above = values[:, 0] > cut
        # Sums differ by the cells on the cut alone, a part of the statistical error.
        error = np.sqrt((weights[above] ** 2).sum())
        assert found[above].sum() == pytest.approx(weights[above].sum(), abs=0.5 * error)


def test_equal_events_are_one_cell():
    category = np.repeat([0.0, 1.0, 2.0], 100)[:, None]
    weights = np.tile([1.0, 1.0, -1.0, 2.0], 75)
    found = positive_weights(category, weights)
    assert np.bincount(category[:, 0].astype(int), found) == pytest.approx([75.0, 75.0, 75.0])
    assert found == pytest.approx(np.abs(weights) * 0.6)


def test_weights_without_signs_stay_and_a_negative_yield_is_told():
    weights = np.array([0.0, 2.0, 1.0])
    assert positive_weights(np.zeros((3, 1)), weights) is weights
    assert describe(weights) is None
    with pytest.raises(UserError, match="sum to -1: a yield must be positive"):
        positive_weights(np.arange(3.0)[:, None], np.array([1.0, -3.0, 1.0]))
    assert describe(np.repeat([-1.0, 1.0], [20, 80])) == {"negative": 0.2, "sum": 60.0, "absolute_sum": 100.0}
