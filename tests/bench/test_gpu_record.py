"""The GPU record on a CPU at tiny size: the same script, from packed events to the last step."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gpurecord import events, record

from raypipe.config import load_config
from raypipe.events.diphoton import View
from raypipe.events.schema import SPLITS
from raypipe.events.table import read_table, sample_path, write_table
from raypipe.fit.batches import prefetched
from raypipe.search.diphoton import sample_groups
from tests.conftest import ROOT
from tests.events.helpers import event_table

CONFIGS = ROOT / "configs" / "contrastive"
ABSENT = (
    "ray",
    "xgboost_ray",
    "mlflow",
    "pythia8",
    "fastjet",
    "awkward",
    "uproot",
    "iminuit",
    "click",
    "jinja2",
    "mplhep",
    "vector",
    "hist",
    "h5py",
    "hdf5plugin",
)
"""What the GPU machine does not have."""


@pytest.fixture(scope="module")
def simulated(tmp_path_factory) -> Path:
    """Made-up events of all samples of gpu.yaml, in the folders that the simulation makes."""
    folder = tmp_path_factory.mktemp("events")
    groups, config = sample_groups(), load_config(CONFIGS / "gpu.yaml")
    for number, name in enumerate(config.simulate.samples):
        for half, split in enumerate(SPLITS):
            n = 3000 if (name, split) == ("yy", "search") else 200
            weight = 0.1 if name == "yy" else 1e-3
            table = event_table(
                n,
                sample=name,
                group=groups[name],
                split=split,
                first=(2 * number + half) * 10_000,
                weight=weight,
                seed=number,
            )
            path = folder / split / f"{name}.parquet"
            path.parent.mkdir(exist_ok=True)
            write_table(table, path)
            assert sample_path(folder, split, name) == path
    return folder


@pytest.fixture(scope="module")
def packed(simulated) -> Path:
    path = simulated / "events.npz"
    config = load_config(CONFIGS / "gpu.yaml")
    size = events.pack(config, simulated, path)
    assert size < 100 * 8200  # below 100 bytes an event: 400,000 of them are below 40 MB
    return path


def test_packed_events_are_what_the_encoder_is_shown(packed, simulated):
    config, given = load_config(CONFIGS / "gpu.yaml"), events.load(packed)
    table, view = read_table(sample_path(simulated, "embedding", "wn_150")), View.of(config.embedding)
    rows = (given.sample == "wn_150") & ~given.search
    assert (given.event_id[rows] == table["event_id"].to_numpy()).all()
    # float16 has eleven bits: 0.05 % each; types and absent objects are exact.
    np.testing.assert_allclose(given.objects[rows], view.objects(table), rtol=5e-4, atol=1e-4)
    assert ((given.objects[rows] == 0) == (view.objects(table).astype(np.float16) == 0)).all()
    np.testing.assert_allclose(given.event[rows], view.event(table), rtol=5e-4, atol=1e-4)
    np.testing.assert_allclose(given.mass[rows], table["m_yy"].to_numpy(), rtol=1e-6)
    training = given.training(config.embedding.samples)
    assert (np.diff(training.event_id) > 0).all()
    assert len(training.event_id) == 200 * len(config.simulate.samples)


def test_every_step_runs_and_is_not_repeated(packed, tmp_path):
    command = [
        sys.executable,
        str(ROOT / "jobs" / "gpu_record.py"),
        "--input",
        str(packed),
        "--configs",
        str(CONFIGS),
        "--out",
        str(tmp_path),
        "--device",
        "cpu",
        "--tiny",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    steps = json.loads((tmp_path / record.RECORD).read_text())["steps"]
    assert list(steps) == list(record.STEPS)
    assert all(step["complete"] and step["machine"]["torch"] for step in steps.values())
    assert steps["correctness"]["ok"]
    compared = steps["correctness"]["comparisons"]
    assert 0 < compared["encoder, gradient"]["difference"] < 1e-4  # padded against packed: the same function
    assert 0 < compared["flows, spline, gradient"]["difference"] < 1e-4
    assert steps["flows"]["largest_validation_difference"] < 1e-4
    assert steps["networks"]["mlc"]["loss_difference"] < 1e-5
    rows = steps["sic"]["sic"]
    assert {(row["encoder"], row["method"], row["point"]) for row in rows} == {
        (encoder, method, point)
        for encoder in ("paper", "laptop")
        for method in ("supervised", "idealised")
        for point in (0.3, 0.1)
    }
    again = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
    assert again.returncode == 0
    assert again.stdout.count("done before") == len(record.STEPS)


def test_a_step_that_takes_too_long_is_stopped_and_the_next_one_runs(packed, tmp_path, monkeypatch, capfd):
    monkeypatch.setitem(record.STEPS, "encoders", record.Step(record.STEPS["encoders"].make, 0.2))
    arguments = [
        "--input",
        str(packed),
        "--configs",
        str(CONFIGS),
        "--out",
        str(tmp_path),
        "--device",
        "cpu",
        "--tiny",
        "--steps",
        "encoders",
        "networks",
    ]
    assert record.main(arguments) == 1
    assert "encoders: stopped at its time limit" in capfd.readouterr().out
    assert json.loads((tmp_path / record.RECORD).read_text())["steps"]["networks"]["complete"]


def test_what_is_missing_is_one_line(tmp_path, capsys):
    assert record.main(["--device", "cpu", "--input", str(tmp_path / "none.npz")]) == 2
    assert capsys.readouterr().err == f"gpu_record: {tmp_path}/none.npz: no such file; `make gpu-input` makes it\n"
    np.savez(tmp_path / "other.npz", x=np.arange(3))
    with pytest.raises(Exception, match=r"other\.npz: not a file of packed events \(array 'present' is missing\)"):
        events.load(tmp_path / "other.npz")


def test_the_core_needs_none_of_the_packages_that_the_gpu_machine_lacks():
    code = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] in {ABSENT!r}: raise ImportError(name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "import gpurecord.record, raypipe.fit.classify, raypipe.fit.vae, raypipe.stats.hunt\n"
        "from raypipe.search import contrastive, haxad, multilepton, table\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT / "jobs")
    assert done.returncode == 0, done.stderr


def test_prefetched_values_keep_their_order_and_their_errors():
    assert list(prefetched(iter(range(100)), ahead=3)) == list(range(100))

    def broken():
        yield 1
        raise RuntimeError("lost")

    values = prefetched(broken())
    assert next(values) == 1
    with pytest.raises(RuntimeError, match="lost"):
        next(values)
