"""Progress on standard error: bars on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator

from rich import progress as bars
from rich.console import Console
from rich.table import Column

console = Console(stderr=True, width=None if sys.stderr.isatty() else 140)
"""Where people read; standard output carries results only."""
FIRST, EVERY = 15.0, 30.0
"""Seconds until the first line off a terminal, and between two: what is done at once needs none."""


def say(line: str) -> None:
    """Print a line for people."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)


@contextlib.contextmanager
def repeatedly(call: Callable[[], object], every: float, first: float | None = None) -> Iterator[None]:
    """Call from a thread while the block lasts, each time after so many seconds; ``first``: before the first time."""
    stop = threading.Event()

    def work() -> None:
        wait = every if first is None else first
        while not stop.wait(wait):
            call()
            wait = every

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextlib.contextmanager
def progress_bar(title: str, total: int) -> Iterator[Callable[..., None]]:
    """A bar with done/total, elapsed time and time left; yields ``advance(steps=1, note="")``."""
    columns = (
        bars.TextColumn("{task.description:<13}"),
        bars.BarColumn(12),
        bars.MofNCompleteColumn(),
        bars.TimeElapsedColumn(),
        bars.TextColumn("left"),
        bars.TimeRemainingColumn(),
        # The note alone gives way on a narrow terminal.
        bars.TextColumn("{task.fields[note]}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
    )
    with bars.Progress(*columns, console=console, expand=True, disable=not console.is_terminal) as bar:
        task, began = bar.add_task(title, total=total, note=""), time.monotonic()

        def line() -> None:  # off a terminal; also while nothing moves
            now = bar.tasks[0]
            told = f"; {now.fields['note']}" if now.fields["note"] else ""
            say(f"{title}: {now.completed:.0f} of {total}, {time.monotonic() - began:.0f} s{told}")

        def advance(steps: float = 1, note: str | None = None) -> None:
            bar.update(task, advance=steps, **({} if note is None else {"note": note}))

        with contextlib.nullcontext() if console.is_terminal else repeatedly(line, EVERY, FIRST):
            yield advance


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"
