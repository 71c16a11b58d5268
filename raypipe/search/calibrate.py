"""Time small pieces of every stage of a search on this machine: what `raypipe.search.plan` reckons with."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psutil
from pydantic import TypeAdapter, ValidationError

from raypipe.errors import UserError
from raypipe.search.costs import Cost, Part

REPEATS, SHORT = 3, 5.0
"""A piece of work is timed so often, if that takes less than so many core seconds; the median counts."""
VERSION = 2  # Of the format of a calibration


@dataclass(frozen=True)
class Line:
    """``start + each * units``."""

    start: float
    each: float

    def at(self, units: float) -> float:
        """Its value."""
        return self.start + self.each * units

    @staticmethod
    def through(a: tuple[float, float], b: tuple[float, float]) -> Line:
        """The line through two measurements (units, value), neither coefficient negative."""
        each = max(0.0, (b[1] - a[1]) / (b[0] - a[0]))
        return Line(max(0.0, a[1] - each * a[0]), each)


@dataclass(frozen=True)
class Measured:
    """What a part was found to cost."""

    seconds: Line  # Core seconds against units
    disk: Line  # Bytes against units
    largest: float  # Units of the largest that was done


@dataclass(frozen=True)
class Calibration:
    """What the parts of a search cost on one machine."""

    search: str
    machine: str
    parts: dict[str, Measured]
    worker_bytes: float  # Resident memory of a process that has done all parts
    version: int

    def seconds(self, part: Part) -> float:
        """Core seconds of a part of an item; a `UserError` if it was not measured."""
        if part.name not in self.parts:
            raise UserError(f"calibration: {part.name!r} is not in it; remove it to measure again")
        measured = self.parts[part.name]
        known = min(part.units, measured.largest) if part.trees else part.units
        return part.times * measured.seconds.at(known) * part.units / known

    @staticmethod
    def of(values: Any, search: str) -> Calibration:
        """From what a file holds; a `UserError` if another version of raypipe wrote it, or it is of another search."""
        found = None
        with contextlib.suppress(ValidationError):
            found = TypeAdapter(Calibration).validate_python(values)
        if found is None or found.version != VERSION:
            raise UserError("calibration: written by another version of raypipe; remove it to measure again")
        if found.search != search:
            raise UserError(f"calibration: of a {found.search} search, not of search = {search!r}")
        return found


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Processor seconds of ``work()``, and what it returned. A busy machine measures the same."""
    began = time.process_time()
    value = work()
    return time.process_time() - began, value


def measure(part: Part) -> Measured:
    """Time a part at its two sizes, after one that loads and allocates."""
    part.probe(part.sizes[0], 0)[1]()
    found = []
    for size in part.sizes:
        began, runs = time.process_time(), []
        while len(runs) < REPEATS and (not runs or time.process_time() - began < SHORT):
            units, run = part.probe(size, len(runs))
            runs.append(timed(run))
        seconds, disk = zip(*runs, strict=True)
        found.append((units, statistics.median(seconds), statistics.mean(disk)))
    (a, fast, small), (b, slow, large) = found
    return Measured(Line.through((a, fast), (b, slow)), Line.through((a, small), (b, large)), b)


def calibrate(search: str, costs: Sequence[Cost], say: Callable[[str], None] = lambda text: None) -> Calibration:
    """Measure every part: a minute for a configuration of a laptop, two for one of a cluster."""
    found = {}
    with _stdout_is_ours():
        for name, part in {part.name: part for cost in costs for part in cost.parts}.items():
            say(name)
            found[name] = measure(part)
    machine, memory = f"{platform.node()} {platform.machine()}", float(psutil.Process().memory_info().rss)
    return Calibration(search, machine, found, memory, VERSION)


@contextlib.contextmanager
def _stdout_is_ours() -> Iterator[None]:
    """Send what C++ libraries print on standard output (FastJet's banner) to standard error: ours may be JSON."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        yield
    finally:
        ctypes.CDLL(None).fflush(None)
        os.dup2(kept, 1)
        os.close(kept)
