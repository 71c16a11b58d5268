"""Plans, resuming, and the final tables with their weights."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

from raypipe.config import Config
from raypipe.errors import UserError
from raypipe.events.table import sample_path
from raypipe.simulate import dataset
from raypipe.simulate.shard import simulate_shard
from tests.events.helpers import read_events


def config(samples, **simulate) -> Config:
    """A configuration whose other sections do not matter here."""
    names = list(samples)
    return Config.model_validate(
        {
            "seed": 7,
            "simulate": {"samples": samples, **simulate},
            "embedding": {"samples": names},
            "pseudodata": {"background": names},
            "selection": {"working_points": [0.01]},
            "scan": {"signals": names, "strengths": [1.0]},
        }
    )


def fill(plan, folder):
    """Make every missing shard here, as a scheduler would; the sidecars and how many were made."""
    sidecars, made = {}, 0
    for name, sample in plan.samples.items():
        found = sidecars[name] = []
        while more := sample.missing(found):
            for _ in range(more):
                shard = sample.shard(len(found))
                sidecar = shard.finished(folder)
                if sidecar is None:
                    sidecar, made = shard.make(folder), made + 1
                found.append(sidecar)
    return sidecars, made


SMALL = {"ggf": {"events": 60, "embedding_fraction": 0.3}, "zp_400": {"events": 40}}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A small finished data set: (plan, folder, manifest)."""
    folder = tmp_path_factory.mktemp("events")
    plan = dataset.plan(config(SMALL, shard_events=30))
    sidecars, _ = fill(plan, folder)
    return plan, folder, dataset.assemble(plan, folder, sidecars)


def test_plan_sizes():
    plan = dataset.plan(config({"ggf": {"events": 10_000}, "yy": {"events": 100}}, shard_events=4000))
    ggf, yy = plan.samples["ggf"], plan.samples["yy"]
    assert (ggf.expected, yy.expected) == (3, 1)
    selected = ggf.template.n_generate * ggf.template.process.efficiency
    assert 10_000 / 3 * 1.01 < selected < 10_000 / 3 * 1.06
    assert len({ggf.shard(i).seed for i in range(5)} | {yy.shard(i).seed for i in range(5)}) == 10
    assert len({ggf.shard(i).key for i in range(5)}) == 5


def test_keys_depend_on_what_matters():
    base = dataset.plan(config(SMALL)).samples["ggf"].shard(0)
    assert base.key == dataset.plan(config(dict(reversed(SMALL.items())))).samples["ggf"].shard(0).key
    for changed in (
        config({"ggf": {"events": 70, "embedding_fraction": 0.3}}),
        config({"ggf": {"events": 60}}),
        config(SMALL, mpi=True),
        config(SMALL, met_smearing=1.0),
    ):
        assert dataset.plan(changed).samples["ggf"].shard(0).key != base.key


def test_more_shards_until_the_target_is_met():
    sample = dataset.plan(config({"ggf": {"events": 100}}, shard_events=50)).samples["ggf"]
    made = [{"n_selected": 45}, {"n_selected": 45}]
    assert sample.missing([]) == 2
    assert sample.missing(made[:1]) == 1
    assert sample.missing(made) == 1
    assert sample.missing([*made, {"n_selected": 45}]) == 0
    with pytest.raises(RuntimeError, match="sample ggf: 0 of"):
        sample.missing([{"n_selected": 0}] * 2)


def test_tables_weights_and_manifest(finished):
    _, folder, manifest = finished
    ids = []
    for name, wanted in (("ggf", 60), ("zp_400", 40)):
        entry = manifest["samples"][name]
        assert entry["n"] >= wanted
        assert entry["n"] == sum(entry["n_split"].values()) == entry["cut_flow"]["mass_window"]
        assert entry["efficiency"] == pytest.approx(entry["n"] / entry["n_generated"])
        for split in ("embedding", "search"):
            table = read_events(sample_path(folder, split, name))
            assert table.num_rows == entry["n_split"][split]
            assert set(table["sample"].to_pylist()) == {name}
            assert set(table["split"].to_pylist()) == {split}
            # Each split stands for the whole expected yield.
            assert table["weight"].to_numpy().sum() == pytest.approx(entry["yield_per_fb"], rel=1e-12)
            ids.append(table["event_id"].to_numpy())
    all_ids = np.concatenate(ids)
    assert len(np.unique(all_ids)) == len(all_ids)
    ggf = manifest["samples"]["ggf"]
    assert ggf["yield_per_fb"] == pytest.approx(48.58e3 * 2.27e-3 * ggf["efficiency"])
    assert manifest["samples"]["zp_400"]["yield_per_fb"] == pytest.approx(manifest["samples"]["zp_400"]["efficiency"])
    assert json.loads((folder / "dataset.json").read_text()) == manifest


