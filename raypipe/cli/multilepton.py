"""The multilepton search behind `raypipe search`, `scan` and `report` (dispatched on the configuration's `search`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from raypipe.cli.base import emit, refuse_given
from raypipe.errors import UserError

if TYPE_CHECKING:
    from raypipe.config.multilepton import MultileptonConfig


def search(config: MultileptonConfig, as_json: bool, signal: str, strength: float, instance: int) -> None:
    """One data set: the recorded data of `files` unless a signal or a strength is asked for, else pseudo-data."""
    from raypipe.cluster.multilepton import MultileptonRun
    from raypipe.search.multilepton import DATA, Trial
    from raypipe.search.result import NO_SIGNAL

    recorded = config.files is not None and signal == NO_SIGNAL
    if recorded:
        refuse_given(("instance",), "the search of the recorded data (files.data) takes no {}: there is one data set")
    with MultileptonRun(config) as run:
        found = run.search(Trial(DATA if recorded else signal, strength, 0 if recorded else instance))
    if found["failed"]:
        raise UserError(f"the search failed: {found['failed'][0]['error'].strip().splitlines()[-1]}")
    for test in found["tests"]:
        click.echo(f"{test['loss']} {test['statistic']:16s} {test['value']:10.5g}  p = {test['p']:.4f}", err=True)
    click.echo(f"{found['trial']}: combined p = {found['combined_p']:.4f} ({found['bootstraps']} bootstraps)", err=True)
    if as_json:
        emit(found)


def scan(config: MultileptonConfig, as_json: bool) -> None:
    """All comparisons and the report."""
    from raypipe.cluster.multilepton import MultileptonRun, print_summary

    with MultileptonRun(config) as run:
        summary = run.scan()
        print_summary(summary, run.folder)
        _emit(summary, as_json)
    if summary["failed_trials"]:
        raise UserError(f"{len(summary['failed_trials'])} comparisons failed; the same command tries them again")


def report(config: MultileptonConfig, as_json: bool) -> None:
    """The report again, from what is there."""
    from raypipe.cluster.multilepton import MultileptonRun, print_summary

    with MultileptonRun(config) as run:
        summary = run.report()
        print_summary(summary, run.folder)
        _emit(summary, as_json)


def _emit(summary: dict[str, Any], as_json: bool) -> None:
    if as_json:
        emit(summary)
