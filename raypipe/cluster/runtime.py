"""Start or join Ray, the same way for every stage."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
from collections.abc import Iterator
from typing import Any

from raypipe.config import Resources

STARTS = 3
"""Tries to start an embedded Ray."""


@contextlib.contextmanager
def ray_session(resources: Resources) -> Iterator[None]:
    """Ray for the duration of the block: the cluster of RAY_ADDRESS, else an embedded one.

    A session that is already there is used and left alone. Ray listens on this machine's address whatever one asks for
    (its dashboard on the loopback interface), so the embedded one is protected by a token that lives only in this
    process and its children: nobody else can submit work to it.
    """
    # Ray reads these when it is first imported, so raypipe never imports it earlier than here.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    # Tune would turn an interrupt into an early, silent end; ours says what to do next.
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
    if os.environ.get("RAY_ADDRESS"):
        # Whether a cluster asks for a token must never depend on a file that an earlier run left in the home folder.
        os.environ.setdefault("RAY_AUTH_MODE", "token" if _has_token() else "disabled")
    else:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    import ray

    if ray.is_initialized():
        yield
        return
    if os.environ.get("RAY_ADDRESS"):
        ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False, logging_level=logging.WARNING)
    else:
        _start_embedded(ray, resources)
    try:
        from ray.data import DataContext

        DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)  # else it says that its bars are off
        logging.getLogger("ray.train").setLevel(logging.WARNING)
        logging.getLogger("ray.tune").setLevel(logging.WARNING)
        logging.getLogger("ray.tune.analysis").setLevel(logging.ERROR)  # it misses files that nobody asked it to write
        yield
    finally:
        ray.shutdown()


def _has_token() -> bool:
    return bool(os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"))


def _start_embedded(ray: Any, resources: Resources) -> None:
    """Start Ray in this process; it gives its own parts 30 s, which a busy machine may not keep the first time."""
    for attempt in range(STARTS):
        try:
            ray.init(
                address="local",
                num_cpus=resources.cpus,
                object_store_memory=int(resources.object_store_gib * 2**30),
                include_dashboard=True,  # without it Ray Train V2 floods standard error
                dashboard_host="127.0.0.1",
                log_to_driver=False,
                logging_level=logging.WARNING,
            )
            return
        except Exception as error:  # Ray raises a bare Exception here
            if "timed out during startup" not in str(error) or attempt == STARTS - 1:
                raise
            ray.shutdown()


def total_cpus() -> float:
    """Cores of the running Ray cluster."""
    import ray

    return float(ray.cluster_resources().get("CPU", 1))


def limit_threads(threads: int) -> None:
    """Let this process's torch, BLAS and Arrow use ``threads`` threads: more than its cores cost factors of 5 to 20."""
    import pyarrow
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(threads)
    pyarrow.set_cpu_count(threads)
    pyarrow.set_io_thread_count(max(1, threads))
    threadpool_limits(threads)
