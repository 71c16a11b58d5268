"""Starting Ray where batch systems, users and the working folder get in its way, and joining what is not there."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from raypipe.cluster import machine
from raypipe.cluster.runtime import ANSWER_SECONDS, check_answers, cluster_address, hidden_modules
from raypipe.errors import UserError
from tests.conftest import ROOT


def clean(**more: str) -> dict[str, str]:
    """An environment in which nothing is said about Ray or folders for temporary files."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_", "TMPDIR", "XDG_RUNTIME"))}
    return kept | {"PYTHONPATH": str(ROOT)} | more


WHERE = """
import importlib, os, sys
from raypipe.cluster.runtime import ray_session
from raypipe.cluster.tasks import ray_map
from raypipe.config import Resources

def where(name):
    return importlib.import_module(name).__file__, os.getcwd(), os.environ["RAY_JOB_ID"]

with ray_session(Resources(object_store_gib=0.1)):
    import ray
    print("cores", ray.cluster_resources()["CPU"])
    print("folder", ray._private.worker._global_node.get_session_dir_path())
    for file, folder, _ in ray_map(where, ["signal", "types", "queue", "statistics", "numpy"]):
        print("module", file, folder)
"""


@pytest.mark.ray
def test_ray_starts_where_everything_is_in_its_way(tmp_path):
    """A long TMPDIR, modules of Python's and numpy as files of the working folder, one core of two."""
    work, temporary = tmp_path / "work", tmp_path / ("batch-system-" * 8)
    work.mkdir()
    temporary.mkdir()
    for name in ("signal", "types", "queue", "statistics", "numpy"):
        (work / f"{name}.py").write_text("raise RuntimeError('the wrong one')\n")
    (work / "script.txt").write_text(WHERE)
    run = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); exec(open('script.txt').read())"
    done = subprocess.run(
        [sys.executable, "-P", "-c", run],
        cwd=work,
        env=clean(TMPDIR=str(temporary)),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[0] == ["cores", "1.0"]
    session = Path(lines[1][1])
    assert not session.parent.exists()  # nothing of it is left
    assert not list(temporary.iterdir())
    modules = lines[2:]
    assert len(modules) == 5
    assert not [file for _, file, _ in modules if Path(file).is_relative_to(work)]
    assert {folder for _, _, folder in modules} == {str(work)}  # relative paths mean the same


@pytest.mark.ray
def test_doctor_says_all_that_is_in_the_way(tmp_path):
    for name in ("signal", "queue", "types"):
        (tmp_path / f"{name}.py").write_text("x = 1\n")
    long = tmp_path / ("x" * 100)
    done = subprocess.run(
        ["taskset", "-c", str(min(os.sched_getaffinity(0))), sys.executable, "-m", "raypipe.cli", "doctor", "--json"],
        cwd=tmp_path,
        env=clean(TMPDIR=str(long)),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    checks = {c["name"]: c for c in json.loads(done.stdout)}
    assert checks["ray"]["found"] == "embedded, 1 cores"
    assert checks["threads"]["found"].startswith("1 of ")
    assert f"TMPDIR = {long}: its path has {len(str(long))} bytes" in checks["temporary files"]["found"]
    assert "set RAY_TMPDIR" in checks["temporary files"]["remedy"]
    assert "queue.py, signal.py, types.py" in checks["working folder"]["found"]


def test_a_folder_for_ray_is_private_and_short_and_has_space(monkeypatch, tmp_path):
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", "/dev/shm")
    folder = machine.make_folder()
    assert folder.parent == Path("/dev/shm")
    assert folder.stat().st_mode & 0o777 == 0o700
    deepest = f"{folder}/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store.1"
    assert len(deepest) <= 107
    folder.rmdir()
    (tmp_path / "file").write_text("")
    absent, blocked, long = tmp_path / "absent", tmp_path / "file", tmp_path / ("x" * 90)
    monkeypatch.setattr(machine, "LONGEST", len(str(tmp_path)) + 10)
    assert machine.objection(absent) == "no such file or directory"
    assert machine.objection(blocked) == "not a directory"
    assert machine.objection(long) == f"its path has {len(str(long))} bytes, of at most {machine.LONGEST}"
    for path in (absent, blocked, long):
        monkeypatch.setenv("TMPDIR", str(path))
        folder = machine.make_folder()
        assert folder.parent == Path("/tmp")
        folder.rmdir()


def test_no_place_with_space_is_one_line_with_the_remedy(monkeypatch):
    """A full disk, as the file system itself says it: more is asked for than any has."""
    monkeypatch.setattr(machine, "FREE_BYTES", 2**60)
    assert machine.objection(Path("/dev/shm")) in {"no space left on device", "file too large"}
    with pytest.raises(UserError, match=r"no folder for its sockets and logs: .*/tmp \(.*\); set RAY_TMPDIR") as told:
        machine.make_folder()
    assert "\n" not in str(told.value)


def test_files_that_hide_modules(tmp_path):
    for name in ("signal.py", "mine.py", "pytest.py", "test.txt"):
        (tmp_path / name).write_text("")
    for name in ("queue", "json"):
        (tmp_path / name).mkdir()
    (tmp_path / "json" / "__init__.py").write_text("")
    assert hidden_modules(tmp_path) == ["json", "pytest.py", "signal.py"]
    assert hidden_modules(ROOT) == []


def test_python_m_passes_the_working_folder_by(tmp_path):
    for name in ("signal", "queue", "types", "numpy", "click"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('the wrong one')\n")
    done = subprocess.run(
        [sys.executable, "-m", "raypipe.cli", "config"],
        cwd=tmp_path,
        env=clean(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture
def listener():
    """What listens on a port: ``listener(answer)`` gives the port; None accepts and says nothing."""
    sockets: list[socket.socket] = []

    def listen(answer: bytes | None) -> int:
        server = socket.create_server(("127.0.0.1", 0))
        sockets.append(server)

        def serve() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                sockets.append(client)
                client.recv(100)
                if answer is not None:
                    client.sendall(answer)
                    client.close()

        threading.Thread(target=serve, daemon=True).start()
        return server.getsockname()[1]

    yield listen
    for item in sockets:
        item.close()


def test_a_dead_cluster_is_told_soon(listener):
    with socket.create_server(("127.0.0.1", 0)) as free:
        dead = free.getsockname()[1]
    for address, words in (
        (f"127.0.0.1:{dead}", "connection refused"),
        (f"ray://127.0.0.1:{dead}", "connection refused"),
        (f"[::1]:{dead}", r"connection refused|cannot assign|not supported"),
        (f"127.0.0.1:{listener(None)}", "no answer within 6 s|timed out"),
        (f"127.0.0.1:{listener(b'HTTP/1.1 400 Bad Request')}", "what listens there is not Ray"),
        ("http://127.0.0.1:8265", "not of the form host:port"),
        ("localhost", "not of the form host:port"),
        ("127.0.0.1:99999", "not of the form host:port"),
    ):
        began = time.monotonic()
        with pytest.raises(UserError, match=rf"RAY_ADDRESS = .*: ({words}); start the cluster") as told:
            check_answers(address)
        assert time.monotonic() - began < ANSWER_SECONDS + 1
        assert address in str(told.value)


def test_a_dead_address_ends_commands_and_doctor(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    config = str(ROOT / "configs" / "contrastive" / "laptop.yaml")
    for arguments, status in (
        (["doctor"], 1),
        (["simulate", "--config", config, "--output", str(tmp_path / "run")], 2),
    ):
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "raypipe.cli", *arguments],
            env=clean(RAY_ADDRESS=address),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert time.monotonic() - began < 60  # 3 s on a machine of one's own
        assert done.returncode == status, done.stderr
        assert f"RAY_ADDRESS = {address}: connection refused" in done.stderr
        assert "unset it" in done.stderr
        if status == 2:
            said = done.stderr.strip().splitlines()
            assert (len(said), said[0].startswith("simulate: ")) == (2, True)


@pytest.mark.parametrize(("given", "found"), [(None, None), ("", None), ("local", None), ("a:1", "a:1")])
def test_which_cluster_is_meant(monkeypatch, given, found):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if given is not None:
        monkeypatch.setenv("RAY_ADDRESS", given)
    assert cluster_address() == found
