"""Four-lepton samples on Ray: the same files whatever the concurrency, and nothing made twice."""

from __future__ import annotations

import pytest

from raypipe.cluster import simulate as shell
from raypipe.config import load_config
from raypipe.simulate import dataset
from tests.conftest import ROOT


@pytest.mark.ray
def test_one_and_two_at_a_time_give_the_same_files(ray_local, tmp_path):
    config = load_config(
        ROOT / "configs" / "fourlepton" / "laptop.yaml",
        ["simulate.samples={qq4l: {events: 30}, abc_250: {events: 20}}", "simulate.shard_events=15"],
    )
    manifest = shell.simulate(config, tmp_path / "one", concurrency=1)
    shell.simulate(config, tmp_path / "two", concurrency=2)
    files = [
        {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*.parquet"))}
        for folder in (tmp_path / "one", tmp_path / "two")
    ]
    assert len(files[0]) >= 4 + 4
    assert files[0] == files[1]
    assert {entry["final_state"] for entry in manifest["samples"].values()} == {"four_leptons"}

    kept = tmp_path / "one" / "events" / "shards" / "qq4l" / "00000.parquet"
    before = kept.stat().st_mtime_ns
    (tmp_path / "one" / "events" / "shards" / "qq4l" / "00001.parquet").unlink()
    (tmp_path / "one" / "events" / "dataset.json").unlink()
    again = shell.simulate(config, tmp_path / "one")
    assert again["key"] == manifest["key"]
    assert kept.stat().st_mtime_ns == before
    assert dataset.is_complete(dataset.plan(config), tmp_path / "one" / "events")
