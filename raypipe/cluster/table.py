"""`raypipe search` on a feature table: read, search on all cores, ledger, scores and summary."""

from __future__ import annotations

import datetime
import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from raypipe import __version__
from raypipe.cluster.read import check_columns, collect
from raypipe.cluster.tasks import counted, spread
from raypipe.cluster.tracking import Recorder, record
from raypipe.config.table import TableConfig
from raypipe.errors import UserError
from raypipe.events.readers.base import check_file
from raypipe.events.readers.features import FeatureTable
from raypipe.events.table import read_table, write_table
from raypipe.files import check_file_writable, check_writable, file_digest, write_json
from raypipe.progress import progress_bar
from raypipe.search.result import DATA, Trial
from raypipe.store.ledger import Ledger, open_ledger, search_code

if TYPE_CHECKING:
    from raypipe.fit.classifier import Mapper
    from raypipe.search.table import EventScores

METRICS = ("z_before", "z_after", "sic", "max_sic", "n_before", "n_after", "expected_after", "expected_after_error")
"""Numbers of a row that MLflow shows."""
KEY = "raypipe.key"
"""Metadata of the score table: the ledger key of its search."""


def run_table_search(config: TableConfig) -> dict[str, Any]:
    """Search the tables of ``config``; a finished search of the same files, code and configuration is only read.

    Writes into the output folder: ``ledger/`` (rows, arrays, flow; in `resources.storage` if that is set),
    ``scores.parquet`` (event_id, mass, score, background_percentile, label of every event in the signal region) and
    ``summary.json``, which is returned.

    Raises:
        UserError: unreadable files, missing columns, regions without events.
    """
    folder = check_writable(config.output)
    for name in ("scores.parquet", "summary.json"):
        check_file_writable(folder / name)
    book = open_ledger(config)
    if config.resources.storage:
        book.store.check_writable()
    else:
        check_writable(folder / "ledger")
    digests = {path: file_digest(check_file(path)) for path in [*config.data.paths, *config.background.paths]}
    _refuse_data_as_background(config, digests)
    trial = Trial(DATA, 0.0, 0)
    values = config.model_dump(mode="json", exclude={"output", "resources", "tracking"})
    values["data"].pop("path"), values["background"].pop("path")
    code = search_code("table")
    key = trial.key({"files": list(digests.values()), "code": code, "config": values})
    scores_path = folder / "scores.parquet"
    if not (book.finished(key) and _scored(scores_path) == key):
        fits = config.classifier.folds * config.classifier.ensemble
        with spread(config.resources) as mapper, progress_bar("search", fits) as bar:
            data, background = _read(config, mapper)
            from raypipe.search.table import search_table  # and PyTorch with it: columns are told before that

            result, found = search_table(
                data, config, background=background, source=", ".join(config.data.paths), mapper=counted(mapper, bar)
            )
        write_table(_score_table(found).replace_schema_metadata({KEY: key}), scores_path)
        book.record(key, trial, result)
    summary = {
        "search": "table",
        "rows": [_json(row) for row in book.rows([key])],
        "key": key,
        "files": digests,
        "config_hash": config.physics_hash(),
        "code": code,
        "scores": str(scores_path),
        "raypipe": __version__,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    write_json(folder / "summary.json", summary)
    _to_mlflow(config, summary, book)
    return summary


def _refuse_data_as_background(config: TableConfig, digests: dict[str, str]) -> None:
    """Data compared with themselves hold nothing."""
    if config.background.only_label_zero or config.background.key != config.data.key:
        return
    of_data = {digests[path]: path for path in config.data.paths}
    for path in config.background.paths:
        if digests[path] in of_data:
            raise UserError(
                f"background.path: {path} holds the data ({of_data[digests[path]]}): name another file, another table "
                "of it (background.key), or keep its labelled background (background.only_label_zero=true)"
            )


def _to_mlflow(config: TableConfig, summary: dict[str, Any], book: Ledger) -> None:
    """Significances, the summary and the background model of a search."""

    def fill(run: Recorder) -> None:
        for row in summary["rows"]:
            where = f"wp{row['working_point']:g}"
            run.metrics((f"{name}.{where}", row[name], 0) for name in METRICS if row.get(name) is not None)
        run.files([Path(config.output) / "summary.json"])
        with tempfile.TemporaryDirectory(prefix="raypipe-") as scratch:
            if flow := book.flow_file(summary["key"], summary["rows"][0], Path(scratch)):
                run.files([flow])

    made_of = {"code": summary["code"], "rows": [summary["key"]]}
    record(config, f"table-{summary['config_hash']}", made_of, fill)


def _read(config: TableConfig, mapper: Mapper) -> tuple[FeatureTable, FeatureTable | None]:
    """The recorded events, and the independent background sample if there is one."""
    given, columns = config.background, config.data.columns
    label = columns.label if given.only_label_zero else None
    if given.only_label_zero and given.paths and label is None:
        raise UserError("background.only_label_zero needs data.columns.label")
    of_background = columns.model_copy(update={"label": label, "weight": given.weight, "event_id": None})
    check_columns(config.data.paths, config.data, columns)
    check_columns(given.paths, given, of_background)
    data = collect(config.data.paths, config.data, columns, mapper)
    if not given.paths:
        return data, None
    background = collect(given.paths, given, of_background, mapper)
    return data, background if background.label is None else background.take(~background.label)


def _scored(path: Path) -> str | None:
    """Which search the scores at ``path`` belong to."""
    if not path.exists():
        return None
    key = (read_table(path).schema.metadata or {}).get(KEY.encode())
    return key.decode() if key else None


def _score_table(found: EventScores) -> pa.Table:
    columns = {"event_id": found.event_id, "mass": found.mass, "score": found.score}
    columns["background_percentile"] = found.percentile
    return pa.table(columns if found.label is None else columns | {"label": found.label})


def _json(row: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}


def summary_lines(summary: dict[str, Any], folder: Path) -> list[str]:
    """The terminal's lines."""
    from raypipe.search.counting import cut_lines

    first = summary["rows"][0]
    lines = [f"made smooth for the flow: {first['features']}"] if first["features"] else []
    if first["negative_weights"]:
        lines.append(
            f"{first['negative_weights']:.2%} of the background's weights are negative: its template is their "
            "sum, trees take averages over nearest events"
        )
    if first["repeated"]:
        lines.append(
            f"{first['repeated']} events repeat an earlier one: "
            + ("dropped" if first["duplicates"] == "drop" else "kept, in the fold of the first")
        )
    if first["shared"]:
        lines.append(f"{first['shared']} background events of the signal region are in the data too: in the same fold")
    for row in summary["rows"]:
        truth = "" if row["sic"] is None else f", SIC {row['sic']:.2f}"
        lines += [f"{line}{truth if k == 0 else ''}" for k, line in enumerate(cut_lines(row))]
    if first["max_sic"] is not None:
        lines.append(
            f"largest SIC {first['max_sic']:.2f} ± {first['max_sic_error']:.2f} at background efficiency "
            f"{first['max_sic_background_efficiency']:.2e}"
        )
    return [*lines, f"scores: {folder / 'scores.parquet'}; summary: {folder / 'summary.json'}"]
