"""SIGTERM as batch systems send it (Slurm, HTCondor, Kubernetes): the command ends like one that Ctrl-C interrupts."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

from raypipe.errors import Terminated

STATUS = 128 + signal.SIGTERM
"""Exit status of a terminated command, as shells give it."""
GRACE = 20.0
"""Seconds to clean up in; batch systems send SIGKILL after 30."""


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """While the block lasts SIGTERM raises `Terminated` in it; further ones change nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is _terminate:
            signal.signal(signal.SIGTERM, before)


def _terminate(*_: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    last = threading.Timer(GRACE, _leave)
    last.daemon = True
    last.start()
    raise Terminated


def _leave() -> None:
    """The end of a process that does not come to one: whatever it started goes with it."""
    import psutil

    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    os._exit(STATUS)
