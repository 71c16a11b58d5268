"""`raypipe report`: the page of a scan, or of an event data set."""

from __future__ import annotations

from pathlib import Path

import click

from raypipe.cli.base import emit, load
from raypipe.errors import UserError


@click.command()
@click.option("--config", "path", type=click.Path(path_type=Path), help="YAML of the search (not with --events).")
@click.option(
    "--events",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Validate this event data set instead: the folder with dataset.json.",
)
@click.option("--output", type=click.Path(path_type=Path), help="Folder of the page; wins over the configuration.")
@click.option("--json", "as_json", is_flag=True, help="Print the numbers as JSON on standard output.")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
def report(
    path: Path | None, events: Path | None, output: Path | None, as_json: bool, overrides: tuple[str, ...]
) -> None:
    """Make figures, page and summary again from a finished or unfinished scan; or validate an event data set.

    \b
    Examples:
      raypipe report --config configs/contrastive/laptop.yaml --json
      raypipe report --events runs/demo/events
    """
    if events is not None:
        if path is not None or overrides:
            raise UserError("report: --events takes no --config and no overrides; it describes the data set as it is")
        return _validate(events, output, as_json)
    if path is None:
        raise UserError("report: --config is missing (or give an event data set with --events DIR)")
    from raypipe.cluster.run import Run

    with Run(load(path, output, overrides)) as run:
        summary = run.report()
        if as_json:
            emit(summary)


def _validate(events: Path, output: Path | None, as_json: bool) -> None:
    from raypipe.report.validation import make_validation
    from raypipe.report.validation_page import headlines

    numbers = make_validation(events, output)
    for line in headlines(numbers):
        click.echo(line, err=True)
    click.echo(f"page: {numbers['page']}", err=True)
    if as_json:
        emit(numbers)
