"""The stages of a search as commands: embed, search, scan (`simulate` and `report` have modules of their own)."""

from __future__ import annotations

from pathlib import Path

import click

from raypipe.cli import multilepton, table
from raypipe.cli.base import Number, emit, load, options, refuse_given
from raypipe.errors import UserError


@click.command()
@options
def embed(path: Path, output: Path | None, as_json: bool, overrides: tuple[str, ...]) -> None:
    """Train the encoder and embed all events (simulates what is missing).

    \b
    Example:
      raypipe embed --config configs/contrastive/laptop.yaml resources.train_workers=2
    """
    from raypipe.cluster.runs import run_of

    config = load(path, output, overrides)
    with run_of(config) as run:
        _, record = run.embed()
        where = run.folder / "encoder" / "latents.parquet"
        click.echo(f"{record['rows']} events embedded: {where}", err=True)
        if as_json:
            emit({**record, "path": str(where)})


@click.command()
@options
@click.option("--signal", default="none", show_default=True, help="Sample to inject, or none.")
@click.option(
    "--strength",
    type=Number(min=0),
    default=0.0,
    show_default=True,
    help="Injected S/sqrt(B) in the signal region; events in a multilepton search.",
)
@click.option("--instance", type=click.IntRange(0), default=0, show_default=True, help="Which pseudo-data set.")
@click.option(
    "--embedding",
    type=click.Choice(["id", "ip", "ep", "background", "raw"]),
    default="id",
    show_default=True,
    help="What the classifier sees (see `raypipe config`, scan.embeddings).",
)
@click.option(
    "--method",
    type=click.Choice(["cathode", "no_higgs", "idealised", "supervised", "cut"]),
    default="cathode",
    show_default=True,
    help="How the background is known (scan.methods).",
)
def search(
    path: Path,
    output: Path | None,
    as_json: bool,
    overrides: tuple[str, ...],
    signal: str,
    strength: float,
    instance: int,
    embedding: str,
    method: str,
) -> None:
    """Run the search once on one pseudo-data set (prepares what is missing).

    \b
    Example:
      raypipe search --config configs/contrastive/laptop.yaml --signal xsh_500_100 --strength 3
      raypipe search --config configs/multilepton/laptop.yaml --signal a_250 --strength 60
      raypipe search --config configs/lhco/laptop.yaml data.path=events.h5
    """
    from raypipe.search.counting import cut_lines
    from raypipe.search.result import Trial

    config = load(path, output, overrides)
    if config.search == "table":
        refuse_given(
            ("signal", "strength", "instance", "embedding", "method"),
            "{} has no effect: a search on a table takes what is in the table, as it is",
        )
        return table.search(config, as_json)
    if config.search == "multilepton":
        why = "{} has no effect in a multilepton search: its networks see the features against the reference"
        refuse_given(("embedding", "method"), why)
    if config.search == "haxad":
        refuse_given(("embedding",), "{} has no effect: a haxad search has one embedding, its autoencoder")
    _check_injection(signal, strength, config.scan.signals)
    if config.search == "multilepton":
        return multilepton.search(config, as_json, signal, strength, instance)
    from raypipe.cluster.runs import run_of

    with run_of(config) as run:
        trial = Trial(signal, strength, instance, embedding, method)
        trials = run.plan([trial], run.prepare([trial]))
        rows = run.run_trials(trials, name="search").rows(trials)
    if rows[0]["status"] != "ok":
        raise UserError(f"the search failed: {rows[0]['error'].strip().splitlines()[-1]}")
    for row in rows:
        for number, line in enumerate(cut_lines(row)):
            click.echo(f"{line}, SIC {row['sic']:.2f}" if number == 0 else line, err=True)
        if row.get("fit_z_after") is not None and not row["verdict"]:
            click.echo(
                f"  bump hunt ({row['family']}): {row['fit_s_after']:.1f} ± {row['fit_s_err_after']:.1f} events, "
                f"z {row['fit_z_before']:.2f} -> {row['fit_z_after']:.2f} ({row['fit_status_after']})",
                err=True,
            )
    if as_json:
        emit([{k: None if v != v else v for k, v in row.items()} for row in rows])


def _check_injection(signal: str, strength: float, signals: list[str]) -> None:
    """Refuse a signal that is not there, and a strength that does not fit it."""
    if signal != "none" and signal not in signals:
        raise UserError(f"--signal {signal!r} is not in scan.signals ({', '.join(signals) or 'empty'})")
    if (signal == "none") != (strength == 0):
        raise UserError(f"--strength {strength:g} does not fit --signal {signal}: a signal needs a positive strength")


@click.command()
@options
def scan(path: Path, output: Path | None, as_json: bool, overrides: tuple[str, ...]) -> None:
    """Run the whole grid of searches and write the report (prepares what is missing).

    \b
    Example:
      raypipe scan --config configs/contrastive/laptop.yaml scan.instances=4
    """
    from raypipe.cluster.runs import run_of, tell

    config = load(path, output, overrides)
    if config.search == "multilepton":
        return multilepton.scan(config, as_json)
    with run_of(config) as run:
        summary = run.scan()
        tell(config, summary, run.folder)
        if as_json:
            emit(summary)
    if summary["failed_trials"]:
        raise UserError(f"{len(summary['failed_trials'])} trials failed; the same command tries them again")
