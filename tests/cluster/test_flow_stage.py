"""The flows of a scan, made before its trials: the bits that a trial would make, each set once, whatever happens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from raypipe.cluster.flows import FOLDER, make_flows, stacks_of, wanted_by
from raypipe.config import Config
from raypipe.fit.flows import FlowSet
from raypipe.search.contrastive import search
from raypipe.search.result import NO_SIGNAL, Tools, Trial
from raypipe.store.ledger import Ledger
from tests.cluster.drivers import small_config, small_tables
from tests.cluster.nodes import Nodes, nodes, told
from tests.conftest import ROOT

FLOW = {"members": 6, "leave_out": 1, "layers": 1, "hidden": 256, "blocks": 1, "batch_size": 1000, "epochs": 6}
"""Wide enough that a CPU takes the members in three blocks."""
TRIALS = [
    *(Trial(NO_SIGNAL, 0.0, instance) for instance in range(3)),
    Trial("wn_150", 2.0, 0),
    Trial("wn_150", 2.0, 1, method="no_higgs"),
    Trial("wn_150", 2.0, 7, method="idealised"),
]
"""They ask for three sets of flows."""


def flow_config(**flow: Any) -> Config:
    given = small_config()
    return given.model_copy(update={"flow": given.flow.model_copy(update=FLOW | {"share": True} | flow)})


def sets(given: Config) -> list[FlowSet]:
    """What the trials will ask for."""
    torch.set_num_threads(1)
    tables = small_tables(given)
    return [one.drawn([tables], given) for one in wanted_by(TRIALS, {"id": 1}, given)]


@pytest.fixture(scope="module")
def made_in_process() -> dict[str, dict[str, Any]]:
    """The states by key, without Ray."""
    return {one.key: one.fit().state() for one in sets(flow_config())}


def assert_made(ledger: Path, expected: dict[str, dict[str, Any]]) -> None:
    """The store holds these flows, bit by bit, and nothing else."""
    assert {path.name for path in (ledger / FOLDER).iterdir()} == {f"{key}.pt" for key in expected}
    for key, state in expected.items():
        found = torch.load(ledger / FOLDER / f"{key}.pt", weights_only=True)
        assert found.keys() == state.keys()
        for name, value in state["model"].items():
            assert torch.equal(found["model"][name], value), name
        assert torch.equal(found["part"], state["part"])
    assert not [path for path in (ledger / "train").iterdir() if path.suffix != ".json"]


def test_the_members_of_a_set_are_three_blocks():
    assert [one.blocks for one in sets(flow_config())] == 3 * [[[0, 1], [2, 3], [4, 5]]]


def test_trials_ask_for_each_set_of_flows_once():
    shared, own = flow_config(), flow_config(share=False)
    assert [one.trial for one in wanted_by(TRIALS, {"id": 1}, shared)] == TRIALS[:3]
    assert [one.trial for one in wanted_by(TRIALS, {"id": 1}, own)] == TRIALS[:5]
    two = wanted_by(TRIALS[:2], {"id": 2}, shared)
    assert [(one.encoder, one.trial.instance) for one in two] == [(0, 0), (1, 0), (0, 1), (1, 1)]
    raw = [*TRIALS[:1], Trial(NO_SIGNAL, 0.0, 0, "raw"), *TRIALS[1:3]]  # another shape: trained by itself
    wanted = wanted_by(raw, {"id": 1, "raw": 1}, shared)
    assert [[(one.name, one.trial.instance) for one in stack] for stack in stacks_of(wanted, shared, 2)] == [
        [("id", 0), ("id", 1)],
        [("id", 2)],
        [("raw", 0)],
    ]


@pytest.mark.ray
def test_two_workers_make_the_flows_of_the_trials_though_one_is_killed(ray_local, made_in_process, tmp_path):
    given, book, killed = flow_config(), Ledger(tmp_path), []

    def kill(record: dict[str, Any]) -> None:
        if record["epoch"] == 2 and not killed:
            every = psutil.Process().children(recursive=True)
            workers = [p for p in every if any("RayTrainWorker" in part for part in p.cmdline())]
            killed.append(len(workers))
            os.kill(workers[-1].pid, signal.SIGKILL)

    tables = small_tables(given)
    assert make_flows({"id": [tables]}, given, TRIALS, book, given.resources, kill) == 3
    assert killed == [2]
    assert_made(tmp_path, made_in_process)

    def stage(kind: str, key: str, make: Any) -> dict[str, Any]:
        def never() -> dict[str, Any]:
            raise AssertionError("a trial trains flows of its own")

        return book.stage(kind, key, never)

    for trial in TRIALS[3:5]:
        assert search(tables, given, trial, Tools(stage=stage)).rows[0]["flow_stage"] in made_in_process


@pytest.mark.ray
def test_progress_ends_with_the_last_of_several_stacks(ray_local, monkeypatch, tmp_path):
    monkeypatch.setattr("raypipe.cluster.flows.ROWS", 1)  # one set a worker at a time
    given, told = flow_config(), []
    make_flows({"id": [small_tables(given)]}, given, TRIALS, Ledger(tmp_path), given.resources, told.append)
    assert [record["sets"] for record in told if record["epoch"] == 0] == [2, 1]
    assert sum(1 / record["stacks"] for record in told) == pytest.approx(given.flow.epochs)


@pytest.mark.ray
def test_two_drivers_that_start_together_make_each_set_once(made_in_process, tmp_path):
    """Each has one worker, and one Ray of its own."""
    drivers = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.cluster.stages", "flows", str(tmp_path), "1"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    made = [told(driver.communicate(timeout=240)[0]) for driver in drivers]
    assert sum(made) == 3, made
    assert_made(tmp_path, made_in_process)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    with nodes(2) as running:
        yield running


@pytest.mark.ray
def test_two_nodes_give_the_bits_of_one(cluster, made_in_process, tmp_path):
    process = cluster.start("tests.cluster.stages", "flows", tmp_path, 0)
    try:
        out, _ = process.communicate(timeout=240)
    finally:
        process.kill()
    assert process.returncode == 0, out[-3000:]
    assert told(out) == 3
    assert_made(tmp_path, made_in_process)
