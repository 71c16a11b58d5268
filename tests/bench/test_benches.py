"""Every bench runs, tiny, and where both sides must agree they do; ratios of such sizes mean nothing."""

from __future__ import annotations

import json
import math

import pytest
from bench.base import BENCHES, Measurement, compared, markdown_table, run_bench

RAY = {"events", "embed", "scan"}
"""Benches that need Ray: here they share the session of all tests."""


def check(name: str) -> list[Measurement]:
    rows = run_bench(name, True)
    assert rows
    for row in rows:
        assert all(math.isfinite(r) for r in row.ratios)
        assert min(row.ours, row.reference) > 0
        json.dumps(row.row())
    return rows


@pytest.mark.parametrize("name", sorted(set(BENCHES) - RAY))
def test_smoke(name):
    rows = check(name)
    if name == "peers":  # whole searches and their trees alone: the same scores of ours
        assert len({row.ours for row in rows if row.unit == "SIC"}) == 1
    for row in rows:
        if name == "flow":  # the same losses as nflows, trained alone
            assert row.detail["largest_nll_difference"] < 1e-3
        if name == "encoder":  # present objects only, or all slots with a mask: the same loss
            assert row.detail["losses"]["ours"] == pytest.approx(row.detail["losses"]["plain"], rel=1e-5)


@pytest.mark.ray
@pytest.mark.parametrize("name", sorted(set(BENCHES) & RAY))
def test_smoke_with_ray(name, ray_local):
    check(name)


def test_ratio_is_the_reference_over_ours_and_a_row_of_the_table():
    row = compared("work", [1.0, 2.0, 4.0], [10.0, 10.0, 10.0], 4.0)
    assert row.ratios == [10.0, 5.0, 2.5]
    assert row.median == 5.0
    assert row.reached
    assert not compared("work", [5.0], [10.0], 4.0).reached
    share = compared("work", [5.0], [10.0], 0.6, meaning="time ours / time reference", at_most=True)
    assert (share.ratios, share.reached) == ([0.5], True)
    entry = {"rows": [row.row()], "smoke": False, "versions": {}, "seconds": 90.0}
    table = markdown_table({"benches": {"some": entry, "tiny": entry | {"smoke": True}}})
    work, _, total = table.splitlines()[2:]
    assert work == "| `some` work | 5.00 (2.50-10.0) speed-up | >= 4: yes | 2 s | 10 s |"
    assert total == "1 benches in 1.5 minutes."


def test_every_bench_of_the_issue_is_there():
    asked = {"simulate", "events", "encoder", "embed", "flow", "flow-sampling", "bdt", "ensemble", "stats", "scan"}
    assert set(BENCHES) == asked | {"growth", "peers"}
