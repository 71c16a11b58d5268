"""A run makes what is missing, once, whoever asks at the same time; no Ray."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
from pydantic import Field

from raypipe.cluster.run import Run
from raypipe.config.base import Resources, Tracking
from raypipe.config.run import Run as RunConfig
from raypipe.errors import UserError
from raypipe.files import file_digest, write_json
from raypipe.kinds import KINDS, Kind
from raypipe.search.base import Item, Search, Stage


class Toys(RunConfig):
    """A configuration."""

    search: str = "toys"
    names: list[str] = Field(["a", "b"])
    slow: float = 0.0
    tracking: Tracking = Tracking(enabled=False)


class ToySearch(Search):
    """Two things to make, by a slow maker."""

    def stages(self):
        def items(made, trials):
            return [Item(name, f"key-{name}", f"toys/{name}", "record.json", ("toy",)) for name in self.config.names]

        return (Stage("toy", "tasks", f"{__name__}:make", items),)


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    """Known to this test alone, and to the processes that it forks."""
    monkeypatch.setitem(KINDS, "toys", Kind(Toys, (), ToySearch))


def make(run: Run, stage: Stage, items: list[Item]) -> None:
    """Write a toy, slowly; a line in ``made`` for each time that one is begun."""
    for item in items:
        folder = run.folder / item.folder
        with open(run.folder.parent / "made", "a") as handle:
            handle.write(f"{os.getpid()} {item.name}\n")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "toy").unlink(missing_ok=True)  # never in place: others may have the same file
        (folder / "toy").write_text("half")  # what a killed process leaves behind is no result
        time.sleep(run.config.slow)
        if run.config.seed == 13:
            raise UserError("the third epoch diverged")
        (folder / "toy").write_text(f"whole, by {os.getpid()}")
        write_json(folder / "record.json", {"key": item.key, "by": os.getpid(), "digest": file_digest(folder / "toy")})


def toys(root: Path, output: str, shared: bool = False, **given) -> Run:
    artefacts = str(root / "shared") if shared else None
    return Run(Toys(output=str(root / output), resources=Resources(artefacts=artefacts), **given))


def lines(root: Path) -> list[list[str]]:
    return [line.split() for line in (root / "made").read_text().splitlines()] if (root / "made").exists() else []


def _driver(root: Path, output: str, shared: bool) -> None:
    """One of the drivers that start together."""
    run = toys(root, output, shared, slow=1.5)
    made = run.make([])["toy"]
    for name in ("a", "b"):
        assert (run.folder / "toys" / name / "toy").read_text() == f"whole, by {made[name]['by']}"


PLACES = {"one output": ("a", "a", False), "two outputs": ("a", "b", True), "one output, shared": ("a", "a", True)}


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("places", PLACES)
def test_two_drivers_that_start_together_make_each_thing_once_and_a_killed_one_is_replaced(tmp_path, places, killed):
    one, two, shared = PLACES[places]
    context = multiprocessing.get_context("fork")
    drivers = [context.Process(target=_driver, args=(tmp_path, output, shared)) for output in (one, two)]
    for driver in drivers:
        driver.start()
    until = time.monotonic() + 30
    while killed and not lines(tmp_path) and time.monotonic() < until:
        time.sleep(0.05)
    if killed:
        time.sleep(0.3)
        os.kill(int(lines(tmp_path)[0][0]), signal.SIGKILL)
    for driver in drivers:
        driver.join(60)
    assert sorted(driver.exitcode for driver in drivers) == ([-signal.SIGKILL, 0] if killed else [0, 0])
    begun = [name for _, name in lines(tmp_path)]
    # The killed one had begun the first line's; which that is depends on who queued for what first.
    assert sorted(begun) == sorted(["a", "b", *begun[: int(killed)]])
    # The killed one's place stays in a queue where it came second: nobody waits behind it.
    gone = f"-{lines(tmp_path)[0][0]}-" if killed else None
    assert not [path for path in tmp_path.rglob("*.queued") if gone is None or gone not in path.name]
    # From now on nothing is made, whoever asks.
    for output in {one, two, "another"} if shared else {one}:
        toys(tmp_path, output, shared).make([])
    assert len(lines(tmp_path)) == len(begun)


def test_damage_is_made_again_and_a_look_makes_nothing(tmp_path):
    run = toys(tmp_path, "run", names=["a"])
    assert run.look([]) == {"toy": {}}
    made = run.make([])
    assert made == run.look([])
    assert made["toy"]["a"].items() >= {"key": "key-a", "by": os.getpid()}.items()
    (run.folder / "toys/a/toy").unlink()
    assert run.look([]) == {"toy": {}}
    run.make([])
    write_json(run.folder / "toys/a/record.json", {"key": "of another version"})
    assert run.look([]) == {"toy": {}}
    run.make([])
    assert len(lines(tmp_path)) == 3
    (run.folder / "toys/a/toy").write_text("another byte")
    run.make([])
    assert len(lines(tmp_path)) == 4


def test_what_others_share_stays_when_a_run_makes_its_own_again(tmp_path):
    first = toys(tmp_path, "one", True, names=["a"])
    record = first.make([])["toy"]["a"]
    second = toys(tmp_path, "two", True, names=["a"])
    assert second.make([])["toy"]["a"] == record
    path = second.folder / "toys/a/toy"
    assert path.samefile(first.folder / "toys/a/toy")
    path.unlink()
    assert second.make([])["toy"]["a"] == record  # taken again
    assert path.samefile(first.folder / "toys/a/toy")
    assert len(lines(tmp_path)) == 1


def test_a_maker_that_fails_leaves_the_turn_to_the_next(tmp_path):
    with pytest.raises(UserError, match="the third epoch diverged"):
        toys(tmp_path, "run", seed=13).make([])
    assert not list(tmp_path.rglob("*.queued"))
    toys(tmp_path, "run", names=["a"]).make([])
    assert len(lines(tmp_path)) == 2
