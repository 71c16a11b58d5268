"""`raypipe plan`: what a scan will cost."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from raypipe.cli.base import POSITIVE, Number, Searching, emit, load, options


@click.command(cls=Searching)
@options
@click.option("--price", type=Number(min=0), help="Price of a core hour.")
@click.option("--gpu-price", type=Number(min=0), help="Price of a GPU hour.")
@click.option(
    "--gpu-speedup",
    type=POSITIVE,
    default=50.0,
    show_default=True,
    help="One GPU over one core of this machine, for networks.",
)
@click.option(
    "--configurations",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Embedding configurations, each with its own encoders and trials.",
)
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    help="Read the measurements of another machine from this file, or keep them there.",
)
def plan(
    path: Path,
    output: Path | None,
    as_json: bool,
    overrides: tuple[str, ...],
    price: float | None,
    gpu_price: float | None,
    gpu_speedup: float,
    configurations: int,
    calibration: Path | None,
) -> None:
    """Estimate hours, memory, storage, cost and wall time of a scan before anything is paid (a minute or two).

    Small pieces of every stage are made and timed on this machine.

    \b
    Example:
      raypipe plan --config configs/contrastive/paper.yaml --price 0.04 --gpu-price 2.5
    """
    from raypipe.cluster import plan as planner
    from raypipe.cluster.calibrate import Calibration, calibrate
    from raypipe.files import check_file_writable, read_json, write_json
    from raypipe.progress import console
    from raypipe.search.base import search_of

    config = load(path, output, overrides)
    work, resources = search_of(config).costs(), config.resources
    if calibration is not None and calibration.is_file():
        measured = Calibration.of(read_json(calibration), config.search)
    else:
        if calibration is not None:
            check_file_writable(calibration)
        measured = calibrate(
            config.search, work, lambda text: console.print(f"plan: measuring {text}", highlight=False)
        )
        if calibration is not None:
            write_json(calibration, asdict(measured))
    estimate = planner.plan(
        work,
        measured,
        resources.object_store_gib,
        configurations=configurations,
        price=resources.price_cpu_hour if price is None else price,
        gpu_price=resources.price_gpu_hour if gpu_price is None else gpu_price,
        gpu_speedup=gpu_speedup,
    )
    for line in planner.lines(estimate):
        console.print(f"plan: {line}", highlight=False, soft_wrap=True)
    if as_json:
        emit(asdict(estimate))
