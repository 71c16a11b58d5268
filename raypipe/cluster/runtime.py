"""Start or join Ray, the same way for every stage."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import secrets
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from raypipe.cluster.address import check_answers, cluster_address
from raypipe.cluster.machine import usable_cores
from raypipe.cluster.place import make_folder
from raypipe.config import Resources
from raypipe.errors import UserError, first_line

STARTS = 3
"""Tries to start an embedded Ray."""


@contextlib.contextmanager
def ray_session(resources: Resources) -> Iterator[None]:
    """Ray for the duration of the block: the cluster of RAY_ADDRESS, else an embedded one.

    A session that is already there is used and left alone. Ray listens on this machine's address whatever one asks for
    (its dashboard on the loopback interface), so the embedded one is protected by a token that lives only in this
    process and its children: nobody else can submit work to it.

    Raises:
        UserError: no cluster answers, or this machine cannot run an embedded one; with the remedy.
    """
    address = cluster_address()
    _configure(address)
    import ray

    if ray.is_initialized():
        yield
        return
    with _joined(ray, address) if address else _embedded(ray, resources):
        _quieten()
        yield


def _configure(address: str | None) -> None:
    """Set what Ray reads when it is first imported, so raypipe never imports it earlier than here."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    # Tune would turn an interrupt into an early, silent end; ours says what to do next.
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
    if address:
        # Whether a cluster asks for a token must never depend on a file that an earlier run left in the home folder.
        os.environ.setdefault("RAY_AUTH_MODE", "token" if has_token() else "disabled")
        # Of its twenty tries to reach a head Ray makes each in seconds to half a minute: two tell.
        os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "2")
    else:
        # While it starts, Ray answers a SIGTERM by itself: at once, not after half a minute.
        os.environ.setdefault("RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S", "0")
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def has_token() -> bool:
    """Whether the user gave the token of a cluster."""
    return bool(os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"))


def ray_runs() -> bool:
    """Whether a session is there in this process."""
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()


def _quieten() -> None:
    from ray.data import DataContext

    DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # else it says that its bars are off
    logging.getLogger("ray.train").setLevel(logging.WARNING)
    logging.getLogger("ray.tune").setLevel(logging.WARNING)
    logging.getLogger("ray.tune.analysis").setLevel(logging.ERROR)  # it misses files that nobody asked it to write


@contextlib.contextmanager
def _joined(ray: Any, address: str) -> Iterator[None]:
    check_answers(address)
    try:
        with _own_signals():
            ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
    except Exception as error:  # Ray raises many kinds: a wrong token, another version, no node of it here
        told = f"RAY_ADDRESS = {address}: {first_line(error)}; check the address and RAY_AUTH_TOKEN"
        raise UserError(told) from error
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _embedded(ray: Any, resources: Resources) -> Iterator[None]:
    folder, others = make_folder(), _descendants()
    keep = False
    try:
        try:
            with _for_children(folder), _own_signals():
                _start(ray, resources, folder)
        except Exception as error:  # Ray raises a bare Exception here
            keep = True
            raise UserError(f"Ray does not start: {first_line(error)}; its logs are in {folder}") from error
        yield
    finally:
        parts = _descendants() - others
        ray.shutdown()
        for part in parts:  # Ray leaves some to notice by themselves, seconds later, that the others are gone
            with contextlib.suppress(psutil.NoSuchProcess):
                part.kill()
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def _descendants() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


def _start(ray: Any, resources: Resources, folder: Path) -> None:
    """Start Ray in this process; it gives its own parts 30 s, which a busy machine may not keep the first time."""
    from ray.job_config import JobConfig

    for attempt in range(STARTS):
        try:
            ray.init(
                address="local",
                num_cpus=resources.cpus or usable_cores(),
                object_store_memory=int(resources.object_store_gib * 2**30),
                include_dashboard=True,  # without it Ray Train V2 floods standard error
                dashboard_host="127.0.0.1",
                log_to_driver=False,
                logging_level=logging.WARNING,
                # Ray puts the working folder first on its workers' path. A client's job is the one that it spares.
                job_config=JobConfig(_client_job=bool(hidden_modules(Path.cwd()))),
                _temp_dir=str(folder),
            )
            return
        except Exception as error:
            if "timed out during startup" not in str(error) or attempt == STARTS - 1:
                raise
            ray.shutdown()


def hidden_modules(folder: Path) -> list[str]:
    """Files and packages of ``folder`` that hide a module of Python's, or one that this process uses: signal.py."""
    found = []
    for path in folder.iterdir():
        name = path.stem if path.suffix == ".py" else path.name
        ours = getattr(sys.modules.get(name), "__file__", None)
        if (name in sys.stdlib_module_names or (ours and folder not in Path(ours).parents)) and (
            path.suffix == ".py" or (path / "__init__.py").is_file()
        ):
            found.append(path.name)
    return sorted(found)


@contextlib.contextmanager
def _for_children(folder: Path) -> Iterator[None]:
    """The environment of Ray's own processes and workers, which start while the block lasts.

    Their path lacks the working folder, where a signal.py would hide Python's; and their temporary files go with the
    session, those of a killed worker too, even where TMPDIR is full or too long for a socket.
    """
    given = {"PYTHONSAFEPATH": "1", "TMPDIR": str(folder)}
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Ray replaces the handler of SIGTERM when it starts, by some that leave without a word: ours comes back."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit:
        raise KeyboardInterrupt from None
    finally:
        if callable(before) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def total_cpus() -> float:
    """Cores of the running Ray cluster, all nodes together: for work in small pieces. No piece may ask for them all."""
    import ray

    return float(ray.cluster_resources().get("CPU", 1))


def places(cpus: float, gpus: float = 0.0) -> int:
    """Workers that the living nodes hold at once if each asks for so many cores and GPUs.

    Ray places a worker on one node, so that what counts is what each node offers, not their sum.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    asked = [(name, amount) for name, amount in (("CPU", cpus), ("GPU", gpus)) if amount]
    return sum(min(math.floor(node.get(name, 0.0) / amount) for name, amount in asked) for node in nodes)


def limit_threads(threads: int) -> None:
    """Let this process's torch, BLAS and Arrow use ``threads`` threads: more than its cores cost factors of 5 to 20."""
    import pyarrow
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(threads)
    pyarrow.set_cpu_count(threads)
    pyarrow.set_io_thread_count(max(1, threads))
    threadpool_limits(threads)
