"""`python jobs/bench stats` compares like with like."""

from __future__ import annotations

from bench.stats import run


def test_both_ways_give_the_same_q0():
    row = run(smoke=True)[0].row()
    assert row["detail"]["largest_q0_difference"] < 2e-3  # MIGRAD's own tolerance
    assert row["detail"]["failed_toys"] == 0
    assert row["ratio"] > 20
