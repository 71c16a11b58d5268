"""Measure our way against what a user would otherwise run, side by side in one run: only ratios are claims.

A bench is a module of this room with ``run(smoke: bool) -> list[Measurement]``, entered in `BENCHES`. It times the two
ways in turn (ours, reference, ours, reference, ...), so that a machine that is busy for a while hurts both.
"""

from __future__ import annotations

import importlib
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any

BENCHES: dict[str, str] = {
    "simulate": "raypipe.bench.simulate",
    "events": "raypipe.bench.events",
    "encoder": "raypipe.bench.encoder",
    "embed": "raypipe.bench.embed",
    "flow": "raypipe.bench.flow",
    "flow-sampling": "raypipe.bench.flow_sampling",
    "bdt": "raypipe.bench.bdt",
    "ensemble": "raypipe.bench.ensemble",
    "stats": "raypipe.bench.stats",
    "scan": "raypipe.bench.scan",
    "growth": "raypipe.bench.growth",
}
"""Name on the command line -> module with ``run``."""

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


def seconds(work: Callable[[], Any]) -> float:
    """Wall seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def cpu_seconds(work: Callable[[], Any]) -> float:
    """CPU seconds of this process in one call: what a machine that others use does not stretch."""
    start = time.process_time()
    work()
    return time.process_time() - start


def alternate(ours: Callable[[], Any], reference: Callable[[], Any], repeats: int) -> tuple[list[float], list[float]]:
    """Wall seconds of both ways, run in turn ``repeats`` times."""
    pairs = [(seconds(ours), seconds(reference)) for _ in range(repeats)]
    return [a for a, _ in pairs], [b for _, b in pairs]


def speed_up(
    name: str,
    ours: Sequence[float],
    reference: Sequence[float],
    target: float | None = None,
    unit: str = "s",
    **detail: Any,
) -> Measurement:
    """A measurement whose ratio is time of the reference over time of ours, from paired times in seconds."""
    ratios = [b / a for a, b in zip(ours, reference, strict=True)]
    medians = statistics.median(ours), statistics.median(reference)
    return Measurement(name, *medians, unit, ratios, "speed-up", target, detail=detail)


def versions() -> dict[str, str]:
    """Python, machine and package versions that a record carries."""
    return {"python": platform.python_version(), "machine": platform.machine()} | {p: version(p) for p in _PACKAGES}


def run_bench(name: str, smoke: bool) -> list[Measurement]:
    """Run one bench of `BENCHES`; ``smoke`` asks for tiny sizes that only prove that it runs."""
    return importlib.import_module(BENCHES[name]).run(smoke)
