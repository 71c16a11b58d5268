"""`raypipe classify`: the classifier ensemble of the search between any two tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from raypipe.cluster.tasks import counted, spread
from raypipe.config import Classifier, Resources
from raypipe.config.classify import WEAK_SIGNAL
from raypipe.config.read import Column, Source
from raypipe.errors import UserError
from raypipe.events.readers.base import resolve
from raypipe.events.readers.matrix import Columnar, as_table, find_label, labels_of, read_columns, weights_of
from raypipe.events.signed import describe, told
from raypipe.events.table import write_table
from raypipe.events.twins import first_twin
from raypipe.files import check_file_writable, file_digest, write_json
from raypipe.fit.classify import Scores, classify, contest_of
from raypipe.progress import console, progress_bar
from raypipe.stats.roc import max_sic, weighted_auc


@dataclass(frozen=True)
class Request:
    """What to classify."""

    data: Sequence[str]
    """Files of class one."""
    background: Sequence[str]
    """Files of class zero."""
    score: Sequence[str]
    """Files whose events get a score."""
    features: Sequence[Column] = ()
    """Columns to look at; where none are named, all that the three tables share but label, mass and weight."""
    label: Column | None = None
    """Truth, never trained on; found by itself where it is obvious."""
    mass: Column | None = None
    """A column to leave out of the features and to copy into the output."""
    weight: Column | None = None
    """Event weights, used by the fits, the shares, the AUC and the evaluation; one in a table without the column."""
    only_background: bool = False
    """Of the background files, keep the rows labelled 0."""
    source: Source = field(default_factory=Source)
    """Format of all files, what negative weights mean, and the dataset or tree where ``keys`` does not say."""
    classifier: Classifier = WEAK_SIGNAL
    seed: int = 1
    keys: dict[str, str] = field(default_factory=dict)
    """Dataset or tree of ``data``, ``background`` and ``score``."""


NAMES = ("data", "background", "score")
"""The three tables."""
MIN_EVENTS = 100
"""Fewer events of a class than this cannot be classified out of fold."""


def run(request: Request, output: Path, resources: Resources) -> dict[str, Any]:
    """Train, score, and write ``output`` (Parquet) with a JSON summary beside it, which is returned.

    Raises:
        UserError: unreadable or too small tables, columns that do not fit together.
    """
    if check_file_writable(output).suffix == ".json":
        raise UserError(f"{output}: the scores are Parquet, and {output} is their summary: name a .parquet file")
    check_file_writable(output.with_suffix(".json"))
    tables = {name: read_columns(getattr(request, name), _source(request, name)) for name in NAMES}
    label = _label(request, tables)
    if not request.only_background:
        _refuse_one_table_for_both(tables)
    else:
        truth = labels_of(tables["background"], label)
        if truth is None:
            raise UserError(f"{tables['background'].name}: no label column to keep the background by (option --label)")
        tables["background"] = tables["background"].take(~truth)
    for column, used in ((request.mass, ["score"]), (request.weight, ["data", "background"])):
        if column is not None and not any(tables[name].has(column) for name in used):
            tables[used[0]].column(column)  # a missing one should be told before the work, not after
    features = list(request.features) or shared_features(tables, label, (request.mass, request.weight))
    for name in ("data", "background"):
        if len(tables[name]) < MIN_EVENTS:
            raise UserError(f"{tables[name].name}: {len(tables[name])} {name} events, at least {MIN_EVENTS} are needed")
    matrices = [tables[name].matrix(features) for name in NAMES]
    weights = {name: weights_of(tables[name], request.weight, request.source.weights) for name in NAMES[:2]}
    console.print(f"features: {', '.join(map(str, features))}; truth: {label or 'none'}", highlight=False)
    notes = _notes(matrices, weights)
    for note in notes:
        console.print(note, highlight=False, soft_wrap=True)
    contest = contest_of(
        *matrices,
        request.classifier,
        seed=request.seed,
        data_weights=weights["data"],
        background_weights=weights["background"],
    )
    with spread(resources) as mapper, progress_bar("classify", len(contest.parts())) as bar:
        scores = classify(contest, weights["background"], weights["data"], mapper=counted(mapper, bar))
    write_table(_output(tables["score"], scores, label, request.mass), output)
    summary = _summary(request, tables, scores, features, label, output) | {"notes": notes}
    write_json(output.with_suffix(".json"), summary)
    return summary


def _source(request: Request, name: str) -> Source:
    """How to read one of the three tables."""
    return request.source.model_copy(update={"key": request.keys.get(name, request.source.key)})


def _refuse_one_table_for_both(tables: dict[str, Columnar]) -> None:
    """Events that are data and background at once teach nothing: the same table, or a copy, in both classes."""
    of_data = dict(zip(tables["data"].digests(), tables["data"].paths, strict=True))
    for path, found in zip(tables["background"].paths, tables["background"].digests(), strict=True):
        if found in of_data:
            raise UserError(
                f"{path}: its events are data ({of_data[found]}) and background at once: name two files, two trees or "
                "datasets of one (--data-key, --background-key), or its labelled background (--only-background)"
            )


def _notes(matrices: Sequence[np.ndarray], weights: dict[str, np.ndarray]) -> list[str]:
    """What was done about repeated events and negative weights."""
    notes = []
    tables = [matrix.astype(np.float32) for matrix in matrices[:2]]
    for name, rows in zip(("data", "background"), tables, strict=True):
        if repeated := int((first_twin(rows) != np.arange(len(rows))).sum()):
            notes.append(f"{name}: {repeated} events repeat an earlier one: each is held out with it")
        if (signs := describe(weights[name])) is not None:
            notes.append(told(name, signs, "trees"))
    first = first_twin(np.concatenate(tables))[len(tables[0]) :]
    if both := int((first < len(tables[0])).sum()):
        notes.append(f"{both} background events are in the data too: each is held out of both at once")
    return notes


def _label(request: Request, tables: dict[str, Columnar]) -> str | None:
    """The name of the truth column: as asked for, else found in any of the tables."""
    if request.label is not None:
        for table in tables.values():
            names = list(table.columns)
            if isinstance(request.label, str) and request.label in names:
                return request.label
            if isinstance(request.label, int) and -len(names) <= request.label < len(names):
                return names[request.label]
        raise UserError(f"column {request.label!r} (--label) is in none of the tables")
    taken = _names(tables, (request.mass, request.weight, *request.features))
    found = (find_label(table) for table in tables.values())
    return next((name for name in found if name is not None and name not in taken), None)


def _names(tables: dict[str, Columnar], columns: Sequence[Column | None]) -> set[str]:
    """The names of columns, given by name or place, in whichever tables have them."""
    return {resolve(c, list(t.columns), t.name) for c in columns for t in tables.values() if t.has(c)}


def shared_features(tables: dict[str, Columnar], label: str | None, but: Sequence[Column | None]) -> list[str]:
    """The columns that all tables have, in the order of the data, without ``label`` and those in ``but``.

    Raises:
        UserError: no such column, or tables without names whose places cannot mean the same.
    """
    widths = [len(t.columns) - (label in t.columns) for t in tables.values()]
    if len(set(widths)) > 1 and all(name.isdigit() for t in tables.values() for name in t.columns):
        raise UserError(
            f"the tables have {', '.join(map(str, widths))} columns without names: say which with --features, or save "
            "them alike"
        )
    names = [name for name in tables["data"].columns if all(name in t.columns for t in tables.values())]
    excluded = _names(tables, but) | {label}
    kept = [name for name in names if name not in excluded]
    if not kept:
        lists = "; ".join(f"{t.name}: {', '.join(t.columns)}" for t in tables.values())
        raise UserError(f"the tables share no feature column (name them with --features): {lists}")
    return kept


def _output(table: Columnar, scores: Scores, label: str | None, mass: Column | None) -> pa.Table:
    result = as_table(table)
    columns = {"score": scores.score, "background_percentile": scores.percentile, "out_of_fold": scores.out_of_fold}
    if mass is not None:
        columns["mass"] = table.column(mass)
    if (truth := labels_of(table, label)) is not None:
        columns["label"] = truth
    for name, values in columns.items():
        result = result.append_column(name, pa.array(values))
    return result


def _summary(
    request: Request,
    tables: dict[str, Columnar],
    scores: Scores,
    features: list[Column],
    label: str | None,
    output: Path,
) -> dict[str, Any]:
    truth = labels_of(tables["score"], label)
    evaluation = None
    weights = np.empty(0) if truth is None else weights_of(tables["score"], request.weight, request.source.weights)
    if truth is not None and min(weights[truth].sum(), weights[~truth].sum()) > 0:
        split = (weights[truth], weights[~truth])
        best = max_sic(scores.score[truth], scores.score[~truth], weights=split)
        auc, error = weighted_auc(scores.score, truth, weights)
        evaluation = {"auc": auc, "auc_error": error, "signal": int(truth.sum()), "background": int((~truth).sum())}
        evaluation |= (
            {}
            if best is None
            else {
                "max_sic": best.sic,
                "max_sic_error": best.error,
                "signal_efficiency": best.signal_efficiency,
                "background_efficiency": best.background_efficiency,
            }
        )
    return {
        "files": {
            name: {
                "paths": list(t.paths),
                "key": _source(request, name).key,
                "events": len(t),
                "digests": [file_digest(p) for p in t.paths],
            }
            for name, t in tables.items()
        },
        "features": [str(f) for f in features],
        "label": label,
        "scored_out_of_fold": int(scores.out_of_fold.sum()),
        "auc_data_background": scores.auc,
        "auc_error": scores.auc_error,
        "classifier": request.classifier.model_dump(),
        "seed": request.seed,
        "evaluation": evaluation,
        "output": str(output),
    }
