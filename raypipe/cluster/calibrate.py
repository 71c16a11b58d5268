"""Time small pieces of every stage of a search on this machine: what `raypipe.cluster.plan` reckons with."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psutil
import torch
from pydantic import TypeAdapter, ValidationError

from raypipe.errors import UserError
from raypipe.search.costs import Cost, Part

REPEATS, SHORT = 3, 5.0
"""A piece of work is timed so often, if that takes less than so many core seconds; the median counts."""
VERSION = 2
"""Of the format of a calibration."""


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

    seconds: Line
    """Core seconds against units."""
    disk: Line
    """Bytes against units."""
    largest: float
    """Units of the largest that was done."""


@dataclass(frozen=True)
class Calibration:
    """What the parts of a search cost on one machine."""

    search: str
    machine: str
    parts: dict[str, Measured]
    worker_start: float
    """Core seconds of a fresh worker process until its first trial, and what that trial takes more than later ones."""
    worker_bytes: float
    """Resident memory of a process that has done all parts."""
    version: int = VERSION

    def seconds(self, part: Part) -> float:
        """Core seconds of a part of an item.

        Raises:
            UserError: it was not measured.
        """
        if part.name not in self.parts:
            raise UserError(f"calibration: {part.name!r} is not in it; remove it to measure again")
        measured = self.parts[part.name]
        known = min(part.units, measured.largest) if part.trees else part.units
        return part.times * measured.seconds.at(known) * part.units / known

    @staticmethod
    def of(values: Any, search: str) -> Calibration:
        """From what a file holds.

        Raises:
            UserError: written by another version of raypipe, or of another search.
        """
        try:
            found = TypeAdapter(Calibration).validate_python(values)
        except ValidationError:
            found = None
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


def measure(part: Part) -> tuple[Measured, float]:
    """Time a part at its two sizes, after one that loads and allocates; also what that one took more."""
    first = timed(part.probe(part.sizes[0], 0)[1])[0]
    found = []
    for size in part.sizes:
        began, runs = time.process_time(), []
        while len(runs) < REPEATS and (not runs or time.process_time() - began < SHORT):
            units, run = part.probe(size, len(runs))
            runs.append(timed(run))
        found.append((units, statistics.median(run[0] for run in runs), statistics.mean(run[1] for run in runs)))
    (a, seconds, small), (b, more, large) = found
    lines = Line.through((a, seconds), (b, more)), Line.through((a, small), (b, large))
    return Measured(*lines, b), max(0.0, first - seconds)


def calibrate(search: str, costs: Sequence[Cost], say: Callable[[str], None] = lambda text: None) -> Calibration:
    """Measure every part on one core: a minute for a configuration of a laptop, two for one of a cluster.

    Processor time counts, not wall time, so that a busy machine measures the same.
    """
    threads, parts = torch.get_num_threads(), {part.name: part for cost in costs for part in cost.parts}
    torch.set_num_threads(1)
    found = {}
    try:
        with _stdout_is_ours():
            for name, part in parts.items():
                say(name)
                found[name] = measure(part)
    finally:
        torch.set_num_threads(threads)
    trials = [part.name for cost in costs if cost.stage == "trial" for part in cost.parts]
    start = fresh_process() + max(found[name][1] for name in trials)
    machine, memory = f"{platform.node()} {platform.machine()}", float(psutil.Process().memory_info().rss)
    return Calibration(search, machine, {name: measured for name, (measured, _) in found.items()}, start, memory)


def fresh_process() -> float:
    """Core seconds of a new process until it has imported what a worker imports."""
    code = f"import sys, time; sys.path[:0] = {sys.path!r}\nimport ray.tune, raypipe.search.costs\n"
    command = [sys.executable, "-c", f"{code}print(time.process_time())"]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


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
