"""`raypipe status`: how far a scan is."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from raypipe.cli.base import Searching, emit, load, options


@click.command(cls=Searching)
@options
def status(path: Path, output: Path | None, as_json: bool, overrides: tuple[str, ...]) -> None:
    """Say how far the scan of a run folder is, from its ledger alone.

    \b
    Example:
      raypipe status --config configs/contrastive/laptop.yaml
    """
    from raypipe.cluster.live import tell
    from raypipe.store import status as stores
    from raypipe.store.ledger import open_ledger

    config = load(path, output, overrides)
    found = stores.status(open_ledger(config), config=config)
    tell(found)
    if as_json:
        emit(asdict(found))
