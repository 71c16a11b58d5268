"""`raypipe calibrate`: what the p-values of a search are worth."""

from __future__ import annotations

import click

from raypipe.cli.base import Asked, Number, options, shown, tell

NULLS = "Pseudo-nulls of every embedding; more of them go on where fewer ended."
SMALLEST = "Smallest p-value that must be told: refused with too few nulls."
RETRAIN = "So many nulls once more, with flows that learn the null itself: what that changes."


@click.command()
@options()
@shown("--nulls", type=click.IntRange(min=1), default=1000, help=NULLS)
@shown("--smallest-p", type=Number(min=0, min_open=True, max=1), default=0.01, help=SMALLEST)
@shown("--retrain", type=click.IntRange(min=0), default=0, help=RETRAIN)
def calibrate(asked: Asked, nulls: int, smallest_p: float, retrain: int) -> None:
    """Search pseudo-data without a signal, thousands of times: how often do they reach what the search reports?

    Of contrastive searches. Nulls are drawn from the sideband fit and the flows of the search itself (prepares what is
    missing). The result is calibration.json in the run folder; `raypipe scan` and `raypipe report` show calibrated
    significances with it.

    \b
    Example:
      raypipe calibrate --config configs/contrastive/laptop.yaml --nulls 10000 --smallest-p 1e-4
    """
    from raypipe.report.calibrated import FILE, retrained_lines
    from raypipe.stats.calibration import check_nulls

    check_nulls(nulls, smallest_p)
    with asked.run() as run:
        record = run.calibrate(nulls, retrain)
    for line in retrained_lines(record["retrained"]):
        tell(line)
    tell(f"Calibration: {run.folder / FILE}")
    asked.emit({name: record[name] for name in ("tails", "retrained")} | {"path": str(run.folder / FILE)})
