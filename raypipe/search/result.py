"""What a search returns: flat rows for the ledger, named arrays for the figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from raypipe.files import digest

NO_SIGNAL = "none"
"""Name of the runs without an injection."""


Stage = Callable[[str, str, Callable[[], dict[str, Any]]], dict[str, Any]]
"""``stage(kind, key, make)``: the state (tensors and plain values) of a part of the work that has the hash ``key`` of
everything that determines it; ``make()`` is called if nobody has made it yet."""


@dataclass(frozen=True)
class Trial:
    """One point of a scan: what is injected into which instance of the pseudo-data."""

    signal: str
    strength: float
    instance: int

    def key(self, inputs: dict[str, Any]) -> str:
        """Hash of the trial together with everything that determines its result."""
        return digest({"signal": self.signal, "strength": self.strength, "instance": self.instance, **inputs})

    def label(self) -> str:
        """Short name for people."""
        what = "no signal" if self.signal == NO_SIGNAL else f"{self.signal} at {self.strength:g}"
        return f"{what}, instance {self.instance}"


def trial_grid(signals: list[str], strengths: list[float], instances: int, background_instances: int) -> list[Trial]:
    """All trials of a scan; runs without signal come first."""
    none = [Trial(NO_SIGNAL, 0.0, i) for i in range(background_instances)]
    return none + [Trial(s, x, i) for s in signals for x in strengths for i in range(instances)]


@dataclass(frozen=True)
class Result:
    """One finished search."""

    rows: list[dict[str, Any]]
    """One row a working point; the columns are documented in `raypipe.search.contrastive.evaluate`."""
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    """One-dimensional arrays for the figures."""
    flow_state: dict[str, Any] | None = None
    """The background model, for storage; None if a `Stage` keeps it."""
