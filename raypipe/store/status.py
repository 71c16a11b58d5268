"""How far a scan is, read from its ledger alone: no Ray, no simulation, no model is loaded for it."""

import contextlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from raypipe.errors import UserError, last_line
from raypipe.files import digest
from raypipe.progress import duration
from raypipe.store.claims import ALIVE, Sign, may_live
from raypipe.store.ledger import Ledger, made_by

RECENT = 50  # Trials over which the rate is averaged


@dataclass(frozen=True)
class Price:
    """Cores and GPUs of one trial, and what an hour of one costs."""

    cpus: float = 1.0
    gpus: float = 0.0
    cpu_hour: float = 0.0
    gpu_hour: float = 0.0

    def of(self, seconds: float) -> dict[str, float]:
        """Hours and cost of trials that took ``seconds`` of wall time together, as `Status` has them."""
        cpus, gpus = seconds * self.cpus / 3600, seconds * self.gpus / 3600
        return {"cpu_hours": cpus, "gpu_hours": gpus, "cost": cpus * self.cpu_hour + gpus * self.gpu_hour}


@dataclass(frozen=True)
class Status:
    """Where a scan stands, in trials.

    ``done`` by this code and these packages; ``failed`` at the last attempt; ``running``: started by one of the living
    ``drivers``; ``left``: neither done nor failed; ``other``: finished, but of another version.
    """

    total: int
    done: int
    failed: int
    running: int
    left: int
    drivers: int
    per_minute: float | None  # Over the last `RECENT`
    seconds_left: float | None  # At that rate; None if nothing is running
    cpu_hours: float
    gpu_hours: float
    cost: float  # Of the finished trials, as are the hours
    missing: list[dict[str, Any]] = field(default_factory=list)  # `missing` of every trial that failed
    other: int = 0

    def line(self) -> str:
        """One line for people and logs."""
        rate = "" if self.per_minute is None else f"{self.per_minute:.2g} a minute"
        after = "" if self.seconds_left is None else f"{duration(self.seconds_left)} left at that rate"
        parts = [f"{self.done} of {self.total} done", f"{self.failed} failed", f"{self.left} left", rate, after]
        parts.append(f"{self.cpu_hours:.3g} core hours")
        parts.append(f"{self.gpu_hours:.3g} GPU hours" if self.gpu_hours else "")
        parts.append(f"cost {self.cost:.2f}" if self.cost else "")
        other = f"{self.other} of another version of the code or packages, which do not count"
        return ", ".join(part for part in [*parts, other if self.other else ""] if part)


def announce(book: Ledger, trials: Mapping[str, Any], price: Price, name: str) -> str:
    """Write what a scan wants (keys and labels) into its ledger, so that `status` needs no more; returns its id."""
    book.mark()
    scan = digest(sorted(trials))
    value = {"name": name, "time": time.time(), "price": asdict(price), "made_by": made_by()}
    value["trials"] = {key: trial.label() for key, trial in trials.items()}
    book.store.write(f"scans/{name}-{scan}.json", json.dumps(value).encode())
    return scan


def scans(book: Ledger) -> list[dict[str, Any]]:
    """All that `announce` wrote, oldest first; what cannot be read is left out."""
    found, written = [], book.store.listing("scans")
    for name in sorted(written, key=written.__getitem__):
        with contextlib.suppress(ValueError, TypeError, LookupError):
            scan = json.loads(book.store.read(f"scans/{name}") or b"")
            if isinstance(scan["trials"], dict):
                found.append(scan)
    return found


def newest_scan(book: Ledger, name: str = "scan") -> dict[str, Any]:
    """What `announce` wrote last under this name; a `UserError` if no scan was ever started on this ledger."""
    if found := [scan for scan in scans(book) if scan.get("name") == name]:
        return found[-1]
    raise UserError(f"{book}: no scan was started here yet")


def is_ours(scan: Mapping[str, Any], config: Any = None) -> bool:
    """Whether this code with these packages gives the trials of an announced scan the same keys."""
    return made_by(config).items() <= (scan.get("made_by") or {}).items()


def other_versions(book: Ledger, config: Any = None) -> int:
    """Finished trials of the ledger that only another version of the code or of a package has announced."""
    sets: dict[bool, set[str]] = {True: set(), False: set()}
    for scan in scans(book):
        sets[is_ours(scan, config)].update(scan["trials"])
    return len(book.done(theirs)) if (theirs := sets[False] - sets[True]) else 0


def drivers(book: Ledger) -> dict[str, dict[str, Any]]:
    """Living drivers of a ledger by id, with the keys they are running."""
    now, found = time.time(), {}
    for name, modified in book.store.listing("drivers").items():
        if now - modified < ALIVE and (data := book.store.read(f"drivers/{name}")):
            with contextlib.suppress(json.JSONDecodeError):
                driver = json.loads(data)
                if may_live(driver):
                    found[name.removesuffix(".json")] = driver
    return found


def status(book: Ledger, scan: Mapping[str, Any] | None = None, config: Any = None) -> Status:
    """Where the newest scan of a ledger, or the given one, stands, of trials that ``config`` depends on, or all."""
    scan = scan if scan is not None else newest_scan(book)
    labels, price, ours = scan["trials"], Price(**scan["price"]), is_ours(scan, config)
    good = book.done(labels) if ours else set()
    failures = book.failures(key for key in labels if key not in good) if ours else {}
    alive = drivers(book)
    running = {key for driver in alive.values() for key in driver["running"] if key in labels and key not in good}
    written = book.written()
    recent = sorted(written[key] for key in good if key in written)[-RECENT:]
    left = len(labels) - len(good) - len(failures)
    times = [seconds for key, seconds in book.seconds().items() if key in good and seconds is not None]
    # What is not in the index yet costs what the others cost on average.
    seconds = sum(times) * (len(good) / len(times) if times else 0.0)
    return Status(
        total=len(labels),
        done=len(good),
        failed=len(failures),
        running=len(running),
        left=left,
        drivers=len(alive),
        missing=[missing(labels[key], row) for key, row in failures.items()],
        other=other_versions(book, config),
        **pace(recent, left, bool(alive)),
        **price.of(seconds),
    )


def pace(times: Sequence[float], left: int, running: bool = True) -> dict[str, float | None]:
    """The rate of trials that ended at ``times``, and how long ``left`` more take, as `Status` has them."""
    span = times[-1] - times[0] if times else 0.0
    rate = (len(times) - 1) / span if span > 0 else None
    return {"per_minute": 60 * rate if rate else None, "seconds_left": left / rate if rate and running else None}


def missing(label: str, failure: Mapping[str, Any]) -> dict[str, Any]:
    """One line of the table of what a scan lacks, its error the last line of the traceback."""
    kept = {name: failure[name] for name in ("kind", "attempts")}
    return {"trial": label, **kept, "error": last_line(failure["error"])}


class Heartbeat(Sign):
    """The sign of life of one driver: ``drivers/<id>.json``."""

    def __init__(self, book: Ledger) -> None:
        super().__init__(book.store, "drivers")
        self.book, self.running = book, set()

    def value(self) -> dict[str, Any]:
        """Who this is, and the keys that it is running."""
        return super().value() | {"running": sorted(tuple(self.running))}

    def elsewhere(self, keys: Iterable[str]) -> set[str]:
        """Those of ``keys`` that another living driver is running."""
        others = {key for name, d in drivers(self.book).items() if name != self.id for key in d["running"]}
        return others.intersection(keys)
