"""What needs more than one node: a piece of work asks for what one node offers, never for the whole cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from raypipe.cluster.inputs import read_inputs
from raypipe.cluster.train import load_encoder
from raypipe.events.table import write_table
from raypipe.fit.encoder import fit_encoder
from raypipe.store.ledger import Ledger
from tests.cluster.nodes import Nodes, nodes, told
from tests.cluster.stages import BETAS
from tests.cluster.test_train import GROUPS, assert_same, config
from tests.events.helpers import event_table

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    """Two nodes of one core each, and a head without any."""
    with nodes(2) as running:
        yield running


@pytest.fixture(scope="module")
def events(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("events")
    for k, (name, group) in enumerate(GROUPS.items()):
        table = event_table(300, sample=name, group=group, split="embedding", first=1000 * k)
        write_table(table, folder / "embedding" / f"{name}.parquet")
    return folder


def run(cluster: Nodes, *arguments: object) -> str:
    process = cluster.start("tests.cluster.stages", *arguments)
    try:
        out, _ = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 0, out[-3000:]
    return out


def test_two_nodes_train_one_encoder(cluster, events, tmp_path):
    """One worker has one of two nodes; two workers have one each, and give its weights within rounding."""
    run(cluster, "train", events, tmp_path / "1", 1)
    run(cluster, "train", events, tmp_path / "2", 2)
    (one, first), (two, second) = (load_encoder(tmp_path / str(n)) for n in (1, 2))
    for (name, a), b in zip(one.named_parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4, msg=lambda m, name=name: f"{name}: {m}")
    assert [r["loss"] for r in second["history"]] == pytest.approx([r["loss"] for r in first["history"]], rel=1e-4)


def assert_beside(found: dict, events: Path, folder: Path, count: int) -> None:
    """So many trained at the same time; each is the encoder that the plain training gives, epoch by epoch."""
    assert found["at_once"] == count
    assert len(found["spans"]) == count
    assert max(start for start, _, _ in found["spans"]) < min(end for _, end, _ in found["spans"])
    told = []
    for beta in BETAS[:count]:
        given = config(epochs=40, patience=40, beta=beta)
        plain, history = fit_encoder(read_inputs(given, events), given.embedding, given.seed)
        assert_same(load_encoder(folder / str(beta))[0], plain, rtol=1e-5, atol=1e-6)
        told += [record["kl"] for record in history]
    assert sorted(found["told"]["epoch"]) == sorted(list(range(40)) * count)
    assert sorted(found["told"]["kl"]) == pytest.approx(sorted(told), rel=1e-3)


def test_encoders_train_side_by_side_where_there_are_nodes(cluster, events, tmp_path):
    """One on each node at the same time."""
    found = told(run(cluster, "beside", events, tmp_path, 2, 0))
    assert found["alone"] == 1  # with two workers an encoder takes both nodes
    assert found["spans"][0][2] != found["spans"][1][2]
    assert_beside(found, events, tmp_path, 2)


def test_four_encoders_train_at_the_same_time_on_four_gpus(cluster, events, tmp_path):
    node = cluster.add(wait=True, num_cpus=4, num_gpus=4)
    try:
        found = told(run(cluster, "beside", events, tmp_path, 4, 1))
    finally:
        cluster.kill_node(node)
    assert_beside(found, events, tmp_path, 4)


def test_an_encoder_that_cannot_be_trained_is_one_line_of_a_trial(cluster, events, tmp_path):
    assert "UserError: group -1 has" in run(cluster, "refused", events, tmp_path)


def test_one_gpu_starts_one_embedding_actor(cluster, events, tmp_path):
    run(cluster, "train", events, tmp_path, 1)
    node = cluster.add(wait=True, num_cpus=16, num_gpus=1)
    try:
        found = told(run(cluster, "embed", events, tmp_path))
    finally:
        cluster.kill_node(node)
    assert found["rows"] == 3 * 300
    assert found["actors"] == 1, found


def test_a_trial_fetches_its_own_tables_and_no_others(cluster, tmp_path):
    found = told(run(cluster, "scan", tmp_path))
    assert found["bytes"] < 10_000  # of references; each table has a megabyte
    of_id, of_raw = found["nodes"]
    assert of_id == 1  # where the driver put it
    assert of_raw > 1
    rows = Ledger(tmp_path).rows(key.stem for key in (tmp_path / "rows").iterdir())
    assert {row["embedding"] for row in rows} == {"raw"}
    assert len({row["instance"] for row in rows}) == 2
