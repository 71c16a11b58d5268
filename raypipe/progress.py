"""Progress bars on standard error, silent when it is not a terminal."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

console = Console(stderr=True, width=None if sys.stderr.isatty() else 140)
"""Where people read; standard output carries results only."""


@contextlib.contextmanager
def progress_bar(title: str, total: int) -> Iterator[Callable[..., None]]:
    """A bar with done/total, elapsed time and time left; yields ``advance(steps=1, note="")``."""
    columns = (
        TextColumn("{task.description:<13}"), BarColumn(12), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("left"), TimeRemainingColumn(),
        # The note alone gives way on a narrow terminal.
        TextColumn("{task.fields[note]}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
    )  # fmt: skip
    with Progress(*columns, console=console, expand=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=total, note="")

        def advance(steps: int = 1, note: str | None = None) -> None:
            bar.update(task, advance=steps, **({} if note is None else {"note": note}))

        yield advance
