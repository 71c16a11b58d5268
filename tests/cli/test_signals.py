"""SIGTERM, as batch systems send it, and Ctrl-C: one line, the status, nothing left running, and it goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.conftest import ROOT
from tests.search.test_table import OVERRIDES
from tests.search.toys import toy_table
from tests.test_end_to_end import TINY

DEMO = str(ROOT / "configs" / "contrastive" / "laptop.yaml")
LINE = {
    signal.SIGTERM: "raypipe: terminated; run the same command again to go on",
    signal.SIGINT: "raypipe: interrupted; run the same command again to go on",
}


def start(arguments: list[str | Path]) -> subprocess.Popen:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_"))}
    return subprocess.Popen(
        [sys.executable, "-m", "raypipe.cli", *map(str, arguments)],
        env=environment | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def end(
    arguments: list[str | Path],
    ready: Callable[[psutil.Process], bool],
    number: int = signal.SIGTERM,
    group: bool = False,
) -> tuple[int, list[str], int]:
    """Start, signal when ``ready``, wait: status, lines on standard error, how many processes it had started.

    Args:
        group: signal all its processes, as Slurm does, not only the first.
    """
    process = start(arguments)
    parent, parts = psutil.Process(process.pid), set()
    limit = time.monotonic() + 500
    try:
        while not ready(parent):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < limit
            time.sleep(0.02)
            parts.update(parent.children(recursive=True))
        parts.update(parent.children(recursive=True))
        (os.killpg if group else os.kill)(process.pid, number)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    _, alive = psutil.wait_procs(parts, timeout=3)  # Ray's workers end when they miss their node
    assert not [part for part in alive if part.status() != psutil.STATUS_ZOMBIE]
    return process.returncode, said.strip().splitlines(), len(parts)


def busy(seconds: float) -> Callable[[psutil.Process], bool]:
    """When a process has used so many core seconds."""
    return lambda process: sum(process.cpu_times()[:2]) > seconds


def many_pieces(folder: Path) -> list[str | Path]:
    np.save(folder / "events.npy", np.random.default_rng(1).normal(size=(60_000, 3)))
    (folder / "read.yaml").write_text("search: read\ncolumns: {mass: 0, features: [1, 2]}\nsource: {chunk_rows: 5}\n")
    return ["read", "--config", folder / "read.yaml", "--output", folder / "out", folder / "events.npy"]


def long_classify(folder: Path) -> list[str | Path]:
    tables: list[str | Path] = []
    for number, name in enumerate(("data", "background", "score")):
        np.save(folder / f"{name}.npy", toy_table(40_000, 100, 1 + number))
        tables += [f"--{name}", folder / f"{name}.npy"]
    return [
        "classify",
        *tables,
        "--features",
        "1,2",
        "--ensemble",
        "40",
        "--cpus",
        "1",
        "--output",
        folder / "out" / "scores.parquet",
    ]


def long_search(folder: Path) -> list[str | Path]:
    np.save(folder / "t.npy", toy_table(20_000, 100, 1))
    return [
        "search",
        "--config",
        ROOT / "configs/lhco/laptop.yaml",
        "--output",
        folder / "out",
        *OVERRIDES,
        f"data.path={folder / 't.npy'}",
        "flow.epochs=400",
        "resources.cpus=1",
    ]


def long_hunt(folder: Path) -> list[str | Path]:
    np.save(folder / "m.npy", 100 + np.random.default_rng(1).exponential(40, 20_000))
    return [
        "hunt",
        "--masses",
        folder / "m.npy",
        "--window",
        "100",
        "180",
        "--background",
        "poly:4",
        "--toys",
        "100000",
        "--output",
        folder / "out",
    ]


@pytest.mark.parametrize(
    ("command", "number"),
    [
        (many_pieces, signal.SIGTERM),
        (long_classify, signal.SIGTERM),
        (long_search, signal.SIGTERM),
        (long_hunt, signal.SIGTERM),
        (long_hunt, signal.SIGINT),
    ],
)
def test_a_command_in_one_process_ends_with_one_line(tmp_path, command, number):
    status, said, _ = end(command(tmp_path), busy(4.0), number)
    assert status == 128 + number
    assert said[-1] == LINE[number]
    assert len([line for line in said if line.startswith("raypipe: ")]) == 1
    assert "Traceback" not in "".join(said)
    assert not list((tmp_path / "out").rglob("*.parquet")) + list(tmp_path.rglob(".tmp-*"))


MODULE = """
import click
from raypipe.cli.base import Commands

@click.group(cls=Commands)
def main():
    pass

@main.command()
def work():
    exec("import os, time; os.kill(os.getpid(), 15); time.sleep(30)")

main()
"""


def test_a_signal_in_a_text_that_is_executed_gives_the_same_status(tmp_path):
    """As in an import, which makes data classes: Python itself has a status for an interrupt in there."""
    (tmp_path / "module.py").write_text(MODULE)
    path = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    done = subprocess.run([sys.executable, "-m", "module", "work"], env=path, capture_output=True, text=True)
    assert (done.returncode, done.stderr.splitlines()) == (143, [LINE[signal.SIGTERM]])


LOST = """
import os, time
import click
from raypipe.cli import base

base.GRACE = 0.5

@click.group(cls=base.Commands)
def main():
    pass

@main.command()
def work():
    try:
        os.kill(os.getpid(), 2)
        time.sleep(30)
    except KeyboardInterrupt:  # as in a finaliser, out of which no exception comes
        time.sleep(30)

main()
"""


def test_an_interrupt_that_is_lost_comes_again(tmp_path):
    (tmp_path / "module.py").write_text(LOST)
    path = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    told = [sys.executable, "-m", "module", "work"]
    done = subprocess.run(told, env=path, capture_output=True, text=True, timeout=25, check=False)
    assert (done.returncode, done.stderr.splitlines()) == (130, [LINE[signal.SIGINT]])


def made(folder: Path) -> dict[Path, int]:
    """Finished shards, and when."""
    return {path: path.stat().st_mtime_ns for path in folder.glob("events/shards/*/*.json")}


@pytest.mark.ray
@pytest.mark.parametrize("moment", ["while Ray starts", "in the work", "in the work, all processes"])
def test_a_simulation_ends_with_nothing_left_and_goes_on(tmp_path, moment):
    command = ["simulate", "--config", DEMO, "--output", tmp_path, *TINY]
    if moment == "while Ray starts":
        status, said, parts = end(command, lambda process: len(process.children(recursive=True)) >= 2)
    else:
        status, said, parts = end(command, lambda _: len(made(tmp_path)) >= 2, group="all" in moment)
    assert (status, [line for line in said if not line.startswith("simulate: ")]) == (143, [LINE[signal.SIGTERM]])
    assert parts >= 2
    if moment == "in the work":
        before = made(tmp_path)
        process = start(command)
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
        after = made(tmp_path)
        assert {path: after[path] for path in before} == before
        assert len(after) > len(before)
        assert (tmp_path / "events" / "dataset.json").exists()


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize("command", ["embed", "scan"])
def test_a_long_command_ends_with_nothing_left(tmp_path, command):
    arguments = ["--config", DEMO, "--output", tmp_path, *TINY]
    seen = {
        "embed": lambda _: (tmp_path / "events" / "dataset.json").exists(),
        "scan": lambda _: len(list(tmp_path.glob("ledger/rows/*.json"))) >= 1,
    }
    status, said, _ = end([command, *arguments], seen[command])
    assert status == 143, said
    assert said[-1] == LINE[signal.SIGTERM]
    assert "Traceback" not in "".join(said)
