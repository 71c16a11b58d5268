"""`raypipe classify`: weak supervision between any two tables."""

from __future__ import annotations

from pathlib import Path

import click

from raypipe.cli.base import emit


@click.command()
@click.option("--data", multiple=True, required=True, metavar="FILE", help="Class one (repeat for several files).")
@click.option("--background", multiple=True, required=True, metavar="FILE", help="Class zero.")
@click.option("--score", multiple=True, required=True, metavar="FILE", help="Events to score.")
@click.option("--features", metavar="COL,COL,...", help="Names or numbers; else all columns that the tables share.")
@click.option("--label", metavar="COL", help="Truth (1: signal): never trained on, used to evaluate.")
@click.option("--mass", metavar="COL", help="Kept out of the features and copied into the output.")
@click.option("--weight", metavar="COL", help="Event weights; one in a file without the column.")
@click.option(
    "--weights",
    type=click.Choice(["file", "sign"]),
    default="file",
    show_default=True,
    help="sign: negative weights (NLO) count as such, trees take averages.",
)
@click.option("--only-background", is_flag=True, help="Of the background files keep the rows labelled 0.")
@click.option("--format", "kind", default="auto", show_default=True, help="numpy, hdf5, lhco, parquet, csv, root.")
@click.option("--key", help="HDF5 dataset or ROOT tree, where a file has several.")
@click.option("--data-key", help="The same of the --data files alone.")
@click.option("--background-key", help="The same of the --background files.")
@click.option("--score-key", help="The same of the --score files.")
@click.option("--folds", type=click.IntRange(2), help="Folds.")
@click.option("--ensemble", type=click.IntRange(1), help="Fits averaged in every fold.")
@click.option("--rounds", type=click.IntRange(1), help="Boosting rounds of a fit.")
@click.option("--leaves", type=click.IntRange(2), help="Leaves of a tree.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True)
@click.option("--cpus", type=click.IntRange(1), help="Cores; all of the machine when not given.")
@click.option("--output", type=click.Path(path_type=Path), default=Path("scores.parquet"), show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON on standard output.")
def classify(
    data: tuple[str, ...],
    background: tuple[str, ...],
    score: tuple[str, ...],
    features: str | None,
    label: str | None,
    mass: str | None,
    weight: str | None,
    weights: str,
    only_background: bool,
    kind: str,
    key: str | None,
    data_key: str | None,
    background_key: str | None,
    score_key: str | None,
    folds: int | None,
    ensemble: int | None,
    rounds: int | None,
    leaves: int | None,
    seed: int,
    cpus: int | None,
    output: Path,
    as_json: bool,
) -> None:
    """Train the classifier ensemble of the search between two tables, and score a third.

    Events that are also in the training tables are scored out of fold, others by the mean of all fits. An event that
    occurs twice is held out at once; folds are random and balanced. One table cannot be both classes: --data-key and
    --background-key name two of one file. Writes --output (Parquet: row, file, score, background_percentile, ...) and
    a summary beside it (.json).

    \b
    Example:
      raypipe classify --data data.npy --background qcd.npy --score test.npy --features 1,2,3,4
      raypipe classify --data all.root --data-key sr --background all.root --background-key sb --score all.root \\
        --score-key sr
    """
    from pydantic import TypeAdapter, ValidationError

    from raypipe.cluster.classify import Request, run
    from raypipe.config import Resources
    from raypipe.config.classify import WEAK_SIGNAL
    from raypipe.config.read import Column, Source
    from raypipe.errors import UserError

    def column(text: str | None) -> str | int | None:
        return None if text is None else TypeAdapter(Column).validate_python(text.strip())

    changed = {"folds": folds, "ensemble": ensemble, "rounds": rounds, "leaves": leaves}
    if weights != "file" and weight is None:
        raise UserError(f"--weights {weights}: says nothing without --weight COL")
    keys = {"data": data_key, "background": background_key, "score": score_key}
    try:
        source = Source(format=kind, key=key, weights=weights)  # type: ignore[arg-type]
    except ValidationError as error:
        raise UserError(f"--format {kind!r}: {error.errors()[0]['msg']}") from error
    request = Request(
        data,
        background,
        score,
        [column(f) for f in features.split(",")] if features else (),
        column(label),
        column(mass),
        column(weight),
        only_background,
        source,
        WEAK_SIGNAL.model_copy(update={k: v for k, v in changed.items() if v is not None}),
        seed,
        {name: given for name, given in keys.items() if given is not None},
    )
    summary = run(request, output, Resources(cpus=cpus))
    found = summary["evaluation"]
    click.echo(
        f"data against background, out of fold: AUC {summary['auc_data_background']:.4f} ± {summary['auc_error']:.4f}",
        err=True,
    )
    if found and "max_sic" in found:
        click.echo(
            f"signal against background: AUC {found['auc']:.4f}, max SIC {found['max_sic']:.2f} ± "
            f"{found['max_sic_error']:.2f} at background efficiency {found['background_efficiency']:.2e}",
            err=True,
        )
    click.echo(f"{summary['files']['score']['events']} events scored: {output}", err=True)
    if as_json:
        emit(summary)
