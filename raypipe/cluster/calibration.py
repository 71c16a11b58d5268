"""What one unit of each stage costs on one machine: the numbers that `raypipe.cluster.calibrate` measures."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from raypipe.errors import UserError


@dataclass(frozen=True)
class Line:
    """Cost as ``start + each * units``."""

    start: float
    each: float

    def at(self, units: float) -> float:
        """Cost of so many units."""
        return self.start + self.each * units

    @staticmethod
    def through(a: tuple[float, float], b: tuple[float, float]) -> Line:
        """The line through two measurements (units, cost), neither coefficient negative."""
        each = max(0.0, (b[1] - a[1]) / (b[0] - a[0]))
        return Line(max(0.0, a[1] - each * a[0]), each)


@dataclass(frozen=True)
class Calibration:
    """Core seconds and bytes of the units of a scan on one machine."""

    search: str
    """Which search was measured."""
    machine: str
    simulate: dict[str, Line]
    """A shard by process: core seconds against selected events; processes not measured use the mean."""
    efficiency: dict[str, float]
    """Selected per generated event."""
    yield_per_fb: dict[str, float]
    """Selected events per fb^-1 of the background samples."""
    train_event: float
    """Core seconds an event of an encoder's training step; zero where a search has no encoder."""
    train_pair: float
    """Core seconds a pair of events of a training step (the contrastive loss)."""
    embed_event: float
    epoch_event: float
    """Core seconds an event and epoch of what a trial trains: all flows on a sideband event, or all networks."""
    trial: dict[str, Line]
    """The other stages of a trial: core seconds against its events, at this configuration's ratios."""
    event_bytes: float
    """Bytes of an event on disk."""
    trial_bytes: float
    """Bytes of a trial in the ledger."""
    worker_start: float
    """Core seconds of a fresh worker process before its first trial: the interpreter and its imports."""
    first_trial: float
    """Core seconds that the first trial of a process takes more than the same trial later: what is loaded on use."""
    worker_bytes: float
    """Resident memory of a process that has run the largest of these trials."""
    measured_seconds: float
    largest: float
    """Events of the largest trial that was run."""
    measured: list[str]
    """What was run, in words; everything else is extrapolated."""

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    @staticmethod
    def of(values: dict[str, Any]) -> Calibration:
        """The inverse of `as_dict`.

        Raises:
            UserError: values that this version of raypipe did not write.
        """
        try:
            lines = {name: {k: Line(**v) for k, v in values[name].items()} for name in ("simulate", "trial")}
            return Calibration(**{**values, **lines})
        except (TypeError, KeyError, AttributeError) as error:
            raise UserError("calibration: written by another version of raypipe; remove it to measure again") from error


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Processor seconds of ``work()``, and what it returned. A busy machine measures the same."""
    began = time.process_time()
    value = work()
    return time.process_time() - began, value
