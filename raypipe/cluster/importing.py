"""`raypipe read`: a user's files become Parquet tables of raypipe, one a file, with a sidecar of counts."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raypipe import __version__
from raypipe.cluster.read import Plan, ReadPiece, batches, plan_read
from raypipe.cluster.tasks import counted, spread
from raypipe.config.read import ReadConfig
from raypipe.errors import UserError
from raypipe.events.readers.registry import file_format
from raypipe.files import check_writable, file_digest, write_json
from raypipe.fit.classifier import Mapper
from raypipe.progress import progress_bar


class Writer:
    """One Parquet file, appended batch by batch, there only when it is whole."""

    def __init__(self, path: Path) -> None:
        self.path, self.temporary = path, path.with_name(f".tmp-{path.name}")
        self.handle: pq.ParquetWriter | None = None
        self.rows, self.weight = 0, 0.0

    def add(self, table: pa.Table) -> None:
        """Append."""
        if self.handle is None:
            self.handle = pq.ParquetWriter(self.temporary, table.schema, compression="zstd")
        self.handle.write_table(table.unify_dictionaries())
        self.rows += table.num_rows
        self.weight += float(np.sum(table["weight"].to_numpy()))

    def close(self, keep: bool) -> None:
        """Rename to the final name, or drop."""
        if self.handle is not None:
            self.handle.close()
            if keep:
                self.temporary.replace(self.path)
        if not keep:
            with contextlib.suppress(FileNotFoundError):
                self.temporary.unlink()


def import_files(config: ReadConfig, paths: Sequence[str], *, skip: bool = False) -> dict[str, Any]:
    """Write ``<output>/<name>.parquet`` for every file and ``<output>/read.json``, which is returned.

    The sidecar holds, by file: format, events read, events written (whole events pass the diphoton selection), sum of
    weights, digest; and the files that were skipped, each with its reason. Memory is that of a few pieces.

    Args:
        skip: leave out a file that cannot be read, and count it; else the first one is an error.

    Raises:
        UserError: a bad file (the only one, or without ``skip``), two files of the same name, an id that occurs twice.
    """
    if not paths:
        raise UserError("no files to read")
    stems = [Path(p).stem for p in paths]
    if twice := next((stem for stem in stems if stems.count(stem) > 1), None):
        raise UserError(f"two files are called {twice!r}: read them into different output folders")
    folder = check_writable(config.output)
    plan = plan_read(paths, config.source, config.columns, skip=skip)
    done: dict[str, Any] = {"written": {}, "failed": {}}
    if plan.pieces:
        with spread(config.resources) as mapper, progress_bar("read", len(plan.pieces)) as bar:
            done = _write(config, plan, folder, skip, counted(mapper, bar))
    failed = plan.failed | done["failed"]
    files = [
        {
            "path": plan.paths[number], "format": file_format(plan.paths[number], config.source),
            "events": plan.rows[number], "written": writer.rows, "weight": writer.weight,
            "table": str(writer.path), "digest": file_digest(plan.paths[number]),
        }
        for number, writer in sorted(done["written"].items())
    ]  # fmt: skip
    summary = {
        "files": files, "skipped": [{"path": plan.paths[n], "reason": failed[n]} for n in sorted(failed)],
        "n_files": len(paths), "n_skipped": len(failed), "events": sum(f["events"] for f in files),
        "written": sum(f["written"] for f in files), "weight": sum(f["weight"] for f in files),
        "raypipe": __version__, "config": config.model_dump(mode="json", exclude={"output", "resources"}),
    }  # fmt: skip
    write_json(folder / "read.json", summary)
    return summary


def _write(config: ReadConfig, plan: Plan, folder: Path, skip: bool, mapper: Mapper) -> dict[str, Any]:
    """Files by number that were written, and reasons of those that were not."""
    writers: dict[int, Writer] = {}
    failed: dict[int, str] = {}
    seen: list[np.ndarray] = []
    try:
        for number, table, reason in batches(plan, config.source, config.columns, mapper):
            if reason is not None and not skip:
                raise UserError(reason)
            if reason is not None:
                failed.setdefault(number, reason)
                continue
            writers.setdefault(number, Writer(folder / f"{Path(plan.paths[number]).stem}.parquet"))
            if number not in failed:
                writers[number].add(table)
                seen.append(table["event_id"].to_numpy())
        for number in plan.rows.keys() - writers.keys() - failed.keys():  # no event of it passed the selection
            writers[number] = Writer(folder / f"{Path(plan.paths[number]).stem}.parquet")
            writers[number].add(ReadPiece(config.source, config.columns).schema(plan).empty_table())
        _refuse_duplicates(seen, config)
    except BaseException:
        for writer in writers.values():
            writer.close(keep=False)
        raise
    for number, writer in writers.items():
        writer.close(keep=number not in failed)
    return {"written": {n: w for n, w in writers.items() if n not in failed}, "failed": failed}


def _refuse_duplicates(seen: list[np.ndarray], config: ReadConfig) -> None:
    """An event id may occur once in all files together."""
    ids = np.sort(np.concatenate(seen)) if seen else np.empty(0)
    twice = np.flatnonzero(ids[1:] == ids[:-1])
    if len(twice):
        column = config.columns.event_id if config.columns else "event_id"
        raise UserError(f"column {column!r}: event id {ids[twice[0]]} occurs more than once in these files")
