"""The table of other worlds: paired with the nominal one, by pseudo-data set."""

from __future__ import annotations

import math

import pytest

from raypipe.report.contrastive import worlds


def row(
    embedding: str, instance: int, z: float, signal: str = "none", sic: float = math.nan, pull: float = 0.5
) -> dict:
    strength = 0.0 if signal == "none" else 1.0
    given = {"signal": signal, "strength": strength, "working_point": 0.01, "instance": instance, "method": "cathode"}
    return given | {"embedding": embedding, "z_after": z, "sic": sic, "background_pull": pull, "instance_overlap": 0.0}


def test_bias_is_that_of_the_same_pseudo_data():
    rows = [row("id", i, z) for i, z in enumerate((5.0, -3.0, 1.0))]
    rows += [row("id~jet_scale", i, z, pull=p) for i, (z, p) in enumerate([(5.5, 0.2), (-2.3, 1.4), (1.6, -0.9)])]
    (entry,) = worlds(rows)
    assert (entry["world"], entry["signal"], entry["instances"]) == ("jet_scale", "none", 3)
    assert entry["z_bias"]["mean"] == pytest.approx(0.6)
    assert entry["z_bias"]["standard_error"] == pytest.approx(0.1 / math.sqrt(3))
    assert entry["coverage_68"] == pytest.approx(2 / 3)
    assert entry["sic_ratio"] is None


def test_a_loss_of_sensitivity_and_what_has_no_pair():
    rows = [row("id", 0, 5.0, "s", 8.0), row("id", 1, 5.0, "s", 10.0), row("raw", 0, 9.0, "s", 99.0)]
    rows += [row("id~tag_loss", 0, 4.0, "s", 6.0), row("id~tag_loss", 1, math.nan, "s", 9.0)]
    rows += [row("id~met_noise", 7, 4.0, "s", 6.0)]
    tag, noise = worlds(rows)
    assert tag["sic_ratio"]["mean"] == pytest.approx((0.75 + 0.9) / 2)
    assert (tag["z_bias"]["mean"], tag["z_bias"]["standard_error"]) == (-1.0, None)
    assert (noise["z_bias"], noise["sic_ratio"]) == (None, None)
    assert worlds(rows[:3]) == []
