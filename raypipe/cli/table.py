"""What `raypipe search` does for `search: table`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from raypipe.cli.base import emit

if TYPE_CHECKING:
    from raypipe.config.table import TableConfig


def search(config: TableConfig, as_json: bool) -> None:
    """The search on a user's own table, once."""
    from raypipe.cluster.table import run_table_search, summary_lines

    summary = run_table_search(config)
    for line in summary_lines(summary, Path(config.output)):
        click.echo(line, err=True)
    if as_json:
        emit(summary)
