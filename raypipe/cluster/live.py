"""A scan as people see it while it runs: a bar on a terminal, a line now and then in a log, a table at the end."""

import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from raypipe.cluster.attempt import Report, Worker
from raypipe.cluster.fanout import Scan
from raypipe.cluster.runtime import limit_threads
from raypipe.progress import console, progress_bar, say
from raypipe.search.result import Tools
from raypipe.store.status import RECENT, Price, Status, announce, newest_scan, pace, status


class Progress:
    """Where a scan stands, as its driver knows from what the trials report; ``now``: before the scan goes on."""

    def __init__(self, now: Status, price: Price) -> None:
        self.now, self.price = replace(now, failed=0, left=now.left + now.failed), price
        self.times = [time.monotonic()]

    def add(self, told: Report) -> None:
        """One trial ended."""
        self.times = [*self.times, time.monotonic()][-RECENT:]
        now, left, seconds = self.now, self.now.left - 1, told.get("seconds", 0.0)
        done, failed = now.done + (told["status"] == "ok"), now.failed + (told["status"] == "failed")
        spent = {name: getattr(now, name) + value for name, value in self.price.of(seconds).items()}
        self.now = replace(now, done=done, failed=failed, left=left, **pace(self.times, left), **spent)

    def note(self, trial: Any, told: Report) -> str:
        """What the bar does not show by itself: of the scan, and of the trial that has just ended."""
        now, metric = self.now, told["metric"]
        parts = [f"{now.failed} failed"] if now.failed else []
        parts += [f"{now.per_minute:.2g}/min"] if now.per_minute else []
        parts += [f"{now.cpu_hours:.2g} core h"] + ([f"cost {now.cost:.2f}"] if now.cost else [])
        said = f": {metric} {told[metric]:.3g}" if metric in told else ""
        return ", ".join([*parts, trial.label()]) + said


def run_trials(scan: Scan, name: str = "scan") -> None:
    """`Scan.run` with progress on standard error and, at its end, a table of what is missing."""
    r, book = scan.resources, scan.book
    price = Price(r.trial_cpus, r.trial_gpus, r.price_cpu_hour, r.price_gpu_hour)
    announce(book, scan.trials, price, name)
    announced = newest_scan(book, name)
    progress = Progress(status(book, announced), price)
    with progress_bar(name, len(scan.trials)) as bar:
        bar(progress.now.done, "")

        def on_end(trial: Any, told: Report) -> None:
            progress.add(told)
            bar(1, progress.note(trial, told))

        replace(scan, on_end=on_end).run()
    now = status(book, announced)
    tell(now, f"{name}: {now.line()}")
    if now.missing:
        say(f"Tracebacks: {book}/failed; the same command tries these again")


def run_alone(scan: Scan, name: str) -> None:
    """`run_trials` by this process, without Ray."""
    limit_threads(threads := max(1, int(scan.resources.trial_cpus)))
    worker = Worker(scan.function, scan.inputs, scan.book, Tools(threads, stage=scan.book.stage))
    keys, size, done = list(scan.trials), scan.together or 1, scan.book.done(scan.trials)
    with progress_bar(name, len(keys)) as bar:
        # Of trials made as one the last digits depend on the others: the borders are those of all trials.
        for some in (keys[start : start + size] for start in range(0, len(keys), size)):
            if not done.issuperset(some):
                worker.run({key: scan.trials[key] for key in some})
            bar(len(some), scan.trials[some[-1]].label())


def show(title: str, head: Iterable[str], rows: Iterable[Iterable[str]], **column: Any) -> None:
    """Print a table; ``column``: how rich makes its columns."""
    from rich.table import Table

    table = Table(title=title, box=None, header_style="bold")
    for name in head:
        table.add_column(name, **column)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def tell(status: Status, line: str) -> None:
    """Print where a scan stands: a line, and a table of what is missing."""
    say(line)
    if rows := [[line["trial"], line["kind"], str(line["attempts"]), line["error"]] for line in status.missing]:
        show(f"missing: {len(rows)} trials", ("trial", "how", "tries", "error"), rows, overflow="fold")
