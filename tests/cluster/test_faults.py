"""A scan on four Ray nodes that loses a node, its driver, and its head; and two drivers on one ledger (slow)."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from raypipe.store.ledger import Ledger
from raypipe.store.status import drivers, status
from tests.cluster.drivers import work
from tests.cluster.nodes import nodes, parts, wait_for
from tests.conftest import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.ray]
COUNT = 16
LONG = 60
"""Trials of a second: a driver whose head is gone goes on with the actors it has until it notices, after seconds."""


def bits(folder) -> list[str]:
    """Rows and arrays of all trials, without clocks."""
    book, keys = Ledger(folder), list(work("probe", COUNT)[2])
    rows = [{k: repr(v) for k, v in row.items() if not k.startswith("seconds")} for row in book.rows(keys)]
    return [*map(str, rows), *(book.arrays(key)["noise"].tobytes().hex() for key in keys)]


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """The same trials on one embedded Ray, by a process of its own."""
    folder = tmp_path_factory.mktemp("calm") / "ledger"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.cluster.drivers", "probe", str(folder), str(COUNT)]
    subprocess.run(command, env=environment, cwd=ROOT, check=True, capture_output=True, timeout=300)
    return folder


def test_nodes_give_the_bits_of_one_and_one_may_die(calm, tmp_path):
    with nodes(3) as cluster:
        driver = cluster.start("tests.cluster.drivers", "probe", tmp_path, COUNT)
        wait_for(lambda: len(parts(tmp_path)) >= 3, 200, driver)
        cluster.kill_node(cluster.workers[0])
        out, _ = driver.communicate(timeout=300)
        assert driver.returncode == 0, out[-3000:]
        assert bits(tmp_path) == bits(calm)
        assert f"{COUNT} of {COUNT} done, 0 failed, 0 left" in out

        # A killed driver: the same command goes on, and what was finished is not done again.
        second = tmp_path / "second"
        driver = cluster.start("tests.cluster.drivers", "probe", second, COUNT)
        wait_for(lambda: len(parts(second)) >= 3, 200, driver)
        driver.kill()
        driver.communicate()
        kept = {key: (second / "rows" / f"{key}.json").stat().st_mtime_ns for key in parts(second)}
        assert len(kept) < COUNT
        now = status(Ledger(second))
        assert (now.total, now.done + now.left) == (COUNT, COUNT)
        driver = cluster.start("tests.cluster.drivers", "probe", second, COUNT)
        out, _ = driver.communicate(timeout=300)
        assert driver.returncode == 0, out[-3000:]
        assert {key: (second / "rows" / f"{key}.json").stat().st_mtime_ns for key in kept} == kept
        assert bits(second) == bits(calm)
        assert not (second / "tune").exists() or not list((second / "tune").iterdir())

        # Two drivers at once: every row once, with the same bits, and nothing left over.
        third = tmp_path / "third"
        both = [cluster.start("tests.cluster.drivers", "probe", third, COUNT) for _ in range(2)]
        wait_for(lambda: len(drivers(Ledger(third))) == 2 or len(parts(third)) == COUNT, 200)
        outs = [driver.communicate(timeout=300)[0] for driver in both]
        assert [driver.returncode for driver in both] == [0, 0], outs
        assert bits(third) == bits(calm)
        assert len(parts(third)) == COUNT
        assert not list(third.rglob(".tmp-*"))

        # The head, and with it the cluster: the driver ends by itself, with an error, and loses nothing.
        fourth = tmp_path / "fourth"
        driver = cluster.start("tests.cluster.drivers", "probe", fourth, LONG)
        wait_for(lambda: len(parts(fourth)) >= 3, 200, driver)
        cluster.kill_head()
        driver.communicate(timeout=200)
        assert driver.returncode != 0
        done = len(parts(fourth))
        assert 3 <= done < LONG
    with nodes(2) as cluster:
        driver = cluster.start("tests.cluster.drivers", "probe", fourth, LONG)
        out, _ = driver.communicate(timeout=300)
        assert driver.returncode == 0, out[-3000:]
    assert len(parts(fourth)) == LONG
    assert bits(fourth) == bits(calm)


def test_chaos_with_real_searches():
    """A short version of `make chaos`."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.cluster.chaos", "--trials", "9", "--kills", "3", "--seed", "5"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.strip().splitlines()[-1] == "chaos: rows 9 identical 9 lost 0 duplicate 0"
