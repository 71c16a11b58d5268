"""Progress on standard error: bars on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Self

from rich import progress as bars
from rich.console import Console
from rich.table import Column

console = Console(stderr=True, width=None if sys.stderr.isatty() else 140)
"""Where people read; standard output carries results only."""
FIRST, EVERY = 15.0, 30.0
"""Seconds until the first line off a terminal, and between two: what is done at once needs none."""


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


def _lines(say: Callable[[], str]) -> contextlib.AbstractContextManager[None]:
    """Off a terminal print now and then what ``say()`` says, also while nothing moves."""
    tell = lambda: console.print(say(), highlight=False, markup=False, soft_wrap=True)  # noqa: E731
    return contextlib.nullcontext() if console.is_terminal else repeatedly(tell, EVERY, FIRST)


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

        def line() -> str:
            now = bar.tasks[0]
            told = f"; {now.fields['note']}" if now.fields["note"] else ""
            return f"{title}: {now.completed:.0f} of {total}, {time.monotonic() - began:.0f} s{told}"

        def advance(steps: int = 1, note: str | None = None) -> None:
            bar.update(task, advance=steps, **({} if note is None else {"note": note}))

        with _lines(line):
            yield advance


class SampleTable(contextlib.ExitStack):
    """Live table on standard error, one line a sample: selected, time left; off a terminal one line for all.

    ``targets``: selected events wanted of each sample; ``clock``: seconds.
    """

    def __init__(self, targets: Mapping[str, int], clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        columns = (
            bars.TextColumn("{task.description:<16}"),
            bars.BarColumn(12),
            bars.MofNCompleteColumn(),
            bars.TextColumn("selected"),
            bars.TimeRemainingColumn(elapsed_when_finished=True),
        )
        self._bar = bars.Progress(*columns, console=console, disable=not console.is_terminal, get_time=clock)
        tasks = {name: self._bar.add_task(name, start=False, total=total) for name, total in targets.items()}
        self.tasks: dict[str, bars.Task] = dict(zip(tasks, self._bar.tasks, strict=True))

    def __enter__(self) -> Self:
        self.enter_context(self._bar)
        self.enter_context(_lines(self.line))
        return self

    def line(self) -> str:
        """All samples in one sentence."""
        wanted = sum(int(task.total) for task in self.tasks.values())
        done = sum(int(min(task.completed, task.total)) for task in self.tasks.values())  # shards hold some more
        busy = [name for name, task in self.tasks.items() if task.started and task.remaining > 0]
        return f"simulate: {done} of {wanted} events" + (f"; now {', '.join(busy)}" if busy else "")

    def begin(self, name: str) -> None:
        """Work on ``name`` starts now, unless it did before: its rate counts from here."""
        if not self.tasks[name].started:
            self._bar.start_task(self.tasks[name].id)

    def add(self, name: str, selected: int) -> None:
        """``selected`` more events of ``name``."""
        self._bar.advance(self.tasks[name].id, selected)


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"
