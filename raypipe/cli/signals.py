"""SIGTERM as batch systems send it (Slurm, HTCondor, Kubernetes): the command ends like one that Ctrl-C interrupts."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

STATUS = 128 + signal.SIGTERM  # Exit status of a terminated command, as shells give it
MESSAGE = "raypipe: terminated; run the same command again to go on"
GRACE = 20.0  # Seconds to clean up in; batch systems send SIGKILL after 30


class Terminated(BaseException):
    """SIGTERM ended the block."""


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """While the block lasts SIGTERM interrupts it as Ctrl-C does, and is told apart by `Terminated`.

    The interrupt may be lost in compiled code, or leave it as another exception, and the clean-up may hang: a thread
    learns of the signal by itself, and ends the process after `GRACE` seconds.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    watch, calls = _Watch(), itertools.count()

    def interrupt(*_: Any) -> None:
        if next(calls) == 0:  # the clean-up is not to be interrupted
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        with watch:
            yield
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            watch.any.wait(5.0)  # the main thread may be ahead of the one that watches
        if signal.SIGTERM in watch.seen:
            before = signal.SIG_IGN
            watch.tell()
            raise Terminated from None
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


class _Watch(threading.Thread):
    """Reads the numbers of the signals that arrive, whoever handles them."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seen: set[int] = set()
        self.any = threading.Event()
        self.reading, self.writing = os.pipe()
        self.said: list[str] = []
        os.set_blocking(self.writing, False)

    def __enter__(self) -> None:
        self.before = signal.set_wakeup_fd(self.writing)
        self.start()

    def __exit__(self, *error: Any) -> None:
        signal.set_wakeup_fd(self.before)
        os.close(self.writing)

    def run(self) -> None:
        while number := os.read(self.reading, 1):
            if number[0] == signal.SIGTERM:
                # What Ray and its threads have to say about parts that the same signal ended helps nobody.
                self.stderr = os.dup(2)
                os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            self.seen.add(number[0])
            self.any.set()
            if number[0] == signal.SIGTERM:
                time.sleep(GRACE)
                self._leave()
        os.close(self.reading)

    def tell(self) -> None:
        """The one line."""
        if not self.said:
            self.said.append(MESSAGE)
            os.write(self.stderr, f"{MESSAGE}\n".encode())

    def _leave(self) -> None:
        """The end of a process that does not come to one by itself: what it started goes with it."""
        import psutil

        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        self.tell()
        os._exit(STATUS)
