"""Lines about progress where no terminal is."""

from __future__ import annotations

import time

from raypipe import progress
from raypipe.progress import progress_bar


def test_a_log_gets_a_line_now_and_then_also_while_nothing_moves(monkeypatch, capfd):
    monkeypatch.setattr(progress, "FIRST", 0.2)
    monkeypatch.setattr(progress, "EVERY", 0.2)
    with progress_bar("train", 5) as bar:
        bar(2, "loss 3")
        time.sleep(1.1)
    lines = capfd.readouterr().err.splitlines()
    train = [line for line in lines if line.startswith("train: 2 of 5, ") and line.endswith(" s; loss 3")]
    assert 2 <= len(train) <= 5
    with progress_bar("at once", 1) as bar:
        bar()
    assert capfd.readouterr().err == ""
