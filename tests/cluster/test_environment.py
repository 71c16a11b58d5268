"""Doctor, cores, memory and tracking: what they find, and what they say when something is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import psutil
import pytest

from raypipe.cluster import doctor, machine
from raypipe.cluster.machine import MemoryWatch
from raypipe.cluster.tracking import record, tracking_uri
from raypipe.config import load_config
from tests.conftest import ROOT


def test_doctor_finds_a_working_machine(tmp_path, laptop_yaml):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_"))}
    done = subprocess.run(
        [sys.executable, "-m", "raypipe.cli", "doctor", "--config", str(laptop_yaml), "--json"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    checks = {c["name"]: c for c in json.loads(done.stdout)}
    assert {"python", "packages", "kernel", "threads", "memory", "gpu", "ray", "output", "mlflow"} <= set(checks)
    assert checks["ray"]["status"] == "ok"


def test_doctor_says_what_is_wrong_and_how_to_mend_it(monkeypatch, tmp_path, laptop_yaml):
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    threads = {check.name: check for check in doctor._machine()}["threads"]
    assert threads.status == "wrong"
    assert "unset OMP_NUM_THREADS" in threads.remedy
    blocked = tmp_path / "file"
    blocked.write_text("")
    config = load_config(laptop_yaml, [f"output={blocked}/run"])
    assert doctor._disk(config).status == "wrong"
    assert "choose another folder" in doctor._disk(config).remedy
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert doctor._tracking(load_config(laptop_yaml)).status == "wrong"
    monkeypatch.setattr(doctor.importlib.metadata, "requires", lambda _: ["numpy<1", "no_such_package>=2"])
    found = {c.name: c for c in doctor._packages()}
    assert "needs <1" in found["numpy"].found
    assert found["no_such_package"].remedy == "pip install 'no_such_package>=2'"


def test_tracking_uri_precedence(monkeypatch, laptop_yaml):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri(load_config(laptop_yaml)).startswith("sqlite:///")
    assert tracking_uri(load_config(laptop_yaml, ["tracking.uri=http://a"])) == "http://a"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://b")
    assert tracking_uri(load_config(laptop_yaml, ["tracking.uri=http://a"])) == "http://b"


def test_unreachable_tracking_costs_a_warning_not_the_results(monkeypatch, tmp_path, laptop_yaml, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    config = load_config(laptop_yaml, [f"output={tmp_path}"])
    assert record(config, "one", {}, lambda run: None) is None
    assert "did not record this run" in capsys.readouterr().err
    assert not (tmp_path / "tracking.json").exists()


def test_cores_are_those_of_the_affinity():
    one = min(os.sched_getaffinity(0))
    code = f"import os; os.sched_setaffinity(0, [{one}])\nfrom raypipe.cluster.machine import usable_cores as cores\n"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}print(cores())"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=120,
        check=True,
    )
    assert done.stdout.strip() == "1"


@pytest.mark.parametrize(
    ("membership", "files", "cores", "gib"),
    [
        ("0::/job/step", {"job/cpu.max": "200000 100000", "job/step/cpu.max": "max 100000"}, 2, None),
        (
            "0::/job/step",
            {"job/cpu.max": "max 100000", "job/step/cpu.max": "350000 100000", "job/memory.max": f"{2**30}"},
            3,
            1,
        ),
        ("0::/", {"cpu.max": "50000 100000", "memory.max": "max"}, 1, None),
        ("0::/of/the/host", {"cpu.max": "250000 100000"}, 2, None),
        (
            "3:cpu,cpuacct:/a\n2:memory:/a\n1:name=systemd:/b",
            {
                "cpu,cpuacct/a/cpu.cfs_quota_us": "400000",
                "cpu,cpuacct/a/cpu.cfs_period_us": "100000",
                "cpu,cpuacct/cpu.cfs_quota_us": "-1",
                "cpu,cpuacct/cpu.cfs_period_us": "100000",
                "memory/a/memory.limit_in_bytes": f"{2**31}",
            },
            4,
            2,
        ),
        ("0::/job", {}, 64, None),
    ],
)
def test_cores_and_memory_are_those_of_the_control_groups(monkeypatch, tmp_path, membership, files, cores, gib):
    for name, text in files.items():
        path = tmp_path / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    (tmp_path / "membership").write_text(f"{membership}\n")
    monkeypatch.setattr(machine, "GROUPS", tmp_path / "groups")
    monkeypatch.setattr(machine, "MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert machine.usable_cores() == cores
    whole = psutil.virtual_memory().total / 2**30
    assert machine.machine_memory_gib() == pytest.approx(whole if gib is None else min(gib, whole))


def test_memory_watch_sees_what_is_allocated():
    watch = MemoryWatch()
    watch.interval = 0.05
    with watch:
        import time

        time.sleep(0.2)
        before = watch.peak_gib
        block = np.ones(50_000_000)  # 0.37 GiB
        time.sleep(0.3)
        assert watch.peak_gib - before == pytest.approx(block.nbytes / 2**30, rel=0.2)


@pytest.mark.ray
def test_embedded_ray_is_private(ray_local):
    import ray

    assert os.environ["RAY_AUTH_MODE"] == "token"
    # A stranger, without the token, is turned away.
    code = f"import ray; ray.init(address={ray.get_runtime_context().gcs_address!r}, log_to_driver=False)"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    environment["RAY_AUTH_MODE"] = "disabled"
    environment["RAY_gcs_rpc_server_connect_timeout_s"] = "2"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode != 0
    assert "uthentication" in done.stderr
