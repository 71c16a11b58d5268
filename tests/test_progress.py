"""Rates and times left, with a clock of our own."""

from __future__ import annotations

import time

from raypipe import progress
from raypipe.progress import SampleTable, progress_bar


def test_sample_table():
    now = [0.0]
    with SampleTable({"yy": 1000, "ggf": 100}, clock=lambda: now[0]) as table:
        task = table.tasks["yy"]
        table.add("yy", 400)
        assert task.time_remaining is None
        table.begin("yy")
        for seconds in (10.0, 20.0):
            now[0] = seconds
            table.add("yy", 200)
            table.begin("yy")  # another shard does not start the clock again
        assert task.time_remaining == 10  # what was found does not count
        table.add("yy", 500)
        assert (task.finished, task.finished_time) == (True, 20.0)


def test_a_log_gets_a_line_now_and_then_also_while_nothing_moves(monkeypatch, capfd):
    monkeypatch.setattr(progress, "FIRST", 0.2)
    monkeypatch.setattr(progress, "EVERY", 0.2)
    with progress_bar("train", 5) as bar:
        bar(2, "loss 3")
        time.sleep(1.1)
    with SampleTable({"yy": 1000, "ggf": 100}) as table:
        table.begin("yy")
        table.add("yy", 400)
        time.sleep(0.5)
    lines = capfd.readouterr().err.splitlines()
    train = [line for line in lines if line.startswith("train: 2 of 5, ") and line.endswith(" s; loss 3")]
    assert 2 <= len(train) <= 5
    assert "simulate: 400 of 1100 events; now yy" in lines
    with progress_bar("at once", 1) as bar:
        bar()
    assert capfd.readouterr().err == ""
