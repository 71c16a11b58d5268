"""Start or join Ray, the same way for every stage."""

import contextlib
import logging
import math
import os
import secrets
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from raypipe.cluster.machine import make_folder, usable_cores
from raypipe.config import Resources
from raypipe.errors import UserError, first_line

STARTS = 3  # Tries to start an embedded Ray
QUIET = {"data": logging.ERROR, "train": logging.WARNING, "tune": logging.WARNING, "tune.analysis": logging.ERROR}
ANSWER_SECONDS = 6.0  # A cluster that does not answer within this time, name look-up included, is taken for dead
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""How an HTTP/2 conversation begins, gRPC's included (RFC 9113, 3.4)."""
SETTINGS = 4  # Type of the frame with which a server must answer


@contextlib.contextmanager
def ray_session(resources: Resources) -> Iterator[None]:
    """Ray for the duration of the block: the cluster of RAY_ADDRESS, else an embedded one, protected by a token.

    A session that is already there is used and left alone. A `UserError` tells the remedy where no cluster answers, or
    this machine cannot run an embedded Ray.
    """
    address = cluster_address()
    _configure(address)
    import ray

    if ray.is_initialized():
        yield
        return
    with _joined(ray, address) if address else _embedded(ray, resources):
        from ray.data import DataContext

        DataContext.get_current().enable_progress_bars = False
        # Of ray.data: that its bars are off; of ray.tune.analysis: that files lack which nobody asked it to write.
        for name, level in QUIET.items():
            logging.getLogger(f"ray.{name}").setLevel(level)
        yield


def _configure(address: str | None) -> None:
    """Set what Ray reads when it is first imported, so raypipe never imports it earlier than here."""
    given = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5"}
    given |= {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "RAY_AIR_NEW_OUTPUT": "0"}
    # Tune would turn an interrupt into an early, silent end; ours says what to do next.
    given["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    if address:
        # Whether a cluster asks for a token must never depend on a file that an earlier run left in the home folder.
        given["RAY_AUTH_MODE"] = "token" if has_token() else "disabled"
        # Of its twenty tries to reach a head Ray makes each in seconds to half a minute: two tell.
        given["RAY_NUM_REDIS_GET_RETRIES"] = "2"
    else:
        # While it starts, Ray answers a SIGTERM by itself: at once, not after half a minute.
        given |= {"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        os.environ["RAY_AUTH_MODE"] = "token"
    for name, value in given.items():
        os.environ.setdefault(name, value)


def has_token() -> bool:
    """Whether the user gave the token of a cluster."""
    return bool(os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"))


def ray_runs() -> bool:
    """Whether a session is there in this process."""
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()


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
    folder, others, keep = make_folder(), _descendants(), False
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
    """The environment of Ray's processes in the block: a path without working folder, temporary files with Ray's."""
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


def nodes() -> list[dict[str, float]]:
    """What each living node of the running Ray has."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def places(cpus: float, gpus: float = 0.0) -> int:
    """Workers that the living nodes hold at once if each asks for so many cores and GPUs of one node."""
    asked = [(name, amount) for name, amount in (("CPU", cpus), ("GPU", gpus)) if amount]
    return sum(min(math.floor(node.get(name, 0.0) / amount) for name, amount in asked) for node in nodes())


def limit_threads(threads: int) -> None:
    """Let this process's torch, BLAS and Arrow use ``threads`` threads: more than its cores cost factors of 5 to 20."""
    import pyarrow
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(threads)
    pyarrow.set_cpu_count(threads)
    pyarrow.set_io_thread_count(max(1, threads))
    threadpool_limits(threads)


def cluster_address() -> str | None:
    """The cluster to join; None where Ray is to be embedded."""
    address = os.environ.get("RAY_ADDRESS", "").strip()
    return None if address in ("", "local") else address


def check_answers(address: str) -> None:
    """Refuse an address where nothing, or something other than Ray, listens, after `ANSWER_SECONDS` at the latest.

    The `UserError` names the address, what was found there and the remedy. ``auto``: the cluster of this machine.
    """
    plain, said = address.removeprefix("ray://"), []
    if address == "auto":
        from ray._private.services import canonicalize_bootstrap_address

        with contextlib.suppress(ConnectionError):
            plain = canonicalize_bootstrap_address("auto") or ""
    host, colon, port = plain.rpartition(":")
    if plain == "auto":
        said = ["no cluster runs on this machine"]
    elif not (host and colon and port.isdigit() and 0 < int(port) < 65536) or "/" in host:
        said = ["not of the form host:port"]
    else:
        thread = threading.Thread(target=lambda: said.append(_ask(host.strip("[]"), int(port))), daemon=True)
        thread.start()
        thread.join(ANSWER_SECONDS)
    reason = said[0] if said else f"no answer within {ANSWER_SECONDS:g} s"
    if reason is not None:
        remedy = "start the cluster, correct RAY_ADDRESS (host:port of its head), or unset it for a Ray of this machine"
        raise UserError(f"RAY_ADDRESS = {address}: {reason}; {remedy}")


def _ask(host: str, port: int) -> str | None:
    """What is wrong there; None where a gRPC server answers."""
    try:
        with socket.create_connection((host, port), timeout=ANSWER_SECONDS) as line:
            if os.environ.get("RAY_USE_TLS", "0") not in ("0", "", "false"):
                return None
            line.sendall(HELLO)
            frame = line.recv(4, socket.MSG_WAITALL)
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return None if len(frame) == 4 and frame[3] == SETTINGS else "what listens there is not Ray"
