"""Where events come from: `raypipe simulate` makes samples, `raypipe read` takes users' files."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from raypipe.cli.base import Asked, emit, options, shown, tell
from raypipe.errors import UserError

if TYPE_CHECKING:
    from raypipe.config import Config


TARGET = "Selected events of every sample, in place of the configuration's sizes."


@click.command()
@options(
    click.option("--list", "list_only", is_flag=True, help="Show all samples that can be simulated and leave."),
    click.option("--target", type=click.IntRange(min=1), metavar="N", help=TARGET),
    config="YAML of the search (not needed with --list).",
    required=False,
)
def simulate(asked: Asked, list_only: bool, target: int | None) -> None:
    """Simulate the event samples of a configuration; --list shows all that exist.

    \b
    Examples:
      raypipe simulate --list
      raypipe simulate --config configs/contrastive/laptop.yaml --target 2000
      raypipe simulate --config configs/contrastive/laptop.yaml simulate.samples.stop_1000.events=50000
    """
    if list_only:
        from raypipe.simulate.processes import PROCESSES

        rows = [process.listing() for process in PROCESSES.values()]
        emit(rows) if asked.as_json else click.echo(_table(rows))
        return
    if asked.path is None:
        raise UserError("simulate: --config is missing (or ask for --list)")
    config = asked.config()
    if config.simulate is None:
        raise UserError(f"{asked.path}: this search reads your own tables (files); there is nothing to simulate")
    with asked.run(_resized(config, target) if target else config) as run:
        manifest = run.make([], until="simulate")["simulate"]["events"]
        asked.emit(manifest)
        for name, sample in manifest["samples"].items():
            made = f"{name:14s} {sample['n']:8d} events, {sample['yield_per_fb']:10.4g} per fb^-1"
            tell(f"{made}, efficiency {sample['efficiency']:.3f}")


def _resized(config: Config, target: int) -> Config:
    """The configuration with ``target`` selected events of every sample."""
    samples = {name: size.model_copy(update={"events": target}) for name, size in config.simulate.samples.items()}
    return config.model_copy(update={"simulate": config.simulate.model_copy(update={"samples": samples})})


def _table(rows: list[dict[str, Any]]) -> str:
    """Lines for people; the approximations are numbered and explained below."""
    notes = list(dict.fromkeys(note for row in rows for note in row["approximations"]))
    lines = [f"{'sample':14s} {'group':>5s}  {'yield/fb':>8s}  {'family':24s} {'masses [GeV]':44s} notes"]
    for row in rows:
        masses = ", ".join(f"{name} {mass:g}" for name, mass in row["masses"].items())
        numbers = ",".join(str(1 + notes.index(note)) for note in row["approximations"])
        sample = f"{row['sample']:14s} {row['group']:5d}  {row['expected_yield_per_fb']:8.4g}  {row['family']:24s}"
        lines.append(f"{sample} {masses:44s} {numbers}")
    lines += [
        "",
        "yield/fb: expected selected events per fb^-1; signals have a nominal cross section of 1 fb",
        "profiles: simulate.mpi=true (multi-parton interactions, 3 to 12 times slower),",
        "          simulate.met_smearing=10 (GeV a component, to mimic pile-up)",
        "notes:",
    ]
    return "\n".join([*lines, *(f"  {number} {note}" for number, note in enumerate(notes, 1))])


ON_ERROR = "What to do with a file that cannot be read."


@click.command()
@options(
    config="YAML with search: read.",
    output="Folder of the tables; wins over the configuration.",
    json=None,
    overrides=False,
)
@shown("--on-error", type=click.Choice(["stop", "skip"]), default="stop", help=ON_ERROR)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override, such as source.sample=ggf.")
@click.option("--json", "as_json", is_flag=True, help="Print the sidecar on standard output.")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
def read(asked: Asked, on_error: str, files: tuple[str, ...]) -> None:
    """Turn Delphes, NanoAOD, ROOT, HDF5, NumPy, text or Parquet files into tables of raypipe.

    One Parquet file for each input and a sidecar read.json with counts; files larger than memory stream. Text tables
    (.csv .tsv .txt .dat, also .gz) may lack a header: their columns then are named by their places. Events that repeat
    an earlier one (more than 0.1 %) are refused without --set source.duplicates=drop or =keep. Status 1 if every
    file was skipped. ROOT files may lie behind URLs: root://server//path with `pip install raypipe[xrootd]`. An I/O
    error there is met again, resources.max_failures times with growing pauses.

    \b
    Example:
      raypipe read --config configs/read/delphes.yaml --on-error skip run1.root run2.root
      raypipe read --config configs/read/delphes.yaml root://server//path/run3.root
      raypipe read --config configs/read/lhco.yaml events_anomalydetection.h5
    """
    from raypipe.cluster.importing import import_files

    config = asked.config()
    summary = import_files(config, files, skip=on_error == "skip")
    for file in summary["files"]:
        tell(f"{file['path']}: {file['events']} events read, {file['written']} written: {file['table']}")
        if file["negative_weights"]:
            share = f"{file['weight']:g} ({file['weight'] / file['sum_of_moduli']:.3f} of that of the moduli)"
            tell(f"  {file['negative_weights']} weights are negative: the yield is their sum, {share}")
    for file in summary["skipped"]:
        tell(f"skipped: {file['reason']}")
    if summary["skipped"]:
        tell(f"{summary['n_skipped']} of {summary['n_files']} files left out")
    if summary["repeated"]:
        done = "dropped" if config.source.duplicates == "drop" else "kept"
        tell(f"{summary['repeated']} events repeat an earlier one: {done}")
    asked.emit(summary)
    if not summary["files"]:
        tell(f"raypipe: none of {summary['n_files']} files could be read")
        sys.exit(1)
