"""The YAML of a simulation without a search."""

from __future__ import annotations

from typing import Literal

from raypipe.config.run import Run
from raypipe.config.sections import Simulate


class Simulation(Run):
    """Event samples alone, for `raypipe simulate`."""

    search: Literal["none"] = "none"
    """No search follows."""
    output: str = "runs/events"
    """Folder of everything this run writes."""
    simulate: Simulate
    """Event samples."""
