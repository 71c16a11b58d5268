"""Trials in a worker process: run them, keep their results or why there are none, and never hang."""

import contextlib
import faulthandler
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from raypipe.kinds import KINDS, load_plugins, resolve
from raypipe.search.result import Result, Tools, Trial
from raypipe.store.files import DiskFull, is_full
from raypipe.store.ledger import Ledger

HANG = 75  # Exit status of a process that ended itself because its trial hung (EX_TEMPFAIL: worth another try)
GRACE = 30.0  # Seconds after the time-out when a process that cannot even run Python any more is ended from C

Function = Callable[[Any, Sequence[Any], Tools], list[Result]]
"""A search: (inputs, trials, tools) -> results, a function of its inputs and each trial; which others are there shows
in the last digits alone."""

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

    function: Function
    inputs: Any
    book: Ledger
    tools: Tools
    timeout: float | None = None  # Seconds a trial
    retries: int = 0
    """Further tries of a trial that raises OSError or MemoryError; other exceptions would only come again."""

    def run(self, trials: Mapping[str, Any], retried: int = 0) -> list[Report]:
        """Run trials as one and record how each ended; `DiskFull` if nothing more can be recorded.

        If several fail together each is tried alone. One that hangs takes its process along.
        """
        ((key, trial),) = trials.items() if len(trials) == 1 else ((None, None),)

        def hung(stack: str) -> None:
            if key is not None:
                self.book.record_failure(key, trial, stack, "timeout")

        began, cpu = time.perf_counter(), time.process_time()
        try:
            with deadline(self.timeout and self.timeout * len(trials), hung):
                results = self.function(self.inputs, list(trials.values()), self.tools)
            spent = {"seconds": time.perf_counter() - began, "seconds_cpu": time.process_time() - cpu}
            share = {name: value / len(trials) for name, value in spent.items()}
            return [self._keep(k, t, result, share) for (k, t), result in zip(trials.items(), results, strict=True)]
        except Exception as error:
            if is_full(error):
                raise error if isinstance(error, DiskFull) else DiskFull(str(error)) from error
            again = key is None or (isinstance(error, OSError | MemoryError) and retried < self.retries)
            if not again:
                self.book.record_failure(key, trial, traceback.format_exc())
                return [report(key, "failed")]
        # Out here, as the exception holds on to all that the failed attempt has in memory.
        if key is None:
            return [told for k, t in trials.items() for told in self.run({k: t})]
        return self.run(trials, retried + 1)

    def _keep(self, key: str, trial: Any, result: Result, spent: dict[str, float]) -> Report:
        rows = [spent | row for row in result.rows]
        if not self.book.finished(key):  # of a group made whole for the sake of one; what is there never changes
            self.book.record(key, trial, replace(result, rows=rows))
        return report(key, "ok", rows, result.metric)


@contextlib.contextmanager
def deadline(seconds: float | None, tell: Callable[[str], None]) -> Iterator[None]:
    """End this process if the block takes longer than ``seconds``, after telling where it hangs.

    A thread hands the stack of Python code to ``tell``; C code that keeps the interpreter ends `GRACE` seconds later.
    """
    if seconds is None:
        yield
        return
    me = threading.get_ident()

    def end() -> None:
        stack = "".join(traceback.format_stack(sys._current_frames().get(me)))
        try:
            tell(f"{stack}TimeoutError: hung for {seconds:g} s (resources.trial_timeout)")
        finally:
            os._exit(HANG)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    faulthandler.dump_traceback_later(seconds + GRACE, exit=True, file=sys.__stderr__)
    try:
        yield
    finally:
        timer.cancel()
        faulthandler.cancel_dump_traceback_later()


class Shelf(dict[str, list[Any]]):
    """The inputs of the trials in Ray's object store, by name, each in parts, which are fetched when asked for."""

    def put(self, name: str, part: Any) -> None:
        """Add one more part of an input. Ray must be running."""
        import ray

        self.setdefault(name, []).append(ray.put(part))

    def __getitem__(self, name: str) -> list[Any]:
        import ray

        return ray.get(self.get(name, []))


def run_some(
    given: tuple[Mapping[str, Sequence[Any]], str, Any], trials: Sequence[Trial], tools: Tools
) -> list[Result]:
    """Trials of any search as the fan-out calls them; ``given``: inputs by name, the search, what it is handed."""
    shelf, kind, handed = given
    if kind not in KINDS:  # a worker that has not needed any plugin yet
        load_plugins()
    search = resolve(KINDS[kind].search)(handed)
    results = search.run(shelf[search.need(trials[0])], trials, tools)
    return [replace(result, metric=search.metric) for result in results]
