"""`raypipe unblind`: allow to look at the signal region of recorded data."""

from pathlib import Path

import click

from raypipe.cli.base import FILE, tell


@click.command()
@click.argument("run", type=FILE)
@click.option("--reason", required=True, help="Why now; it stands in looks.json and on every page.")
def unblind(run: Path, reason: str) -> None:
    """Allow to look at the signal region of the last blind search in the run folder RUN, as it was configured.

    \b
    Example:
      raypipe unblind runs/mine --reason "closure is fine, cuts are frozen"
    """
    from raypipe.store import looks

    tell(f"unblinded {looks.unblind(run, reason)}; run the same search again to see the result")