def test_complete_is_cheap_and_strict(finished):
    plan, folder, _ = finished
    began = time.perf_counter()
    assert dataset.is_complete(plan, folder)
    assert dataset.is_complete(dataset.plan(config(SMALL, shard_events=30)), folder)
    assert time.perf_counter() - began < 0.5
    assert not dataset.is_complete(dataset.plan(config(SMALL, shard_events=20)), folder)
    assert not dataset.is_complete(plan, folder / "elsewhere")
    victim = sample_path(folder, "search", "ggf")
    whole = victim.read_bytes()
    victim.write_bytes(whole[:-100])
    assert not dataset.is_complete(plan, folder)
    victim.write_bytes(whole)
    assert dataset.is_complete(plan, folder)


def test_resume_remakes_only_what_is_damaged(finished):
    plan, folder, manifest = finished
    before = {path: path.read_bytes() for path in folder.glob("*/*.parquet")}
    assert len(before) == 4
    sidecars, made = fill(plan, folder)
    assert made == 0
    ggf = plan.samples["ggf"]
    truncated, gone, flipped = ggf.shard(0).path(folder), ggf.shard(1).path(folder), plan.samples["zp_400"].shard(0)
    truncated.write_bytes(truncated.read_bytes()[:2000])
    gone.unlink()
    damaged = bytearray(flipped.path(folder).read_bytes())
    damaged[len(damaged) // 2] ^= 1
    flipped.path(folder).write_bytes(bytes(damaged))
    sidecars, made = fill(plan, folder)
    assert made == 3
    again = dataset.assemble(plan, folder, sidecars)
    assert {path: path.read_bytes() for path in folder.glob("*/*.parquet")} == before
    for name in manifest["samples"]:
        timing = {"cpu_seconds", "max_rss_mib"}
        assert {k: v for k, v in again["samples"][name].items() if k not in timing} == {
            k: v for k, v in manifest["samples"][name].items() if k not in timing
        }


def test_other_code_is_not_taken_for_this(finished, monkeypatch):
    plan, folder, _ = finished
    assert plan.samples["ggf"].shard(0).finished(folder)
    monkeypatch.setattr(dataset, "code_digest", lambda *rooms: "another")
    newer = dataset.plan(config(SMALL, shard_events=30))
    assert newer.samples["ggf"].shard(0).finished(folder) is None
    assert not dataset.is_complete(newer, folder)


def test_samples_no_longer_wanted_disappear(tmp_path):
    two = dataset.plan(config({"zp_400": {"events": 10}, "wn_300": {"events": 10}}))
    dataset.assemble(two, tmp_path, fill(two, tmp_path)[0])
    assert sample_path(tmp_path, "search", "wn_300").exists()
    one = dataset.plan(config({"zp_400": {"events": 10}}))
    dataset.assemble(one, tmp_path, fill(one, tmp_path)[0])
    with pytest.raises(UserError, match="wn_300"):
        sample_path(tmp_path, "search", "wn_300")


def test_shards_are_independent(finished):
    plan, folder, _ = finished
    first, second = (plan.samples["ggf"].shard(i) for i in (0, 1))
    table = simulate_shard(
        second.process, second.card, seed=second.seed, shard=1, n_generate=second.n_generate, embedding_fraction=0.3
    )[0]
    from raypipe.events.table import read_table

    assert table["m_yy"].equals(read_table(second.path(folder))["m_yy"])  # needs no other shard
    assert not np.isin(table["m_yy"].to_numpy(), read_table(first.path(folder))["m_yy"].to_numpy()).any()


def test_bad_requests_are_one_line():
    with pytest.raises(UserError, match=r"unknown sample 'wn_151'.*did you mean 'wn_150'"):
        dataset.plan(config({"wn_151": {}}))
    with pytest.raises(UserError, match="unknown detector card 'lep'"):
        dataset.plan(config(SMALL, card="lep"))
    wide = config(SMALL).model_copy(update={"window": config(SMALL).window.model_copy(update={"low": 100.0})})
    with pytest.raises(UserError, match="window: 100-160 GeV, but simulated events are selected in 105-160 GeV"):
        dataset.plan(wide)
