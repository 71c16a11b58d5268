"""A scan as people see it while it runs: a bar on a terminal, a line now and then in a log, a table at the end."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from raypipe.cluster.attempt import Function, Together
from raypipe.cluster.engine import price_of, run_scan
from raypipe.config import Resources
from raypipe.progress import console, progress_bar
from raypipe.store.ledger import Ledger
from raypipe.store.status import RECENT, Price, Status, missing

LOG_EVERY = 30.0
"""Seconds between two lines where there is no terminal."""


class Meter:
    """Counts what ends, in memory that does not grow: rate over the last trials, time left, cost so far.

    Args:
        total: trials of the scan; done: those finished before it started; spent: seconds that these took.
    """

    def __init__(self, total: int, done: int, spent: float, price: Price) -> None:
        self.total, self.done, self.failed, self.price = total, done, 0, price
        self.spent = spent
        self.times = [time.monotonic()]

    def add(self, status: str, seconds: float) -> None:
        """One trial ended."""
        self.done += status == "ok"
        self.failed += status == "failed"
        self.spent += seconds
        self.times = [*self.times, time.monotonic()][-RECENT:]

    def status(self) -> Status:
        """Where the scan stands, as this driver sees it."""
        span = self.times[-1] - self.times[0]
        rate = (len(self.times) - 1) / span if span > 0 else None
        left = self.total - self.done - self.failed
        return Status(
            self.total,
            self.done,
            self.failed,
            0,
            left,
            1,
            60 * rate if rate else None,
            left / rate if rate else None,
            self.spent * self.price.cpus / 3600,
            self.spent * self.price.gpus / 3600,
            self.price.of(self.spent),
        )

    def note(self) -> str:
        """What the bar does not show by itself."""
        now = self.status()
        parts = [f"{now.failed} failed"] if now.failed else []
        parts += [f"{now.per_minute:.2g}/min"] if now.per_minute else []
        parts += [f"{now.cpu_hours:.2g} core h"] + ([f"cost {now.cost:.2f}"] if now.cost else [])
        return ", ".join(parts)


def run_with_progress(
    function: Function | Together,
    inputs: Any,
    trials: Mapping[str, Any],
    book: Ledger,
    resources: Resources,
    name: str = "scan",
    together: int = 0,
) -> None:
    """`engine.run_scan` with progress on standard error and, at its end, a table of what is missing."""
    done, price = book.done(trials), price_of(resources)
    seconds = book.seconds()
    meter = Meter(len(trials), len(done), sum(seconds.get(key) or 0.0 for key in done), price)
    logged = time.monotonic()
    with progress_bar(name, len(trials)) as bar:
        bar(len(done), "")

        def on_trial(key: str, trial: Any, status: str) -> None:
            nonlocal logged
            rows = book.read(key) if status == "ok" else None
            meter.add(status, (rows[0].get("seconds") or 0.0) if rows else 0.0)
            bar(1, f"{meter.note()}, {trial.label()}")
            if not console.is_terminal and time.monotonic() - logged > LOG_EVERY:
                console.print(f"{name}: {meter.status().line()}", highlight=False, soft_wrap=True)
                logged = time.monotonic()

        run_scan(function, inputs, trials, book, resources, on_trial, name, together)
    console.print(f"{name}: {meter.status().line()}", highlight=False, soft_wrap=True)
    print_missing(trials, book)


def print_missing(trials: Mapping[str, Any], book: Ledger) -> None:
    """The table of the trials that a scan lacks, on standard error; nothing if there are none."""
    failures = book.failures(trials)
    if failures:
        show_missing([missing(trials[key].label(), row) for key, row in failures.items()])
        console.print(f"Tracebacks: {book}/failed; the same command tries these again", highlight=False, soft_wrap=True)


def show_missing(lines: list[dict[str, Any]]) -> None:
    """Print the table of `status.missing` entries."""
    from rich.table import Table

    table = Table(title=f"missing: {len(lines)} trials", box=None, header_style="bold")
    for column in ("trial", "how", "tries", "error"):
        table.add_column(column, overflow="fold")
    for line in lines:
        table.add_row(line["trial"], line["kind"], str(line["attempts"]), line["error"])
    console.print(table)


def tell(status: Status) -> None:
    """Print where a scan stands."""
    running = f"{status.running} running with {status.drivers} drivers" if status.drivers else "nobody is running it"
    console.print(f"scan: {status.line()}; {running}", highlight=False, soft_wrap=True)
    if status.missing:
        show_missing(status.missing)
