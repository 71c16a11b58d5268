"""Which run belongs to which search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from raypipe.cluster import haxad, pipeline


def run_of(config: Any) -> pipeline.Run:
    """The run folder of a contrastive or HAXAD search (multilepton and table searches have runs of their own)."""
    return haxad.HaxadRun(config) if config.search == "haxad" else pipeline.Run(config)


def tell(config: Any, summary: dict[str, Any], folder: Path) -> None:
    """Print the summary of such a run."""
    (haxad if config.search == "haxad" else pipeline).print_summary(summary, folder)
