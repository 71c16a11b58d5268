"""The bench of the simulation compares the same events."""

from __future__ import annotations

import pytest
from bench import simulate


def test_both_sides_make_the_same_events(monkeypatch):
    (row,) = simulate.measure("ggf", 60, 1)
    assert row.at_most
    assert row.target == 1.4
    assert row.detail["generated"] == 60
    assert row.ratios == [pytest.approx(row.ours / row.reference)]
    # With other seeds on the two sides the cross sections differ, and the bench says so.
    monkeypatch.setattr(simulate, "pythia_seed", lambda seed: 17)
    with pytest.raises(RuntimeError, match="sample ggf: the shard and the bare loop made different events"):
        simulate.measure("ggf", 60, 1)


def test_continuum_is_also_compared_without_the_veto():
    _, plain = simulate.measure("yy", 60, 1)
    assert plain.target is None
    # The veto keeps about a third: 0.35 of Pythia's pairs may pass the selection.
    assert 0.25 < plain.detail["share_kept_by_veto"] < 0.5
    assert plain.detail["generated_without_veto"] == round(60 / plain.detail["share_kept_by_veto"])
