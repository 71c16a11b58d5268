"""`raypipe simulate`: make the event samples, or show which there are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from raypipe.cli.base import emit, load
from raypipe.errors import UserError

if TYPE_CHECKING:
    from raypipe.config import Config


@click.command()
@click.option("--config", "path", type=click.Path(path_type=Path), help="YAML of the search (not needed with --list).")
@click.option("--list", "list_only", is_flag=True, help="Show all samples that can be simulated and leave.")
@click.option(
    "--target",
    type=click.IntRange(min=1),
    metavar="N",
    help="Selected events of every sample, in place of the configuration's sizes.",
)
@click.option("--output", type=click.Path(path_type=Path), help="Run folder; wins over the configuration.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on standard output.")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
def simulate(
    path: Path | None,
    list_only: bool,
    target: int | None,
    output: Path | None,
    as_json: bool,
    overrides: tuple[str, ...],
) -> None:
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
        emit(rows) if as_json else click.echo(_table(rows))
        return
    if path is None:
        raise UserError("simulate: --config is missing (or ask for --list)")
    from raypipe.cluster.run import Run

    config = load(path, output, overrides)
    if config.simulate is None:
        raise UserError(f"{path}: this search reads your own tables (files); there is nothing to simulate")
    with Run(_resized(config, target) if target else config) as run:
        manifest = run.make([], until="simulate")["simulate"]["events"]
        if as_json:
            emit(manifest)
        for name, sample in manifest["samples"].items():
            click.echo(
                f"{name:14s} {sample['n']:8d} events, {sample['yield_per_fb']:10.4g} per fb^-1, "
                f"efficiency {sample['efficiency']:.3f}",
                err=True,
            )


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
        lines.append(
            f"{row['sample']:14s} {row['group']:5d}  {row['expected_yield_per_fb']:8.4g}  {row['family']:24s} "
            f"{masses:44s} {numbers}"
        )
    lines += [
        "",
        "yield/fb: expected selected events per fb^-1; signals have a nominal cross section of 1 fb",
        "profiles: simulate.mpi=true (multi-parton interactions, 3 to 12 times slower),",
        "          simulate.met_smearing=10 (GeV a component, to mimic pile-up)",
        "notes:",
    ]
    return "\n".join([*lines, *(f"  {number} {note}" for number, note in enumerate(notes, 1))])
