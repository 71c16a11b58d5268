"""The simulation on Ray: same files whatever the concurrency, nothing made twice, failures told with their sample."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time

import pytest

from raypipe.cluster import simulate as shell
from raypipe.config import Config
from raypipe.errors import UserError
from raypipe.simulate import dataset
from raypipe.simulate.dataset import Shard

SAMPLES = {"zp_400": {"events": 60}, "ggf": {"events": 40}}


def _config(samples=SAMPLES, **simulate) -> Config:
    names = list(samples)
    return Config.model_validate(
        {
            "seed": 3,
            "simulate": {"samples": samples, "shard_events": 20, **simulate},
            "embedding": {"samples": names},
            "pseudodata": {"background": names},
            "selection": {"working_points": [0.01]},
            "scan": {"signals": names, "strengths": [1.0]},
        }
    )


def _children_cpu() -> float:
    """CPU seconds of finished child processes: a busy machine stretches wall time."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted((folder / "events").rglob("*.parquet"))}


@pytest.mark.ray
def test_one_and_two_at_a_time_give_the_same_files(ray_local, tmp_path):
    first = shell.simulate(_config(), tmp_path / "one", concurrency=1)
    second = shell.simulate(_config(), tmp_path / "two", concurrency=2)
    files = _files(tmp_path / "one")
    assert len(files) == 4 + 5  # four tables from five shards
    assert files == _files(tmp_path / "two")
    assert first["key"] == second["key"]
    for name in SAMPLES:
        assert first["samples"][name]["yield_per_fb"] == second["samples"][name]["yield_per_fb"]
        assert first["samples"][name]["max_rss_mib"] < 700

    # Damage is found and mended, and only that is made again.
    lost = tmp_path / "one" / "events" / "shards" / "ggf" / "00001.parquet"
    kept = tmp_path / "one" / "events" / "shards" / "ggf" / "00000.parquet"
    before = kept.stat().st_mtime_ns
    lost.write_bytes(lost.read_bytes()[:500])
    (tmp_path / "one" / "events" / "dataset.json").unlink()
    assert not dataset.is_complete(dataset.plan(_config()), tmp_path / "one" / "events")
    shell.simulate(_config(), tmp_path / "one")
    assert _files(tmp_path / "one") == files
    assert kept.stat().st_mtime_ns == before
    assert dataset.is_complete(dataset.plan(_config()), tmp_path / "one" / "events")

    # The rest of the run needs no Ray when all is there.
    code = (
        "import sys, time; from pathlib import Path; from raypipe.cluster import simulate as s; "
        "from raypipe.config import Config; t = time.perf_counter(); "
        f"c = Config.model_validate_json({_config().model_dump_json()!r}); "
        f"m = s.simulate(c, Path({str(tmp_path / 'one')!r})); "
        "assert not {'ray', 'pythia8mc', 'fastjet'} & set(sys.modules); print(len(m['samples']))"
    )
    began = _children_cpu()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "2", done.stderr
    assert _children_cpu() - began < 5  # mostly imports


@pytest.mark.ray
def test_a_lost_worker_costs_its_shard_only(ray_local, tmp_path, monkeypatch):
    """A process that dies in the middle of shard 1: that shard is made again, to the same bits, and no other one."""
    config = _config({"zp_400": {"events": 60}})
    shell.simulate(config, tmp_path / "calm", concurrency=2)
    attempts = tmp_path / "attempts"
    attempts.mkdir()

    def mortal(shard, events):
        first_time = not list(attempts.glob(f"{shard.number}-*"))
        (attempts / f"{shard.number}-{os.getpid()}-{time.monotonic_ns()}").touch()
        if shard.number == 1 and first_time:
            os.kill(os.getpid(), 9)
        return shard.make(events)

    monkeypatch.setattr(shell, "_make_shard", lambda shard, events: mortal(shard, events))
    shell.simulate(config, tmp_path / "lossy", concurrency=1)
    assert sorted(path.name.split("-")[0] for path in attempts.iterdir()) == ["0", "1", "1", "2"]
    assert _files(tmp_path / "lossy") == _files(tmp_path / "calm")


@pytest.mark.ray
def test_failing_shard_names_its_sample(ray_local, tmp_path, monkeypatch):
    def broken(self, folder):
        raise ValueError("the generator is on fire")

    monkeypatch.setattr(shell, "_make_shard", lambda shard, events: broken(shard, events))
    with pytest.raises(RuntimeError, match=r"sample ggf, shard 0 \(seed \d+\) failed:[\s\S]*generator is on fire"):
        shell.simulate(_config({"ggf": {"events": 5}}), tmp_path)
    assert not (tmp_path / "events" / "dataset.json").exists()


def test_unusable_requests_before_anything_starts(tmp_path):
    with pytest.raises(UserError, match="unknown sample 'susy'"):
        shell.simulate(_config({"susy": {}}), tmp_path)
    assert not list(tmp_path.iterdir())
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(UserError, match="cannot create this folder"):
        shell.simulate(_config(), blocked)


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write anywhere")
def test_read_only_folder(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match=r"cannot create this folder|not writable"):
        shell.simulate(_config(), tmp_path)


def test_extra_shards_are_looked_for_before_being_made(tmp_path):
    """A resumed run finds the shards that went beyond the plan, too."""
    sample = shell.dataset.plan(_config({"ggf": {"events": 40}})).samples["ggf"]
    made = {number: {"n_selected": 15} for number in range(2)}
    shared = shell.Shared(shell.Artefacts(None), tmp_path)
    needed = shell._needed(sample, made, shared)
    assert [shard.number for shard in needed] == [2]
    assert all(isinstance(shard, Shard) for shard in needed)
    made[2] = {"n_selected": 15}
    assert shell._needed(sample, made, shared) == []
    # Progress: 45 events of 40 are no more than all of them.
    assert [shell._done(sample, {n: made[n] for n in range(k)}) for k in range(4)] == [0, 15, 30, 40]
