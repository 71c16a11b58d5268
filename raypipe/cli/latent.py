"""`raypipe latent`: pictures of the latent space."""

from __future__ import annotations

from pathlib import Path

import click

from raypipe.cli.base import emit, load, options


@click.command()
@options
@click.option(
    "--supervised/--no-supervised", default=True, help="Also train a transformer with labels (as long as the encoder)."
)
def latent(path: Path, output: Path | None, as_json: bool, overrides: tuple[str, ...], supervised: bool) -> None:
    """Draw the latent space: t-SNE maps and confusion matrices (trains what is missing).

    \b
    Example:
      raypipe latent --config configs/contrastive/laptop.yaml --no-supervised
    """
    from raypipe.cluster.latent import latent_pictures
    from raypipe.cluster.run import Run

    with Run(load(path, output, overrides)) as run:
        record = latent_pictures(run, supervised)
    for name, matrix in record["confusion"].items():
        click.echo(f"{name}: mean diagonal {matrix['mean_diagonal']:.3f}", err=True)
    click.echo(f"Figures: {', '.join(record['figures'].values())}", err=True)
    if as_json:
        emit(record)
