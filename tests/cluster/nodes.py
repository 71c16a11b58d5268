"""A Ray cluster of several nodes on one machine, each with its own raylet, and ways to hurt it."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from tests.cluster.head import free_ports
from tests.conftest import ROOT

HEALTH = {"health_check_period_ms": 1000, "health_check_timeout_ms": 5000, "health_check_failure_threshold": 3}
"""A dead node is noticed after seconds, not a quarter of a minute."""


class Nodes:
    """A head without cores and ``workers`` nodes of one core each, reached by token only; every process a child.

    Attributes:
        environment: what a driver process needs to join.
    """

    def __init__(self, workers: int = 3) -> None:
        # Ray reads the token once in a process: a second cluster, or an embedded Ray beside it, must have the same.
        self.token = os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(16))
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_"))}
        secret = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token}
        self.environment = kept | secret | {"PYTHONPATH": str(ROOT), "RAY_gcs_rpc_server_reconnect_timeout_s": "5"}
        os.environ.update(secret)
        from ray.cluster_utils import Cluster

        self.workers = []
        self.cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 0,
                "include_dashboard": False,
                "dashboard_port": free_ports(1)[0],
                "_system_config": dict(HEALTH),
            },
        )
        try:
            for _ in range(workers):
                self.add(num_cpus=1)
            self.environment["RAY_ADDRESS"] = self.cluster.address
            self.cluster.wait_for_nodes(120)
        except BaseException:
            self.close()
            raise

    def add(self, wait: bool = False, **resources: float) -> Any:
        """One more node; its cores and GPUs are what is declared here, whatever the machine has."""
        self.workers.append(self.cluster.add_node(wait=wait, **resources))
        return self.workers[-1]

    def start(self, module: str, *arguments: Any, log: Path | None = None) -> subprocess.Popen:
        """A driver: ``python -m module arguments`` that joins this cluster.

        Args:
            log: file for what it prints; else a pipe, which somebody must read or the driver will wait for it.
        """
        with open(log, "a") if log else contextlib.nullcontext(subprocess.PIPE) as out:
            return subprocess.Popen(
                [sys.executable, "-m", module, *map(str, arguments)],
                env=self.environment,
                cwd=ROOT,
                text=True,
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def busy(self) -> list[psutil.Process]:
        """Worker processes that have work."""
        found = []
        for node in self.workers:
            with contextlib.suppress(psutil.NoSuchProcess):
                for child in psutil.Process(self.raylet(node)).children():
                    with contextlib.suppress(psutil.NoSuchProcess):
                        title = " ".join(child.cmdline())
                        # A node without its agents is a dead node: only processes with trials.
                        if title.startswith("ray::") and "IDLE" not in title and "Agent" not in title:
                            found.append(child)
        return found

    @staticmethod
    def raylet(node: Any) -> int:
        """Process id of a node's raylet."""
        return node.all_processes["raylet"][0].process.pid

    def kill_node(self, node: Any) -> None:
        """SIGKILL a worker node: its raylet and all its workers."""
        self.workers.remove(node)
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(self.raylet(node)).children(recursive=True)
            self.cluster.remove_node(node, allow_graceful=False)
            _kill(children)

    def kill_head(self) -> None:
        """SIGKILL the control store and the raylet of the head."""
        _kill(
            [
                psutil.Process(self.cluster.head_node.all_processes["gcs_server"][0].process.pid),
                psutil.Process(self.raylet(self.cluster.head_node)),
            ]
        )

    def close(self) -> None:
        """End every process of this cluster, by its id."""
        processes = []
        for node in [self.cluster.head_node, *self.workers]:
            for infos in node.all_processes.values():
                for info in infos:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process = psutil.Process(info.process.pid)
                        processes += [*process.children(recursive=True), process]
        _kill(processes)
        _back_to_own_ray()


def _back_to_own_ray() -> None:
    """A `Cluster` makes its own control store that of the whole process; an embedded Ray beside it needs its again."""
    import ray
    from ray.experimental import internal_kv

    if ray.is_initialized():
        internal_kv._internal_kv_reset()
        internal_kv._initialize_internal_kv(ray._private.worker.global_worker.gcs_client)


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=20)


@contextlib.contextmanager
def nodes(workers: int = 3) -> Iterator[Nodes]:
    """A cluster for the duration of the block."""
    cluster = Nodes(workers)
    try:
        yield cluster
    finally:
        cluster.close()


def wait_for(condition: Any, seconds: float, process: subprocess.Popen | None = None) -> None:
    """Wait until ``condition()`` is true; fail if it takes too long or the process ends before."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"still not after {seconds} s"
        if process is not None and process.poll() is not None:
            if condition():
                return
            raise AssertionError(f"ended with {process.returncode}: {process.stdout.read()[-3000:]}")
        time.sleep(0.1)


def told(out: str) -> Any:
    """What a driver found: its last line of JSON; warnings of Ray may stand after it."""
    for line in reversed(out.splitlines()):
        with contextlib.suppress(json.JSONDecodeError):
            return json.loads(line)
    raise AssertionError(f"no result in: {out[-3000:]}")


def parts(ledger: Path) -> set[str]:
    """Keys of the finished trials of a local ledger."""
    return {path.stem for path in (ledger / "rows").glob("[!.]*.json")}
