"""The YAML of a contrastive search (paper C), whole."""

from __future__ import annotations

from typing import Literal

from raypipe.config.run import DiphotonRun
from raypipe.config.sections import Embedding


class Config(DiphotonRun):
    """One search, whole."""

    search: Literal["contrastive"] = "contrastive"
    """Which of the published searches this is."""
    output: str = "runs/default"
    """Folder of everything this run writes."""
    embedding: Embedding
    """Encoder and its training."""
