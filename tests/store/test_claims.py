"""Claims: of many who want the same thing one makes it, whoever dies, on any storage."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

from raypipe.errors import UserError
from raypipe.store import claims
from raypipe.store.claims import ALIVE, Claim, once_each
from raypipe.store.files import Store
from tests.conftest import ROOT


@pytest.mark.parametrize(("kind", "count"), [("path", 32), ("url", 9)])
def test_processes_that_start_together_make_each_stage_once_and_a_killed_one_is_replaced(tmp_path, kind, count):
    command = [sys.executable, "-m", "tests.store.claimants", str(tmp_path), str(count), kind]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.split() == ["1", "0"], done.stderr[-2000:]
    made = {path.name: len(path.read_text().split()) for path in tmp_path.glob("made-*")}
    assert made == {"made-first": 1, "made-second": 1, "made-victim": 2}  # the second time after the kill
    (stages,) = tmp_path.rglob("stages/flow")
    assert {path.name for path in stages.iterdir()} == {"first.pt", "second.pt", "victim.pt"}


def queue(folder, name: str, age: float, **said) -> None:
    """The files of a claim whose last sign is so many seconds old."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind in ("queued", "json"):
        path = folder / f"x.{name}.{kind}"
        path.write_text(json.dumps({"place": "another machine", "pid": 1} | said))
        os.utime(path, (time.time() - age, time.time() - age))


def test_a_silent_machine_is_taken_for_dead_and_one_that_speaks_is_not(tmp_path):
    store, folder = Store(tmp_path), tmp_path / "stages" / "flow"
    queue(folder, "silent", ALIVE + 10)
    queue(folder, "speaking", ALIVE - 10)
    (folder / "another.queued").write_text("")  # of another thing
    with Claim(store, "stages/flow", "x") as claim:
        assert not claim.is_first()
        assert {path.stem for path in folder.iterdir()} == {"x.speaking", claim.id, "another"}
        for path in folder.glob("x.speaking.*"):
            path.unlink()
        assert claim.is_first()
        with Claim(store, "stages/flow", "x") as later:
            assert claim.is_first()
            assert not later.is_first()
    assert [path.name for path in folder.iterdir()] == ["another.queued"]


def test_a_killed_process_of_this_machine_is_known_to_be_dead_at_once(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", "pass"])
    gone.wait()
    with Claim(Store(tmp_path), "stages/flow", "x") as claim:
        queue(tmp_path / "stages" / "flow", "killed", 5.0, **claim.value() | {"pid": gone.pid})
        assert claim.is_first()


def test_clocks_of_machines_do_not_matter(tmp_path, monkeypatch):
    folder = tmp_path / "stages" / "flow"
    queue(folder, "other", 5.0)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 3600)
    with Claim(Store(tmp_path), "stages/flow", "x") as claim:
        assert not claim.is_first()


def test_of_many_things_those_that_nobody_makes_are_made_together(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "SETTLE_LOCAL", 0.5)
    kept, made, keys = {"k0": 0}, [], [f"k{i}" for i in range(8)]

    def make(wanted: list[str]) -> None:
        assert len(list(tmp_path.glob("things/*.queued"))) == 7
        made.append(wanted)
        kept.update({key: int(key[1:]) for key in wanted})

    began = time.monotonic()
    assert once_each(Store(tmp_path), "things", keys, kept.get, make) == {key: i for i, key in enumerate(keys)}
    assert time.monotonic() - began < 3  # all claims settle at the same time
    assert made == [keys[1:]]
    assert not list(tmp_path.glob("things/*"))
    assert once_each(Store(tmp_path), "things", keys, kept.get, lambda _: pytest.fail("again")) == kept


def test_what_was_made_and_is_not_there_is_one_line(tmp_path):
    made = []
    with pytest.raises(UserError, match=r"things: k was made but is not there \(run the same command again\)$"):
        once_each(Store(tmp_path), "things", ["k"], lambda _: None, made.append)
    assert made == [["k"]]
    assert not list(tmp_path.glob("things/*"))
