"""The stages of a search as commands: embed, search, scan, report (`simulate` has a module of its own)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from raypipe.cli.base import POSITIVE, Backgrounds, Number, Searching, emit, load, options, refuse_given
from raypipe.errors import UserError

ASKED = ("signal", "strength", "instance", "embedding", "method")
"""Options of `raypipe search` that say which trial."""


@click.command()
@options
def embed(path: Path, output: Path | None, as_json: bool, overrides: tuple[str, ...]) -> None:
    """Train the encoder and embed all events (simulates what is missing).

    \b
    Example:
      raypipe embed --config configs/contrastive/laptop.yaml resources.train_workers=2
    """
    from raypipe.cluster.run import Run
    from raypipe.search.result import NO_SIGNAL, Trial

    with Run(load(path, output, overrides)) as run:
        (record,) = run.make([Trial(NO_SIGNAL, 0.0, 0)])["latents"].values()
        where = run.folder / "encoder" / "latents.parquet"
        click.echo(f"{record['rows']} events embedded: {where}", err=True)
        if as_json:
            emit({**record, "path": str(where)})


@click.command(cls=Searching)
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
    type=Backgrounds(),
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
    """Run the search once on one pseudo-data set, or on recorded data (prepares what is missing).

    \b
    Example:
      raypipe search --config configs/contrastive/laptop.yaml --signal xsh_500_100 --strength 3
      raypipe search --config configs/multilepton/laptop.yaml --signal a_250 --strength 60
      raypipe search --config configs/lhco/laptop.yaml data.path=events.h5
    """
    config = load(path, output, overrides)
    from raypipe.cluster.run import Run
    from raypipe.search.base import search_of
    from raypipe.search.result import Trial

    asked = search_of(config)
    refuse_given([name for name in ASKED if name not in asked.options], asked.no_effect)
    if asked.here:
        with Run(config) as run:
            said = run.scan()
    else:
        trials = asked.asked(Trial(signal, strength, instance, embedding, method), _given())
        with Run(config) as run:
            lines, said = run.ask(trials)
        for line in lines:
            click.echo(line, err=True)
    if as_json:
        emit(said)


def _given() -> frozenset[str]:
    """Those of `ASKED` that stand on the command line."""
    context = click.get_current_context()
    return frozenset(n for n in ASKED if context.get_parameter_source(n) == ParameterSource.COMMANDLINE)


@click.command(cls=Searching)
@options
@click.option("--status", is_flag=True, help="Only say how far the scan of this run folder is.")
@click.option("--plan", is_flag=True, help="Only estimate hours, memory, storage, cost and wall time (a minute).")
@click.option("--price", type=Number(min=0), help="With --plan: price of a core hour.")
@click.option("--gpu-price", type=Number(min=0), help="With --plan: price of a GPU hour.")
@click.option(
    "--gpu-speedup",
    type=POSITIVE,
    default=50.0,
    show_default=True,
    help="With --plan: one GPU over one core of this machine, for networks.",
)
@click.option(
    "--configurations",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="With --plan: embedding configurations, each with its own encoder and trials.",
)
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    help="With --plan: read the measurements of another machine from this file, or keep them there.",
)
def scan(
    path: Path,
    output: Path | None,
    as_json: bool,
    overrides: tuple[str, ...],
    status: bool,
    plan: bool,
    price: float | None,
    gpu_price: float | None,
    gpu_speedup: float,
    configurations: int,
    calibration: Path | None,
) -> None:
    """Run the whole grid of searches and write the report (prepares what is missing).

    \b
    Example:
      raypipe scan --config configs/contrastive/laptop.yaml scan.instances=4
      raypipe scan --config configs/contrastive/laptop.yaml --status
      raypipe scan --config configs/contrastive/laptop.yaml --plan --price 0.04
    """
    if plan:
        from raypipe.cluster.live import tell_plan

        config = load(path, output, overrides)
        estimate = tell_plan(
            config,
            calibration,
            configurations=configurations,
            gpu_speedup=gpu_speedup,
            price=config.resources.price_cpu_hour if price is None else price,
            gpu_price=config.resources.price_gpu_hour if gpu_price is None else gpu_price,
        )
        if as_json:
            emit(estimate)
        return
    if status:
        _status(load(path, output, overrides), as_json)
        return
    from raypipe.cluster.run import Run

    with Run(load(path, output, overrides)) as run:
        summary = run.scan()
        if as_json:
            emit(summary)
    if summary["failed_trials"]:
        raise UserError(f"{len(summary['failed_trials'])} trials failed; the same command tries them again")


def _status(config: Any, as_json: bool) -> None:
    from raypipe.cluster.live import tell
    from raypipe.store.ledger import open_ledger
    from raypipe.store.status import status

    found = status(open_ledger(config), config=config)
    tell(found)
    if as_json:
        emit(found.as_dict())
