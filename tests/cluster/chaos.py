"""``make chaos``: a scan of real searches on four Ray nodes under random SIGKILLs, against an undisturbed run.

Workers, one whole node and the driver are killed while 40 trials run; the same command is given again whenever the
driver is gone. The last line says how it ended.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from raypipe.store.ledger import Ledger
from tests.cluster.drivers import work
from tests.cluster.nodes import Nodes, nodes, parts
from tests.conftest import ROOT

RUNS = 8
"""The same command at most so often."""
LIMIT = 1800.0
"""Seconds after which a scan counts as hanging."""


def say(text: str) -> None:
    print(f"chaos: {text}", flush=True)


def undisturbed(ledger: Path, count: int) -> None:
    """The reference: one embedded Ray, nobody killed."""
    began = time.monotonic()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.cluster.drivers", "search", str(ledger), str(count)]
    subprocess.run(command, env=environment, cwd=ROOT, check=True, stderr=subprocess.DEVNULL)
    say(f"undisturbed run on one node: {len(parts(ledger))} trials in {time.monotonic() - began:.0f} s")


def disturbed(cluster: Nodes, ledger: Path, count: int, rng: random.Random, kills: int) -> dict[str, int]:
    """Run the scan and kill: ``kills`` workers at random times, a node after a third, the driver after half."""
    killed = {"workers": 0, "nodes": 0, "drivers": 0, "runs": 0}
    began, next_kill = time.monotonic(), 0.0
    while len(parts(ledger)) < count:
        killed["runs"] += 1
        log = ledger.parent / f"driver-{killed['runs']}.log"
        if killed["runs"] > RUNS:
            raise SystemExit("chaos: the scan did not end")
        driver = cluster.start("tests.cluster.drivers", "search", ledger, count, log=log)
        while driver.poll() is None:
            time.sleep(0.1)
            if time.monotonic() - began > LIMIT:
                driver.kill()
                raise SystemExit(f"chaos: the driver hangs\n{log.read_text()[-3000:]}")
            done = len(parts(ledger))
            if killed["workers"] < kills and done and time.monotonic() > next_kill and (busy := cluster.busy()):
                victim = rng.choice(busy)
                with contextlib.suppress(psutil.NoSuchProcess):  # it may just have ended by itself
                    victim.kill()
                    killed["workers"] += 1
                    next_kill = time.monotonic() + rng.uniform(2, 6)
                    say(f"{time.monotonic() - began:.0f} s, {done} done: killed worker {victim.pid}")
            if not killed["nodes"] and done >= count // 3:
                cluster.kill_node(rng.choice(cluster.workers))
                killed["nodes"] += 1
                say(f"{time.monotonic() - began:.0f} s, {done} done: killed a node")
            if not killed["drivers"] and done >= count // 2:
                driver.kill()
                killed["drivers"] += 1
                say(f"{time.monotonic() - began:.0f} s, {done} done: killed the driver")
        driver.wait()
    return killed


def compare(ledger: Path, reference: Path, keys: list[str]) -> tuple[int, int, int, int]:
    """Rows, identical ones, lost ones, duplicates: values of every column but the clocks, and every array's bits."""
    ours, theirs = Ledger(ledger), Ledger(reference)
    rows, expected = ours.rows(keys), theirs.rows(keys)
    seen = [(row["key"], row.get("working_point")) for row in rows if row["status"] == "ok"]

    def bits(book: Ledger, row: dict) -> tuple:
        values = {k: repr(v) for k, v in sorted(row.items()) if not k.startswith("seconds")}
        return values, {name: array.tobytes() for name, array in book.arrays(row["key"]).items()}

    by_identity = {(row["key"], row["working_point"]): row for row in rows if row["status"] == "ok"}
    identical = sum(
        bits(ours, by_identity[where]) == bits(theirs, row)
        for row in expected
        if (where := (row["key"], row["working_point"])) in by_identity
    )
    strangers = len(parts(ledger) - set(keys))  # a part that belongs to no trial would be a row too many
    return len(set(seen)), identical, len(expected) - len(by_identity), len(seen) - len(set(seen)) + strangers


def main() -> int:
    """Both runs and their comparison; 0 if every row is there once with the same bits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--kills", type=int, default=8)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    given = parser.parse_args()
    say(f"seed {given.seed}")
    folder = Path(tempfile.mkdtemp(prefix="raypipe-chaos-"))
    try:
        with nodes(3) as cluster:
            began = time.monotonic()
            killed = disturbed(cluster, folder / "chaos", given.trials, random.Random(given.seed), given.kills)
            say(f"disturbed run on four nodes: {time.monotonic() - began:.0f} s, killed {killed}")
        undisturbed(folder / "calm", given.trials)
        keys = list(work("search", given.trials)[2])
        rows, identical, lost, duplicate = compare(folder / "chaos", folder / "calm", keys)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if spared := [name for name, times in killed.items() if not times]:
        say(f"no {spared[0]} killed: the scan was over too soon to show anything")
        return 1
    say(f"rows {rows} identical {identical} lost {lost} duplicate {duplicate}")
    return 0 if (rows, identical, lost, duplicate) == (given.trials, given.trials, 0, 0) else 1


if __name__ == "__main__":
    sys.exit(main())
