"""Trials in a worker process: run them, keep their results or why there are none, and never hang."""

from __future__ import annotations

import contextlib
import dataclasses
import faulthandler
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raypipe.cluster.ledger import Ledger
from raypipe.cluster.storage import DiskFull, is_full
from raypipe.search.result import Result, Tools

HANG = 75
"""Exit status of a process that ended itself because its trial hung (EX_TEMPFAIL: worth another try)."""
GRACE = 30.0
"""Seconds after the time-out when a process that cannot even run Python any more is ended from C."""

Function = Callable[[Any, Any, Tools], Result]
"""A search: (inputs, trial, tools) -> result, a function of its inputs and trial alone."""
Together = Callable[[Any, Sequence[Any], Tools], list[Result]]
"""The same for trials that are made as one: none of the results depends on which others were there."""

Report = dict[str, Any]
"""How one trial ended, as Ray Tune is told: ``key``; ``status`` (``ok``, ``failed``, or ``elsewhere``: another driver
runs it); if ok the ``seconds`` that it took, its significance under the name that ``metric`` gives, and ``sic``."""


def report(key: str, status: str, rows: Sequence[Mapping[str, Any]] = (), metric: str = "") -> Report:
    """The report of a trial, with numbers from its first row."""
    first = rows[0] if rows else {}
    told = {name: float(first[name]) for name in ("seconds", metric, "sic") if first.get(name) is not None}
    return {"key": key, "status": status, "metric": metric, **told}


@dataclass(frozen=True)
class Worker:
    """Runs trials in this process."""

    function: Function | Together
    inputs: Any
    book: Ledger
    tools: Tools
    timeout: float | None = None
    """Seconds a trial."""
    retries: int = 0
    """Further tries of a trial that raises OSError or MemoryError; other exceptions would only come again."""
    together: bool = False
    """Whether the trials of a pack are made as one."""

    def run(self, trials: Mapping[str, Any]) -> Iterator[Report]:
        """Run trials and record how each ended.

        If those that are made as one fail together each is tried alone, so that one bad trial costs the others nothing.
        One that hangs takes its process along; whoever watches it runs each alone then, and finds which it was.

        Raises:
            DiskFull: nothing more can be recorded.
        """
        results: list[Result] = []
        if self.together and len(trials) > 1:
            clock = stopwatch()
            try:
                with deadline(self.timeout and self.timeout * len(trials), lambda stack: None):
                    results = self._make(list(trials.values()))
            except Exception as error:
                if is_full(error):
                    raise DiskFull(str(error)) from error
            share = {name: seconds / len(trials) for name, seconds in clock().items()}
        if not results:
            for key, trial in trials.items():
                yield self._attempt(key, trial)
        for (key, trial), result in zip(trials.items() if results else (), results, strict=True):
            yield self._keep(key, trial, result, share)

    def _make(self, trials: list[Any]) -> list[Result]:
        if self.together:
            return self.function(self.inputs, trials, self.tools)
        return [self.function(self.inputs, trial, self.tools) for trial in trials]

    def _keep(self, key: str, trial: Any, result: Result, spent: dict[str, float]) -> Report:
        rows = [spent | row for row in result.rows]
        self.book.record(key, trial, dataclasses.replace(result, rows=rows))
        return report(key, "ok", rows, result.metric)

    def _attempt(self, key: str, trial: Any) -> Report:
        """One trial alone."""
        for tries_left in range(self.retries, -1, -1):
            clock = stopwatch()
            try:
                with deadline(self.timeout, lambda stack: self.book.record_failure(key, trial, stack, "timeout")):
                    (result,) = self._make([trial])
                return self._keep(key, trial, result, clock())
            except (OSError, MemoryError) as error:
                if is_full(error):
                    raise DiskFull(str(error)) from error
                if not tries_left:
                    self.book.record_failure(key, trial, traceback.format_exc())
            except DiskFull:
                raise
            except Exception:
                self.book.record_failure(key, trial, traceback.format_exc())
                break
        return report(key, "failed")


def stopwatch() -> Callable[[], dict[str, float]]:
    """A function that tells the wall and core seconds since now."""
    began, cpu = time.perf_counter(), time.process_time()
    return lambda: {"seconds": time.perf_counter() - began, "seconds_cpu": time.process_time() - cpu}


@contextlib.contextmanager
def deadline(seconds: float | None, tell: Callable[[str], None]) -> Iterator[None]:
    """End this process if the block takes longer than ``seconds``, after telling where it hangs.

    A hanging trial holds its process, and nothing inside it can be trusted to stop: the process goes, and whoever
    watches it starts another. Python code and C code that releases the interpreter are seen by a thread, which hands
    the stack to ``tell``; C code that does not is ended `GRACE` seconds later by `faulthandler`.
    """
    if seconds is None:
        yield
        return
    me, over = threading.get_ident(), threading.Event()

    def watch() -> None:
        if over.wait(seconds):
            return
        stack = "".join(traceback.format_stack(sys._current_frames().get(me)))
        try:
            tell(f"{stack}TimeoutError: hung for {seconds:g} s (resources.trial_timeout)")
        finally:
            os._exit(HANG)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    faulthandler.dump_traceback_later(seconds + GRACE, exit=True, file=sys.__stderr__)
    try:
        yield
    finally:
        over.set()
        faulthandler.cancel_dump_traceback_later()
