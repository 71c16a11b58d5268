"""The stages of a search as commands, and what looks at them (`simulate` is in `samples`)."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from raypipe.cli.base import FILE, POSITIVE, Asked, Methods, Number, Searching, family, forbid, options, shown, tell
from raypipe.errors import UserError

EMBEDDINGS = click.Choice(["id", "ip", "ep", "background", "raw"])
STRENGTH = "Injected S/sqrt(B) in the signal region; events in a multilepton search."
trial = {
    "signal": shown("--signal", default="none", help="Sample to inject, or none."),
    "strength": shown("--strength", type=Number(min=0), default=0.0, help=STRENGTH),
    "instance": shown("--instance", type=click.IntRange(0), default=0, help="Which pseudo-data set."),
    "embedding": shown(
        "--embedding",
        type=EMBEDDINGS,
        default="id",
        help="What the classifier sees (see `raypipe config`, scan.embeddings).",
    ),
    "method": shown("--method", type=Methods(), default="cathode", help="How the background is known (scan.methods)."),
}
"""Options of `raypipe search` that say which trial."""


@click.command()
@options()
def embed(asked: Asked) -> None:
    """Train the encoder and embed all events (simulates what is missing).

    \b
    Example:
      raypipe embed --config configs/contrastive/laptop.yaml resources.train_workers=2
    """
    from raypipe.search.result import NO_SIGNAL, Trial

    with asked.run() as run:
        (record,) = run.make([Trial(NO_SIGNAL, 0.0, 0)])["latents"].values()
        where = run.folder / "encoder" / "latents.parquet"
        tell(f"{record['rows']} events embedded: {where}")
        asked.emit({**record, "path": str(where)})


@click.command(cls=Searching)
@options()
@family(trial.values())
def search(asked: Asked, **given: Any) -> None:
    """Run the search once on one pseudo-data set, or on recorded data (prepares what is missing).

    \b
    Example:
      raypipe search --config configs/contrastive/laptop.yaml --signal xsh_500_100 --strength 3
      raypipe search --config configs/multilepton/laptop.yaml --signal a_250 --strength 60
      raypipe search --config configs/lhco/laptop.yaml data.path=events.h5
      raypipe search --config configs/lhco/laptop.yaml data.path=events.h5 'windows={width: 0.2}'
    """
    config = asked.config()
    from raypipe.search.base import search_of
    from raypipe.search.result import Trial
    from raypipe.store.looks import opened

    kind = search_of(opened(config)[0])
    forbid([name for name in trial if name not in kind.options], kind.no_effect)
    if kind.here or not kind.options:  # nothing to choose
        _whole(asked)
        return
    source = click.get_current_context().get_parameter_source
    trials = kind.asked(Trial(**given), frozenset(n for n in trial if source(n) == ParameterSource.COMMANDLINE))
    with asked.run(config) as run:
        lines, said = run.ask(trials)
    for line in lines:
        tell(line)
    asked.emit(said)


@click.command(cls=Searching)
@options()
def scan(asked: Asked) -> None:
    """Run the whole grid of searches and write the report (prepares what is missing).

    \b
    Example:
      raypipe scan --config configs/contrastive/laptop.yaml scan.instances=4
    """
    _whole(asked)


def _whole(asked: Asked) -> None:
    """All trials and the report; failed ones are a `UserError` at the end."""
    with asked.run() as run:
        summary = run.scan()
        asked.emit(summary)
    if summary["failed_trials"]:
        raise UserError(f"{len(summary['failed_trials'])} trials failed; the same command tries them again")


@click.command(cls=Searching)
@options()
def status(asked: Asked) -> None:
    """Say how far the scan of a run folder is, from its ledger alone.

    \b
    Example:
      raypipe status --config configs/contrastive/laptop.yaml
    """
    from raypipe.cluster import live
    from raypipe.store import status as stores
    from raypipe.store.ledger import open_ledger

    config = asked.config()
    found = stores.status(open_ledger(config), config=config)
    running = f"{found.running} running with {found.drivers} drivers" if found.drivers else "nobody is running it"
    live.tell(found, f"scan: {found.line()}; {running}")
    asked.emit(asdict(found))


@click.command()
@options(
    click.option(
        "--events", type=FILE, metavar="DIR", help="Validate this event data set instead: the folder with dataset.json."
    ),
    config="YAML of the search (not with --events).",
    required=False,
    output="Folder of the page; wins over the configuration.",
    json="Print the numbers as JSON on standard output.",
)
def report(asked: Asked, events: Path | None) -> None:
    """Make figures, page and summary again from a finished or unfinished scan; or validate an event data set.

    \b
    Examples:
      raypipe report --config configs/contrastive/laptop.yaml --json
      raypipe report --events runs/demo/events
    """
    if events is not None and (asked.path is not None or asked.overrides):
        raise UserError("report: --events takes no --config and no overrides; it describes the data set as it is")
    if events is None:
        if asked.path is None:
            raise UserError("report: --config is missing (or give an event data set with --events DIR)")
        with asked.run() as run:
            asked.emit(run.report())
        return
    from raypipe.report.validation import make_validation
    from raypipe.report.validation_page import headlines

    numbers = make_validation(events, asked.output)
    for line in (*headlines(numbers), f"page: {numbers['page']}"):
        tell(line)
    asked.emit(numbers)


@click.command()
@options()
@click.option(
    "--supervised/--no-supervised", default=True, help="Also train a transformer with labels (as long as the encoder)."
)
def latent(asked: Asked, supervised: bool) -> None:
    """Draw the latent space: t-SNE maps and confusion matrices (trains what is missing).

    \b
    Example:
      raypipe latent --config configs/contrastive/laptop.yaml --no-supervised
    """
    with asked.run() as run:
        from raypipe.cluster.latent import latent_pictures  # which takes seconds, when the run has said that it begins

        record = latent_pictures(run, supervised)
    for name, matrix in record["confusion"].items():
        tell(f"{name}: mean diagonal {matrix['mean_diagonal']:.3f}")
    tell(f"Figures: {', '.join(record['figures'].values())}")
    asked.emit(record)


GPU_SPEEDUP = "One GPU over one core of this machine, for networks."
EACH = "Embedding configurations, each with its own encoders and trials."
CALIBRATION = "Read the measurements of another machine from this file, or keep them there."


@click.command(cls=Searching)
@options()
@click.option("--price", type=Number(min=0), help="Price of a core hour.")
@click.option("--gpu-price", type=Number(min=0), help="Price of a GPU hour.")
@shown("--gpu-speedup", type=POSITIVE, default=50.0, help=GPU_SPEEDUP)
@shown("--configurations", type=click.IntRange(min=1), default=1, help=EACH)
@click.option("--calibration", type=FILE, help=CALIBRATION)
def plan(asked: Asked, price: float | None, gpu_price: float | None, calibration: Path | None, **given: Any) -> None:
    """Estimate hours, memory, storage, cost and wall time of a scan before anything is paid (a minute or two).

    Small pieces of every stage are made and timed on this machine.

    \b
    Example:
      raypipe plan --config configs/contrastive/paper.yaml --price 0.04 --gpu-price 2.5
    """
    from raypipe.files import check_file_writable, read_json, write_json

    config, known = asked.config(), calibration is not None and calibration.is_file()
    if not known:
        if calibration is not None:
            check_file_writable(calibration)
        tell(f"plan: of {asked.path}")  # what comes next takes seconds to load
    from raypipe.progress import say
    from raypipe.search import plan as planner
    from raypipe.search.base import search_of
    from raypipe.search.costs import Calibration, calibrate

    work, resources = search_of(config).costs(), config.resources
    if known:
        measured = Calibration.of(read_json(calibration), config.search)
    else:
        measured = calibrate(config.search, work, lambda text: say(f"plan: measuring {text}"))
        if calibration is not None:
            write_json(calibration, asdict(measured))
    given["price"] = resources.price_cpu_hour if price is None else price
    given["gpu_price"] = resources.price_gpu_hour if gpu_price is None else gpu_price
    estimate = planner.plan(work, measured, resources.object_store_gib, **given)
    for line in planner.lines(estimate):
        say(f"plan: {line}")
    asked.emit(asdict(estimate))


NULLS = "Pseudo-nulls of every embedding; more of them go on where fewer ended."
SMALLEST = "Smallest p-value that must be told: refused with too few nulls."
RETRAIN = "So many nulls once more, with flows that learn the null itself: what that changes."
SIMULATED = "So many simulated data sets without a signal (which must be disjoint) judged by the map."


@click.command()
@options()
@shown("--nulls", type=click.IntRange(min=1), default=1000, help=NULLS)
@shown("--smallest-p", type=Number(min=0, min_open=True, max=1), default=0.01, help=SMALLEST)
@shown("--retrain", type=click.IntRange(min=0), default=0, help=RETRAIN)
@shown("--simulated", type=click.IntRange(min=0), default=0, help=SIMULATED)
def calibrate(asked: Asked, nulls: int, smallest_p: float, retrain: int, simulated: int) -> None:
    """Search pseudo-data without a signal, thousands of times: how often do they reach what the search reports?

    Of contrastive and haxad searches. Nulls are drawn from the sideband fit and the flows of the search itself
    (prepares what is missing). The result is calibration.json in the run folder; `raypipe scan` and `raypipe report`
    show calibrated significances with it.

    \b
    Example:
      raypipe calibrate --config configs/contrastive/laptop.yaml --nulls 10000 --smallest-p 1e-4
      raypipe calibrate --config configs/contrastive/nulls.yaml --nulls 1000 --simulated 200
    """
    from raypipe.report.calibrated import FILE, null_lines
    from raypipe.stats.calibration import check_nulls

    check_nulls(nulls, smallest_p)
    with asked.run() as run:
        record = run.calibrate(nulls, retrain, simulated)
    for line in null_lines(record):
        tell(line)
    tell(f"Calibration: {run.folder / FILE}")
    asked.emit({name: record[name] for name in ("tails", "retrained", "simulated")} | {"path": str(run.folder / FILE)})


@click.command()
@click.argument("run", type=FILE)
@click.option("--reason", required=True, help="Why now; it stands in looks.json and on every page.")
def unblind(run: Path, reason: str) -> None:
    """Allow to look at the signal region of the last blind search in the run folder RUN, as it was configured.

    \b
    Example:
      raypipe unblind runs/mine --reason "closure is fine, cuts are frozen"
    """
    from raypipe.store import looks

    tell(f"unblinded {looks.unblind(run, reason)}; run the same search again to see the result")
