"""The YAML of a simulation without a search."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from raypipe.config.base import Section
from raypipe.config.resources import Resources
from raypipe.config.sections import Simulate


class Simulation(Section):
    """Event samples alone, for `raypipe simulate`."""

    search: Literal["none"] = "none"
    """No search follows."""
    output: str = "runs/events"
    """Folder of everything this run writes."""
    seed: int = Field(1, ge=0)
    """Root of every random stream."""
    simulate: Simulate
    """Event samples."""
    resources: Resources = Resources()
    """Ray resources; they never change a number."""
