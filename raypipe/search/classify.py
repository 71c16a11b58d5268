"""Weak supervision between any two tables (`raypipe.fit.classify`): what is asked for, and what is told of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from raypipe.config import Classifier
from raypipe.config.read import Column, Source
from raypipe.config.sections import WEAK_SIGNAL
from raypipe.errors import UserError
from raypipe.events.readers.base import resolve
from raypipe.events.readers.matrix import Columnar, as_table, find_label, labels_of, read_columns, weights_of
from raypipe.events.signed import describe, told
from raypipe.events.twins import first_twin
from raypipe.files import file_digest
from raypipe.fit.classify import Scores
from raypipe.stats.roc import max_sic, weighted_auc

NAMES = ("data", "background", "score")  # The three tables
MIN_EVENTS = 100  # Fewer events of a class than this cannot be classified out of fold


@dataclass(frozen=True)
class Request:
    """What to classify."""

    data: Sequence[str]  # Files of class one
    background: Sequence[str]  # Files of class zero
    score: Sequence[str]  # Files whose events get a score
    features: Sequence[Column] = ()  # Columns to look at; none: all shared ones but label, mass and weight
    label: Column | None = None  # Truth, never trained on; found by itself where it is obvious
    mass: Column | None = None  # A column to leave out of the features and to copy into the output
    weight: Column | None = None  # Event weights, of the fits and of all numbers; one in a table without the column
    only_background: bool = False  # Of the background files, keep the rows labelled 0
    source: Source = field(default_factory=Source)  # Of all files; its dataset or tree is that where ``keys`` has none
    classifier: Classifier = WEAK_SIGNAL
    seed: int = 1
    keys: dict[str, str] = field(default_factory=dict)  # Dataset or tree of ``data``, ``background`` and ``score``
    workers: int | None = None  # Ray actors that train each booster together; None: one process a fit

    def source_of(self, name: str) -> Source:
        """How to read one of the three tables."""
        return self.source.model_copy(update={"key": self.keys.get(name, self.source.key)})


class WeakSearch:
    """The tables of a request, read unless they are given, and checked; any that cannot be used are a `UserError`."""

    def __init__(self, request: Request, given: dict[str, Columnar] | None = None) -> None:
        self.request = request
        tables = given or {n: read_columns(getattr(request, n), request.source_of(n)) for n in NAMES}
        self.tables = tables
        self.label = label = _label(request, tables)
        if not request.only_background:
            _refuse_one_table_for_both(tables)
        elif (truth := labels_of(tables["background"], label)) is not None:
            tables["background"] = tables["background"].take(~truth)
        else:
            raise UserError(f"{tables['background'].name}: no label column to keep the background by (option --label)")
        for column, used in ((request.mass, ["score"]), (request.weight, ["data", "background"])):
            if column is not None and not any(tables[name].has(column) for name in used):
                tables[used[0]].column(column)  # a missing one should be told before the work, not after
        self.features = list(request.features) or _shared_features(tables, label, (request.mass, request.weight))
        for name in NAMES[:2]:
            if (found := len(tables[name])) < MIN_EVENTS:
                raise UserError(f"{tables[name].name}: {found} {name} events, at least {MIN_EVENTS} are needed")
        self.matrices = [tables[name].matrix(self.features) for name in NAMES]
        self.weights = {f"{name}_weights": self._weights(name) for name in NAMES[:2]}
        self.notes = self._notes()  # What was done about repeated events and negative weights

    def _weights(self, name: str) -> np.ndarray:
        return weights_of(self.tables[name], self.request.weight, self.request.source.weights)

    def _notes(self) -> list[str]:
        notes = []
        classes = [matrix.astype(np.float32) for matrix in self.matrices[:2]]
        for name, rows in zip(NAMES, classes, strict=False):
            if repeated := int((first_twin(rows) != np.arange(len(rows))).sum()):
                notes.append(f"{name}: {repeated} events repeat an earlier one: each is held out with it")
            if (signs := describe(self.weights[f"{name}_weights"])) is not None:
                notes.append(told(name, signs, "trees"))
        first = first_twin(np.concatenate(classes))[len(classes[0]) :]
        if both := int((first < len(classes[0])).sum()):
            notes.append(f"{both} background events are in the data too: each is held out of both at once")
        return notes

    def scored(self, scores: Scores) -> pa.Table:
        """The scored table: row, file, score, share of the background, mass and label where there are."""
        table = self.tables["score"]
        columns = {"score": scores.score, "background_percentile": scores.percentile, "out_of_fold": scores.out_of_fold}
        if self.request.mass is not None:
            columns["mass"] = table.column(self.request.mass)
        if (truth := labels_of(table, self.label)) is not None:
            columns["label"] = truth
        result = as_table(table)
        for name, values in columns.items():
            result = result.append_column(name, pa.array(values))
        return result

    def evaluation(self, score: np.ndarray) -> dict[str, Any] | None:
        """AUC and largest SIC of signal against background in the scored table; None without events of both."""
        if (truth := labels_of(self.tables["score"], self.label)) is None:
            return None
        weights = self._weights("score")
        split = weights[truth], weights[~truth]
        if min(part.sum() for part in split) <= 0:
            return None
        auc, error = weighted_auc(score, truth, weights)
        found = {"auc": auc, "auc_error": error, "signal": int(truth.sum()), "background": int((~truth).sum())}
        if (best := max_sic(score[truth], score[~truth], weights=split)) is None:
            return found
        found |= {"max_sic": best.sic, "max_sic_error": best.error, "signal_efficiency": best.signal_efficiency}
        return found | {"background_efficiency": best.background_efficiency}

    def _file(self, name: str) -> dict[str, Any]:
        """Where a table comes from."""
        paths, key = self.tables[name].paths, self.request.source_of(name).key
        digests = [file_digest(path) for path in paths]
        return {"paths": list(paths), "key": key, "events": len(self.tables[name]), "digests": digests}

    def summary(self, scores: Scores) -> dict[str, Any]:
        """All numbers, JSON-ready."""
        request, files = self.request, {name: self._file(name) for name in self.tables}
        found = {"files": files, "features": [str(f) for f in self.features], "label": self.label}
        found["scored_out_of_fold"] = int(scores.out_of_fold.sum())
        found |= {"auc_data_background": scores.auc, "auc_error": scores.auc_error}
        found |= {"classifier": request.classifier.model_dump(), "workers": request.workers, "seed": request.seed}
        return found | {"evaluation": self.evaluation(scores.score), "notes": self.notes}


def _refuse_one_table_for_both(tables: dict[str, Columnar]) -> None:
    """The same table, or a copy, in both classes teaches nothing."""
    of_data = dict(zip(tables["data"].digests(), tables["data"].paths, strict=True))
    for path, found in zip(tables["background"].paths, tables["background"].digests(), strict=True):
        if found in of_data:
            raise UserError(
                f"{path}: its events are data ({of_data[found]}) and background at once: name two files, two trees or "
                "datasets of one (--data-key, --background-key), or its labelled background (--only-background)"
            )


def _label(request: Request, tables: dict[str, Columnar]) -> str | None:
    """The name of the truth column: as asked for, else found in any of the tables."""
    if request.label is not None:
        table = next((t for t in tables.values() if t.has(request.label)), None)
        if table is None:
            raise UserError(f"column {request.label!r} (--label) is in none of the tables")
        return resolve(request.label, list(table.columns), table.name)
    taken = _names(tables, (request.mass, request.weight, *request.features))
    found = (find_label(table) for table in tables.values())
    return next((name for name in found if name is not None and name not in taken), None)


def _names(tables: dict[str, Columnar], columns: Sequence[Column | None]) -> set[str]:
    """The names of columns, given by name or place, in whichever tables have them."""
    return {resolve(c, list(t.columns), t.name) for c in columns for t in tables.values() if t.has(c)}


def _shared_features(tables: dict[str, Columnar], label: str | None, but: Sequence[Column | None]) -> list[str]:
    """The columns that all tables have, in the order of the data, without ``label`` and those in ``but``."""
    widths = [len(t.columns) - (label in t.columns) for t in tables.values()]
    if len(set(widths)) > 1 and all(name.isdigit() for t in tables.values() for name in t.columns):
        raise UserError(
            f"the tables have {', '.join(map(str, widths))} columns without names: say which with --features, or save "
            "them alike"
        )
    excluded = _names(tables, but) | {label}
    kept = [n for n in tables["data"].columns if n not in excluded and all(n in t.columns for t in tables.values())]
    if not kept:
        lists = "; ".join(f"{t.name}: {', '.join(t.columns)}" for t in tables.values())
        raise UserError(f"the tables share no feature column (name them with --features): {lists}")
    return kept
