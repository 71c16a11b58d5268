"""`raypipe search` on a feature table: read, search on all cores, ledger, scores and summary."""

from __future__ import annotations

import datetime
import math
from pathlib import Path
from typing import Any

import pyarrow as pa

from raypipe import __version__
from raypipe.cluster.ledger import CODE, Ledger
from raypipe.cluster.read import collect
from raypipe.cluster.runtime import ray_session
from raypipe.cluster.tasks import ray_map
from raypipe.config.table import TableConfig
from raypipe.errors import UserError
from raypipe.events.readers.base import check_file
from raypipe.events.readers.features import FeatureTable
from raypipe.events.table import read_table, write_table
from raypipe.files import check_file_writable, check_writable, code_digest, file_digest, write_json
from raypipe.progress import progress_bar
from raypipe.search.result import Trial
from raypipe.search.table import DATA, EventScores, search_table

KEY = "raypipe.key"
"""Metadata of the score table: the ledger key of its search."""


def run_table_search(config: TableConfig) -> dict[str, Any]:
    """Search the tables of ``config``; a finished search of the same files, code and configuration is only read.

    Writes into the output folder: ``ledger/`` (rows, arrays, flow), ``scores.parquet`` (event_id, mass, score,
    background_percentile, label of every event in the signal region) and ``summary.json``, which is returned.

    Raises:
        UserError: unreadable files, missing columns, regions without events.
    """
    folder = check_writable(config.output)
    for name in ("scores.parquet", "summary.json"):
        check_file_writable(folder / name)
    check_writable(folder / "ledger")
    digests = {path: file_digest(check_file(path)) for path in [*config.data.paths, *config.background.paths]}
    trial = Trial(DATA, 0.0, 0)
    values = config.model_dump(mode="json", exclude={"output", "resources"})
    values["data"].pop("path"), values["background"].pop("path")
    code = code_digest(*CODE)
    key = trial.key({"files": list(digests.values()), "code": code, "config": values})
    book, scores_path = Ledger(folder / "ledger"), folder / "scores.parquet"
    if not (book.finished(key) and _scored(scores_path) == key):
        with (
            ray_session(config.resources),
            progress_bar("search", config.classifier.folds * config.classifier.ensemble) as bar,
        ):
            data = collect(config.data.paths, config.data, config.data.columns)
            result, found = search_table(
                data, config, background=_background(config), source=", ".join(config.data.paths),
                mapper=lambda f, items: ray_map(f, items, on_item=lambda: bar(1)),
            )  # fmt: skip
        write_table(_score_table(found).replace_schema_metadata({KEY: key}), scores_path)
        book.record(key, trial, result)
    summary = {
        "search": "table", "rows": [_json(row) for row in book.rows([key])], "key": key,
        "files": digests, "config_hash": config.physics_hash(), "code": code,
        "scores": str(scores_path), "raypipe": __version__,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }  # fmt: skip
    write_json(folder / "summary.json", summary)
    return summary


def _background(config: TableConfig) -> FeatureTable | None:
    """The independent background sample, if there is one. Ray must be running."""
    given = config.background
    if not given.paths:
        return None
    label = config.data.columns.label if given.only_label_zero else None
    if given.only_label_zero and label is None:
        raise UserError("background.only_label_zero needs data.columns.label")
    columns = config.data.columns.model_copy(update={"label": label, "weight": given.weight, "event_id": None})
    table = collect(given.paths, given, columns)
    return table if table.label is None else table.take(~table.label)


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
    lines = []
    for row in summary["rows"]:
        truth = "" if row["sic"] is None else f", SIC {row['sic']:.2f}"
        lines.append(
            f"cut {row['working_point']:.2%}: {row['n_after']} observed, {row['expected_after']:.1f} ± "
            f"{row['expected_after_error']:.1f} expected, z {row['z_before']:.2f} -> {row['z_after']:.2f}{truth}"
        )
    first = summary["rows"][0]
    if first["max_sic"] is not None:
        lines.append(f"largest SIC {first['max_sic']:.2f} ± {first['max_sic_error']:.2f} at background efficiency "
                     f"{first['max_sic_background_efficiency']:.2e}")  # fmt: skip
    return [*lines, f"scores: {folder / 'scores.parquet'}; summary: {folder / 'summary.json'}"]
