"""Rates and times left, with a clock of our own."""

from __future__ import annotations

import pytest

from raypipe.progress import SampleTable


def test_sample_table():
    now = [0.0]
    with SampleTable({"yy": 1000, "ggf": 100}, clock=lambda: now[0]) as table:
        table.found("yy", 400)
        assert table.rate("yy") is None
        assert table.seconds_left("yy") is None
        now[0] = 5.0
        table.begin("yy")
        now[0] = 15.0
        table.add("yy", 200)
        table.begin("yy")  # a second shard does not start the clock again
        assert table.rate("yy") == pytest.approx(20.0)  # what was found does not count
        assert table.seconds_left("yy") == pytest.approx(20.0)
        table.add("yy", 500)
        assert table.seconds_left("yy") == 0.0
        table.found("ggf", 150)
        assert table.seconds_left("ggf") == 0.0
