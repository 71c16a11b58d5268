"""One trial in a worker process: run it, keep its result or why there is none, and never hang."""

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
from functools import partial
from typing import Any

from raypipe.search.result import Result
from raypipe.store.files import DiskFull, Store, is_full
from raypipe.store.ledger import Ledger

HANG = 75
"""Exit status of a process that ended itself because its trial hung (EX_TEMPFAIL: worth another try)."""
GRACE = 30.0
"""Seconds after the time-out when a process that cannot even run Python any more is ended from C."""


@dataclass(frozen=True)
class Context:
    """What a trial may use besides its inputs."""

    threads: int
    """BLAS, OMP and XGBoost threads."""
    device: str
    """``cpu`` or ``cuda``."""
    stage: Callable[[str, str, Callable[[], dict[str, Any]]], dict[str, Any]]
    """``stage(kind, key, make)``: the state of a stage shared between trials, made if nobody has made it yet."""


@dataclass(frozen=True)
class Rules:
    """How a trial is run; none of it can change a number."""

    store: Store
    """Where the ledger is."""
    shared: Store
    """Where the stages of its trials are."""
    driver: str
    """Id of the driver; trials that another living driver is running are left to it."""
    threads: int = 1
    timeout: float | None = None
    """Seconds."""
    retries: int = 0
    """Further tries of a trial that raises OSError or MemoryError; other exceptions would only come again."""
    together: bool = False
    """Whether the trials of a pack are made as one."""


Function = Callable[[Any, Any, Context], Result]
"""A search: (inputs, trial, context) -> result, a function of its inputs and trial alone."""
Together = Callable[[Any, Sequence[Any], Context], list[Result]]
"""The same for trials that are made as one: none of the results depends on which others were there."""


def attempt(function: Function, inputs: Any, key: str, trial: Any, rules: Rules, book: Ledger, device: str) -> str:
    """Run one trial and record how it ended: returns ``ok`` or ``failed``.

    Raises:
        DiskFull: nothing more can be recorded.
    """
    context = Context(rules.threads, device, book.stage)
    for tries_left in range(rules.retries, -1, -1):
        began, cpu = time.perf_counter(), time.process_time()
        try:
            with deadline(rules.timeout, lambda stack: book.record_failure(key, trial, stack, "timeout")):
                result = function(inputs, trial, context)
            spent = {"seconds": time.perf_counter() - began, "seconds_cpu": time.process_time() - cpu}
            book.record(key, trial, dataclasses.replace(result, rows=[spent | row for row in result.rows]))
            return "ok"
        except (OSError, MemoryError) as error:
            if is_full(error):
                raise DiskFull(str(error)) from error
            if not tries_left:
                book.record_failure(key, trial, traceback.format_exc())
        except DiskFull:
            raise
        except Exception:
            book.record_failure(key, trial, traceback.format_exc())
            break
    return "failed"


def attempt_together(
    function: Together, inputs: Any, trials: Mapping[str, Any], rules: Rules, book: Ledger, device: str
) -> Iterator[tuple[str, str]]:
    """Run trials as one and record how each ended: yields (key, ``ok`` or ``failed``).

    If they fail together each is tried alone, so that one bad trial costs the others nothing. One that hangs takes its
    process along; whoever watches it runs each alone then, and finds which it was.

    Raises:
        DiskFull: nothing more can be recorded.
    """
    results: list[Result] = []
    if len(trials) > 1:
        seconds = None if rules.timeout is None else rules.timeout * len(trials)
        began, cpu = time.perf_counter(), time.process_time()
        try:
            with deadline(seconds, lambda stack: None):
                results = function(inputs, list(trials.values()), Context(rules.threads, device, book.stage))
        except Exception as error:
            if is_full(error):
                raise DiskFull(str(error)) from error
        spent = {"seconds": time.perf_counter() - began, "seconds_cpu": time.process_time() - cpu}
        share = {name: value / len(trials) for name, value in spent.items()}
    if not results:
        for key, trial in trials.items():
            alone = partial(_alone, function)
            yield key, attempt(alone, inputs, key, trial, rules, book, device)
    for (key, trial), result in zip(trials.items() if results else (), results, strict=True):
        book.record(key, trial, dataclasses.replace(result, rows=[share | row for row in result.rows]))
        yield key, "ok"


def _alone(function: Together, inputs: Any, trial: Any, context: Context) -> Result:
    (result,) = function(inputs, [trial], context)
    return result


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
