"""`raypipe read`: users' files into tables of raypipe."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from raypipe.cli.base import emit


@click.command()
@click.option("--config", "path", type=click.Path(path_type=Path), required=True, help="YAML with search: read.")
@click.option("--output", type=click.Path(path_type=Path), help="Folder of the tables; wins over the configuration.")
@click.option(
    "--on-error",
    type=click.Choice(["stop", "skip"]),
    default="stop",
    show_default=True,
    help="What to do with a file that cannot be read.",
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override, such as source.sample=ggf.")
@click.option("--json", "as_json", is_flag=True, help="Print the sidecar on standard output.")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
def read(
    path: Path, output: Path | None, on_error: str, overrides: tuple[str, ...], as_json: bool, files: tuple[str, ...]
) -> None:
    """Turn Delphes, NanoAOD, ROOT, HDF5, NumPy, text or Parquet files into tables of raypipe.

    One Parquet file for each input and a sidecar read.json with counts; files larger than memory stream. Text tables
    (.csv .tsv .txt .dat, also .gz) may lack a header: their columns then are named by their places. Events that repeat
    an earlier one (more than 0.1 %) are refused without --set source.duplicates=drop or =keep. Status 1 if every
    file was skipped.

    \b
    Example:
      raypipe read --config configs/read/delphes.yaml --on-error skip run1.root run2.root
      raypipe read --config configs/read/lhco.yaml events_anomalydetection.h5
    """
    from raypipe.cli.base import load
    from raypipe.cluster.importing import import_files

    config = load(path, output, overrides)
    summary = import_files(config, files, skip=on_error == "skip")
    for file in summary["files"]:
        click.echo(
            f"{file['path']}: {file['events']} events read, {file['written']} written: {file['table']}", err=True
        )
        if file["negative_weights"]:
            click.echo(
                f"  {file['negative_weights']} weights are negative: the yield is their sum, {file['weight']:g} "
                f"({file['weight'] / file['sum_of_moduli']:.3f} of that of the moduli)",
                err=True,
            )
    for file in summary["skipped"]:
        click.echo(f"skipped: {file['reason']}", err=True)
    if summary["repeated"]:
        click.echo(
            f"{summary['repeated']} events repeat an earlier one: "
            + ("dropped" if config.source.duplicates == "drop" else "kept"),
            err=True,
        )
    if as_json:
        emit(summary)
    if not summary["files"]:
        click.echo(f"raypipe: none of {summary['n_files']} files could be read", err=True)
        sys.exit(1)
