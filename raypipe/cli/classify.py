"""`raypipe classify`: weak supervision between any two tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from raypipe.cli.base import FILE, emit, family, shown, tell

if TYPE_CHECKING:
    from raypipe.search.classify import Request

TABLES = {"data": "Class one (repeat for several files).", "background": "Class zero.", "score": "Events to score."}
TREES = {
    "folds": (2, "Folds."),
    "ensemble": (1, "Fits averaged in every fold."),
    "rounds": (1, "Most boosting rounds of a fit."),
    "leaves": (2, "Leaves of a tree."),
}
FEATURES = "Names or numbers; else all columns that the tables share."
WEIGHTS = "sign: negative weights (NLO) count as such, trees take averages."
OTHER_KEY = "The same of the --{} files alone."
tables = family(
    [
        *(click.option(f"--{n}", multiple=True, required=True, metavar="FILE", help=h) for n, h in TABLES.items()),
        click.option("--features", metavar="COL,COL,...", help=FEATURES),
        click.option("--label", metavar="COL", help="Truth (1: signal): never trained on, used to evaluate."),
        click.option("--mass", metavar="COL", help="Kept out of the features and copied into the output."),
        click.option("--weight", metavar="COL", help="Event weights; one in a file without the column."),
        shown("--weights", type=click.Choice(["file", "sign"]), default="file", help=WEIGHTS),
        click.option("--only-background", is_flag=True, help="Of the background files keep the rows labelled 0."),
        shown("--format", default="auto", help="numpy, hdf5, lhco, parquet, csv, root."),
        click.option("--key", help="HDF5 dataset or ROOT tree, where a file has several."),
        *(click.option(f"--{name}-key", help=OTHER_KEY.format(name)) for name in TABLES),
    ]
)
ENGINES = click.Choice(["xgboost_ray", "ray_train"])
trees = family(
    [
        *(click.option(f"--{name}", type=click.IntRange(least), help=text) for name, (least, text) in TREES.items()),
        shown("--seed", type=click.IntRange(0), default=1),
        click.option("--cpus", type=click.IntRange(1), help="Cores; all of the machine when not given."),
        click.option("--workers", type=click.IntRange(2), help="Ray actors that share the rows of each fit."),
        click.option("--engine", type=ENGINES, help="What trains with --workers; xgboost_ray when not given."),
    ]
)


@click.command()
@tables
@trees
@shown("--output", type=FILE, default=Path("scores.parquet"))
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON on standard output.")
def classify(output: Path, as_json: bool, cpus: int | None, **given: Any) -> None:
    """Train the classifier ensemble of the search between two tables, and score a third.

    Events that are also in the training tables are scored out of fold, others by the mean of all fits. An event that
    occurs twice is held out at once; folds are random and balanced. One table cannot be both classes: --data-key and
    --background-key name two of one file. Writes --output (Parquet: row, file, score, background_percentile, ...) and
    a summary beside it (.json).

    With --workers the fits run one after another, each on that many Ray actors. Each reads its own rows from a file
    beside --output while a fit lasts: on a cluster, name a folder that all nodes see. A start of the actors takes about
    ten seconds, so that it pays for millions of rows only.

    \b
    Example:
      raypipe classify --data data.npy --background qcd.npy --score test.npy --features 1,2,3,4
      raypipe classify --data all.root --data-key sr --background all.root --background-key sb --score all.root \\
        --score-key sr
      raypipe classify --data data.parquet --background qcd.parquet --score data.parquet --workers 4
    """
    from raypipe.cluster.classify import run
    from raypipe.config import Resources

    summary = run(_request(given), output, Resources(cpus=cpus))
    found = summary["evaluation"]
    auc = f"AUC {summary['auc_data_background']:.4f} ± {summary['auc_error']:.4f}"
    tell(f"data against background, out of fold: {auc}")
    if found and "max_sic" in found:
        sic = f"max SIC {found['max_sic']:.2f} ± {found['max_sic_error']:.2f}"
        at = f"at background efficiency {found['background_efficiency']:.2e}"
        tell(f"signal against background: AUC {found['auc']:.4f}, {sic} {at}")
    tell(f"{summary['files']['score']['events']} events scored: {output}")
    emit(summary, as_json)


def _request(given: dict[str, Any]) -> Request:
    """What the options ask for; an unknown format and an option that says nothing without another are a `UserError`."""
    from pydantic import TypeAdapter, ValidationError

    from raypipe.config.read import Column, Source
    from raypipe.config.sections import WEAK_SIGNAL
    from raypipe.errors import UserError
    from raypipe.search.classify import Request

    def column(text: str | None) -> str | int | None:
        return None if text is None else TypeAdapter(Column).validate_python(text.strip())

    if given["weights"] != "file" and given["weight"] is None:
        raise UserError(f"--weights {given['weights']}: says nothing without --weight COL")
    if given["engine"] is not None and given["workers"] is None:
        raise UserError(f"--engine {given['engine']}: says nothing without --workers N")
    try:
        source = Source(**{name: given[name] for name in ("format", "key", "weights")})
    except ValidationError as error:
        raise UserError(f"--format {given['format']!r}: {error.errors()[0]['msg']}") from error
    changed = {name: given[name] for name in (*TREES, "engine") if given[name] is not None}
    if given["workers"] is not None:
        changed.setdefault("engine", "xgboost_ray")
    keys = {name: key for name in TABLES if (key := given[f"{name}_key"]) is not None}
    return Request(
        **{name: given[name] for name in (*TABLES, "only_background", "seed", "workers")},
        **{name: column(given[name]) for name in ("label", "mass", "weight")},
        features=[column(text) for text in given["features"].split(",")] if given["features"] else (),
        source=source,
        classifier=WEAK_SIGNAL.model_copy(update=changed),
        keys=keys,
    )
