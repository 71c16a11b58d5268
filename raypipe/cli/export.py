"""`raypipe export`: the statistical model of a search in the formats of others."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from raypipe.cli.base import FILE, emit, tell

FAMILY = "The signal is the injected family's simulation and mu its cross section; else any excess."
NAMES = {"pyhf": "workspace.json", "datacard": "datacard.txt", "hepdata": "hepdata"}


@click.command()
@click.argument("run", type=FILE)
@click.option("--pyhf", "form", flag_value="pyhf", help="A JSON workspace for pyhf and cabinetry.")
@click.option("--datacard", "form", flag_value="datacard", help="A datacard for Combine, every bin a channel.")
@click.option("--hepdata", "form", flag_value="hepdata", help="A HEPData submission: YAML tables.")
@click.option("--signal", help="The trial's injected signal, `none` without one.")
@click.option("--strength", type=float, help="Its strength.")
@click.option("--instance", type=int, help="Its pseudo-data set.")
@click.option("--embedding", help="Its representation.")
@click.option("--method", help="Its way to know the background.")
@click.option("--family", is_flag=True, help=FAMILY)
@click.option("--output", type=FILE, help="Folder to write into; RUN/export if not given.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on standard output.")
def export(run: Path, form: str | None, family: bool, output: Path | None, as_json: bool, **trial: object) -> None:
    """Write the likelihood of one trial of a finished RUN folder, and say its significance and limit.

    \b
    Example:
      raypipe export runs/demo --pyhf --signal xsh_500_100 --strength 3 --instance 0
    """
    from raypipe.errors import UserError
    from raypipe.files import check_writable
    from raypipe.report.hepdata import write_submission
    from raypipe.stats.exports import datacard
    from raypipe.stats.limits import workspace_limit
    from raypipe.stats.workspace import Fits, workspace
    from raypipe.store.exported import exported_bins, finished_trials

    if form is None:
        raise UserError("export: one of --pyhf, --datacard, --hepdata is needed")
    book, trials = finished_trials(run)
    row, bins = exported_bins(book, trials, trial, family)
    fits, unit = Fits(spec := workspace(bins)), "fb" if family else "square roots of the expected background"
    limit, path = workspace_limit(fits), check_writable(output or run / "export") / NAMES[form]
    if form == "hepdata":
        path = write_submission(path, [row for rows in trials.values() for row in rows], bins, limit, unit)
    else:
        told = f"{row['signal']}, strength {row['strength']:g}, instance {row['instance']}; mu in {unit}"
        path.write_text(json.dumps(spec, indent=1) if form == "pyhf" else datacard(bins, told), encoding="utf-8")
    found = {"path": str(path), "z": fits.z, "mu": fits.mu, "unit": unit, "limit": asdict(limit)}
    tell("z {z:.2f}, mu {mu:.3g} {unit}: {path}".format(**found))
    tell(f"upper limit on mu {limit.observed:.3g}, {limit.expected:.3g} expected")
    emit(found, as_json)
