"""A real ``ray start --head`` with its job server: own ports, own folder, a token, ended by process id."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from tests.conftest import ROOT


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for item in sockets:
            item.bind(("127.0.0.1", 0))
        return [item.getsockname()[1] for item in sockets]


class Head:
    """A running head.

    Attributes:
        url: of the job server; token: what opens it; environment: what a client needs.
    """

    def __init__(self, cpus: int, folder: Path) -> None:
        self.folder, self.token = folder, secrets.token_hex(16)
        port, dashboard, client, agent = free_ports(4)
        self.url, self.port = f"http://127.0.0.1:{dashboard}", dashboard
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_"))}
        secret = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # a job's `python` is this one
        self.environment = clean | secret | {"PYTHONPATH": str(ROOT), "PATH": path}
        self.log = open(folder / "head.log", "w")  # noqa: SIM115
        self.process = subprocess.Popen(
            [
                str(Path(sys.executable).parent / "ray"),
                "start",
                "--head",
                "--block",
                "--node-ip-address=127.0.0.1",
                f"--port={port}",
                f"--dashboard-port={dashboard}",
                "--dashboard-host=127.0.0.1",
                f"--ray-client-server-port={client}",
                f"--dashboard-agent-listen-port={agent}",
                f"--num-cpus={cpus}",
                f"--temp-dir={folder}/ray",
                "--object-store-memory=150000000",
                "--disable-usage-stats",
            ],
            env=self.environment,
            cwd=folder,
            stdout=self.log,
            stderr=subprocess.STDOUT,
        )

    def get(self, path: str, headers: dict[str, str] | None = None) -> int:
        """HTTP status of a request to the job server."""
        request = urllib.request.Request(f"{self.url}{path}", headers=headers or {})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    def wait(self, seconds: float = 120) -> None:
        """Until the job server answers."""
        end = time.monotonic() + seconds
        while True:
            with contextlib.suppress(OSError):
                if self.get("/api/jobs/", {"Authorization": f"Bearer {self.token}"}) == 200:
                    return
            assert self.process.poll() is None, (self.folder / "head.log").read_text()[-3000:]
            assert time.monotonic() < end, (self.folder / "head.log").read_text()[-3000:]
            time.sleep(0.3)

    def submit(self, *arguments: Any, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess:
        """``python jobs/submit.py ...`` against this head."""
        env = (self.environment if environment is None else environment) | {"RAY_ADDRESS": self.url}
        command = [sys.executable, "jobs/submit.py", *map(str, arguments)]
        return subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)

    def processes(self) -> list[psutil.Process]:
        """The head and every process below it."""
        try:
            head = psutil.Process(self.process.pid)
            return [*head.children(recursive=True), head]
        except psutil.NoSuchProcess:
            return []

    def close(self) -> None:
        """End every process."""
        if processes := self.processes():
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(processes, timeout=20)
        self.process.wait(20)
        self.log.close()


@contextlib.contextmanager
def head(cpus: int = 2) -> Iterator[Head]:
    """A head for the duration of the block."""
    folder = Path(tempfile.mkdtemp(prefix="rp-"))  # short: Ray's sockets allow 107 characters
    running = Head(cpus, folder)
    try:
        running.wait()
        yield running
    finally:
        running.close()
        shutil.rmtree(folder, ignore_errors=True)
