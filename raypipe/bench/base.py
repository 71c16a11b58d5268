"""Measure our way against what a user would otherwise run, side by side in one run: only ratios are claims.

A bench is a module of this room with ``run(smoke: bool) -> list[Measurement]``, entered in `BENCHES`. It times the two
ways in turn (ours, reference, ours, reference, ...), so that a machine that is busy for a while hurts both.
"""

from __future__ import annotations

import contextlib
import importlib
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any

BENCHES = (
    *("simulate", "events", "encoder", "embed", "flow", "flow-sampling"),
    *("bdt", "ensemble", "stats", "scan", "growth"),
)
"""Names on the command line, of modules with ``run``."""

SEED = 20_260
_PACKAGES = ("raypipe", "numpy", "torch", "ray", "xgboost", "nflows", "pyarrow", "pythia8mc", "iminuit", "scikit-learn")


@dataclass(frozen=True)
class Measurement:
    """One line of the table.

    Attributes:
        name: what was measured. ours, reference: medians in ``unit``.
        ratios: ours / reference, one a repetition (or the other way round: see ``meaning``).
        meaning: what the ratio is, such as ``speed-up`` or ``time ours / time reference``.
        target: the bound asked for; ``at_most``: whether it bounds from above.
        detail: further numbers (sizes, losses, memory, profile), JSON-ready.
    """

    name: str
    ours: float
    reference: float
    unit: str
    ratios: list[float]
    meaning: str
    target: float | None = None
    at_most: bool = False
    detail: dict[str, Any] = field(default_factory=dict)

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


def seconds(work: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> float:
    """Wall seconds of one call."""
    start = clock()
    work()
    return clock() - start


def cpu_seconds(work: Callable[[], Any]) -> float:
    """CPU seconds of this process in one call: what a machine that others use does not stretch."""
    return seconds(work, time.process_time)


def in_turn(ours: Callable[[], Any], reference: Callable[[], Any], repeats: int, clock: Any = seconds) -> Any:
    """Times of both ways, run in turn ``repeats`` times: two tuples."""
    return tuple(zip(*[(clock(ours), clock(reference)) for _ in range(repeats)], strict=True))


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
    medians = statistics.median(ours), statistics.median(reference)
    return Measurement(name, *medians, unit, ratios, meaning, target, at_most, detail)


def versions() -> dict[str, str]:
    """Python, machine and package versions that a record carries."""
    return {"python": platform.python_version(), "machine": platform.machine()} | {p: version(p) for p in _PACKAGES}


def run_bench(name: str, smoke: bool) -> list[Measurement]:
    """Run one bench of `BENCHES`; ``smoke`` asks for tiny sizes that only prove that it runs."""
    return importlib.import_module(f"raypipe.bench.{name.replace('-', '_')}").run(smoke)


def markdown_table(record: dict[str, Any]) -> str:
    """Markdown of a record of ``raypipe bench``: a line a measurement, medians with their range; no smoke runs. Below
    it, how long they took together."""

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
