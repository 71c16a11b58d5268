"""Progress on standard error: bars on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
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
        TextColumn("{task.description:<13}"),
        BarColumn(12),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        # The note alone gives way on a narrow terminal.
        TextColumn("{task.fields[note]}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
    )
    with Progress(*columns, console=console, expand=True, disable=not console.is_terminal) as bar:
        task, began = bar.add_task(title, total=total, note=""), time.monotonic()

        def line() -> str:
            now = bar.tasks[0]
            told = f"; {now.fields['note']}" if now.fields["note"] else ""
            return f"{title}: {now.completed:.0f} of {total}, {time.monotonic() - began:.0f} s{told}"

        def advance(steps: int = 1, note: str | None = None) -> None:
            bar.update(task, advance=steps, **({} if note is None else {"note": note}))

        with _lines(line):
            yield advance


class SampleTable:
    """Live table on standard error, one line a sample: selected, rate, time left; off a terminal one line for all.

    ``targets``: selected events wanted of each sample; ``clock``: seconds.
    """

    def __init__(self, targets: Mapping[str, int], clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._targets = dict(targets)
        self._began: dict[str, float] = {}
        self._selected = dict.fromkeys(targets, 0)
        self._found = dict.fromkeys(targets, 0)
        columns = (
            TextColumn("{task.description:<16}"),
            BarColumn(12),
            MofNCompleteColumn(),
            TextColumn("selected"),
            TextColumn("{task.fields[rate]:>7}"),
            TextColumn("{task.fields[left]:>14}"),
        )
        self._bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self._tasks = {name: self._bar.add_task(name, total=total, rate="", left="") for name, total in targets.items()}

    def __enter__(self) -> SampleTable:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._bar)
            stack.enter_context(_lines(self.line))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def line(self) -> str:
        """All samples in one sentence."""
        done, wanted = sum(self._selected.values()), sum(self._targets.values())
        busy = [name for name in self._began if self.seconds_left(name) != 0]
        return f"simulate: {done} of {wanted} events" + (f"; now {', '.join(busy)}" if busy else "")

    def begin(self, name: str) -> None:
        """Work on ``name`` starts now, unless it did before: its rate counts from here."""
        self._began.setdefault(name, self._clock())

    def found(self, name: str, selected: int) -> None:
        """Events that were there already; they do not count in the rate."""
        self._found[name] += selected
        self.add(name, selected)

    def add(self, name: str, selected: int) -> None:
        """``selected`` more events of ``name``."""
        self._selected[name] += selected
        rate = self.rate(name)
        left = self.seconds_left(name)
        self._bar.update(
            self._tasks[name],
            completed=self._selected[name],
            rate=f"{rate:.0f}/s" if rate else "",
            left="" if left is None else ("done" if left == 0 else f"{left:.0f} s left"),
        )

    def rate(self, name: str) -> float | None:
        """Selected events per second of this run; None before the first."""
        made = self._selected[name] - self._found[name]
        if not made or name not in self._began:
            return None
        return made / max(self._clock() - self._began[name], 1e-9)

    def seconds_left(self, name: str) -> float | None:
        """Seconds until the target at this rate, 0 when reached; None while the rate is unknown."""
        lacking = self._targets[name] - self._selected[name]
        rate = self.rate(name)
        return 0.0 if lacking <= 0 else (lacking / rate if rate else None)


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"
