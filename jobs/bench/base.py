"""Measure our way against what a user would otherwise run, side by side in one run: only ratios are claims.

A bench is ``run(smoke: bool) -> list[Measurement]`` in a module of this folder (or ``run_PART``, called MODULE-PART),
entered in `BENCHES`. It times the two ways in turn, so that a machine that is busy for a while hurts both.
"""

from __future__ import annotations

import contextlib
import importlib
import platform
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any

import psutil

BENCHES = ("simulate", "events", "encoder", "embed", "flow", "flow-sampling")
BENCHES += ("bdt", "ensemble", "stats", "scan", "growth", "peers")
"""Names on the command line."""

SEED = 20_260
_PACKAGES = ("raypipe", "numpy", "torch", "ray", "xgboost", "nflows", "pyarrow", "pythia8mc", "iminuit", "scikit-learn")
_PACKAGES += ("zuko",)


@dataclass(frozen=True)
class Measurement:
    """One line of the table: medians of ours and the reference in ``unit``, and their ratio in every repetition."""

    name: str
    ours: float
    reference: float
    unit: str
    ratios: list[float]
    meaning: str
    """What the ratio is, such as ``speed-up`` (reference over ours) or ``time ours / time reference``."""
    target: float | None = None
    at_most: bool = False
    """Whether ``target`` bounds from above."""
    detail: dict[str, Any] = field(default_factory=dict)
    """Further numbers (sizes, losses, memory), JSON-ready."""

    @property
    def median(self) -> float:
        return statistics.median(self.ratios)

    @property
    def reached(self) -> bool | None:
        """Whether the median meets the target; None without one."""
        if self.target is None:
            return None
        return self.median <= self.target if self.at_most else self.median >= self.target

    def row(self) -> dict[str, Any]:
        """Flat and JSON-ready."""
        spread = {"ratio": self.median, "ratio_min": min(self.ratios), "ratio_max": max(self.ratios)}
        return {**asdict(self), **spread, "reached": self.reached}


Clock = Callable[[], float]
WALL, CPU = time.perf_counter, time.process_time
"""Seconds on the wall; of this process on all cores, which a machine that others use does not stretch."""


def timed(work: Callable[[], Any], clock: Clock = WALL) -> tuple[float, Any]:
    """Seconds of one call, and what it returned."""
    start = clock()
    result = work()
    return clock() - start, result


def in_turn(repeats: int, clock: Clock, *ways: Callable[[], Any]) -> tuple[list[list[float]], list[list[Any]]]:
    """Seconds of all ways, run in turn ``repeats`` times, and what they returned: a list a way each."""
    rounds = [[timed(way, clock) for way in ways] for _ in range(repeats)]
    seconds, results = ([[row[k][part] for row in rounds] for k in range(len(ways))] for part in (0, 1))
    return seconds, results


@contextlib.contextmanager
def threads(number: int) -> Iterator[None]:
    """Threads of PyTorch within the block."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def faster(clock: Clock, cores: int, work: Callable[[], Any]) -> tuple[float, Any]:
    """`timed` with one to ``cores`` threads of PyTorch, the fastest: small operations may be faster on one."""
    tries = []
    for number in range(1, cores + 1):
        with threads(number):
            tries.append(timed(work, clock))
    return min(tries, key=lambda one: one[0])


def peak_mib(work: Callable[[], Any]) -> tuple[float, Any]:
    """Largest memory [MiB] of this process and its children during a call, without what they share, seen ten times a
    second; and what it returned."""
    peaks, done = [_private_memory()], threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            peaks.append(_private_memory())

    with ThreadPoolExecutor(1) as pool:
        pool.submit(watch)
        try:
            result = work()
        finally:
            done.set()
    return max(peaks) / 2**20, result


def _private_memory() -> int:
    """Bytes."""
    total = 0
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):  # a worker that ended meanwhile
            memory = process.memory_info()
            total += memory.rss - memory.shared
    return total


def compared(
    name: str,
    ours: Sequence[float],
    reference: Sequence[float],
    target: float | None = None,
    *,
    unit: str = "s",
    meaning: str = "speed-up",
    at_most: bool = False,
    **detail: Any,
) -> Measurement:
    """A measurement from paired numbers: a speed (``meaning``) is reference over ours, all else ours over reference."""
    ratios = [b / a if meaning.startswith("speed") else a / b for a, b in zip(ours, reference, strict=True)]
    return Measurement(
        name, statistics.median(ours), statistics.median(reference), unit, ratios, meaning, target, at_most, detail
    )


def versions() -> dict[str, str]:
    """Python, machine and package versions that a record carries."""
    return {"python": platform.python_version(), "machine": platform.machine()} | {p: version(p) for p in _PACKAGES}


def run_bench(name: str, smoke: bool) -> list[Measurement]:
    """Run one bench of `BENCHES`; ``smoke`` asks for tiny sizes that only prove that it runs."""
    module, *part = name.split("-")
    return getattr(importlib.import_module(f"bench.{module}"), "_".join(["run", *part]))(smoke)


def markdown_table(record: dict[str, Any]) -> str:
    """Markdown of a record of ``python jobs/bench``, a line a measurement; no smoke runs. Below it, what they took."""

    def value(number: float) -> str:
        return f"{number:.2f}" if abs(number) < 10 else f"{number:.1f}"

    lines = ["| bench | ratio: median (range) | asked | ours | reference |", "|---|---|---|---|---|"]
    shown = {bench: entry for bench, entry in record["benches"].items() if not entry["smoke"]}
    for bench, row in ((bench, row) for bench, entry in shown.items() for row in entry["rows"]):
        spread = f"{value(row['ratio'])} ({value(row['ratio_min'])}-{value(row['ratio_max'])}) {row['meaning']}"
        sign = "<=" if row["at_most"] else ">="
        asked = "" if row["target"] is None else f"{sign} {row['target']:g}: {'yes' if row['reached'] else 'no'}"
        sides = f"{row['ours']:.3g} {row['unit']} | {row['reference']:.3g} {row['unit']}"
        lines.append(f"| `{bench}` {row['name']} | {spread} | {asked} | {sides} |")
    took = sum(entry.get("seconds", 0.0) for entry in shown.values())
    return "\n".join([*lines, "", f"{len(shown)} benches in {took / 60:.1f} minutes."])
