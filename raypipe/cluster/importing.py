"""`raypipe read`: a user's files become Parquet tables of raypipe, one a file, with a sidecar of counts."""

import contextlib
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raypipe import __version__
from raypipe.cluster.tasks import counted, spread
from raypipe.config.read import ReadConfig
from raypipe.errors import UserError, redact
from raypipe.events.readers.registry import file_format, is_url
from raypipe.events.schema import with_signs
from raypipe.events.twins import Seen
from raypipe.files import check_writable, file_digest, write_json
from raypipe.fit.classifier import Mapper
from raypipe.progress import progress_bar
from raypipe.search.reading import Plan, again, batches, plan_read


class Writer:
    """One Parquet file, appended batch by batch in the folder ``aside``, and at its path only when it is whole."""

    def __init__(self, path: Path, aside: str, open_files: contextlib.ExitStack, signs: bool) -> None:
        self.path, self.temporary, self.open_files, self.signs = path, Path(aside, path.name), open_files, signs
        self._empty()

    def _empty(self) -> None:
        self.handle: pq.ParquetWriter | None = None
        self.rows, self.negative, self.weight, self.modulus = 0, 0, 0.0, 0.0

    def add(self, table: pa.Table) -> None:
        """Append; where weights have signs the file is marked."""
        table = with_signs(table) if self.signs else table
        if self.handle is None:
            writer = pq.ParquetWriter(self.temporary, table.schema, compression="zstd")
            self.handle = self.open_files.enter_context(writer)
        self.handle.write_table(table.unify_dictionaries())
        weight = table["weight"].to_numpy()
        self.rows += table.num_rows
        self.negative += int((weight < 0).sum())
        self.weight, self.modulus = self.weight + float(weight.sum()), self.modulus + float(np.abs(weight).sum())

    def keep_rows(self, kept: np.ndarray) -> None:
        """Of all rows that were added, keep those that are True in ``kept``."""
        if self.handle is None or kept.all():
            return
        self.handle.close()
        whole, first = self.temporary.with_suffix(".whole"), 0
        self.temporary.replace(whole)
        self._empty()
        with pq.ParquetFile(whole) as file:
            for batch in file.iter_batches():
                table = pa.Table.from_batches([batch], file.schema_arrow)
                self.add(table.filter(pa.array(kept[first : first + len(batch)])))
                first += len(batch)
        whole.unlink()


def names_of(paths: Sequence[str]) -> list[str]:
    """What the tables of files are called; the query of a URL is no part of it."""
    return [Path(path.partition("?")[0] if is_url(path) else path).stem for path in paths]


def import_files(config: ReadConfig, paths: Sequence[str], *, skip: bool = False) -> dict[str, Any]:
    """Write ``<output>/<name>.parquet`` for every file and ``<output>/read.json``, which is returned.

    The sidecar holds, by file: format, events read and written, sum of weights, digest (null behind a URL); and the
    files that were skipped, each with its reason. With ``skip`` a file that cannot be read is left out and counted. It
    is a `UserError` otherwise, as are two files of the same name, an id that occurs twice, and more than 0.1 % of
    repeated events without a `duplicates` policy.
    """
    if not paths:
        raise UserError("no files to read")
    stems = names_of(paths)
    if twice := next((stem for stem in stems if stems.count(stem) > 1), None):
        raise UserError(f"two files are called {twice!r}: read them into different output folders")
    folder = check_writable(config.output)
    plan = plan_read(paths, config.source, config.columns, skip=skip, retries=config.resources.max_failures)
    done: dict[str, Any] = {"written": {}, "failed": {}, "repeated": 0}
    if plan.pieces:
        with spread(config.resources) as mapper, progress_bar("read", len(plan.pieces)) as bar:
            done = _write(config, plan, folder, skip, counted(mapper, bar))
    failed = plan.failed | done["failed"]
    files = []
    for number, writer in sorted(done["written"].items()):
        path = plan.paths[number]
        kind = again(partial(file_format, path, config.source), path, config.resources.max_failures)
        read = {"path": redact(path), "format": kind, "events": plan.rows[number]}
        read |= {"written": writer.rows, "weight": writer.weight, "negative_weights": writer.negative}
        read |= {"sum_of_moduli": writer.modulus, "table": str(writer.path)}
        read["digest"] = None if is_url(path) else file_digest(path)
        files.append(read)
    skipped = [{"path": redact(plan.paths[n]), "reason": failed[n]} for n in sorted(failed)]
    summary = {"files": files, "skipped": skipped, "n_files": len(paths), "n_skipped": len(failed)}
    summary |= {total: sum(f[total] for f in files) for total in ("events", "written", "weight")}
    summary |= {"repeated": done["repeated"], "raypipe": __version__}
    summary |= {"config": config.model_dump(mode="json", exclude={"output", "resources"})}
    write_json(folder / "read.json", summary)
    return summary


def _write(config: ReadConfig, plan: Plan, folder: Path, skip: bool, mapper: Mapper) -> dict[str, Any]:
    """Files by number that were written, and reasons of those that were not."""
    writers: dict[int, Writer] = {}
    failed: dict[int, str] = {}
    seen, signs, retries = Seen(), config.source.weights == "sign", config.resources.max_failures
    names = names_of(plan.paths)

    with tempfile.TemporaryDirectory(dir=folder, prefix=".tmp-") as aside, contextlib.ExitStack() as open_files:

        def writer(number: int) -> Writer:
            path = folder / f"{names[number]}.parquet"
            return writers.setdefault(number, Writer(path, aside, open_files, signs))

        for number, table, reason in batches(plan, config.source, config.columns, mapper, retries):
            if reason is not None and not skip:
                raise UserError(reason)
            if reason is not None:
                failed.setdefault(number, reason)
            elif number not in failed:
                writer(number).add(table)
                seen.add(number, table)
        for number in plan.rows.keys() - writers.keys() - failed.keys():  # no event of it passed the selection
            writer(number).add(plan.schema.empty_table())
        written = {n: w for n, w in writers.items() if n not in failed}
        repeated = _settle(seen, config, plan, written)
        open_files.close()
        for one in written.values():
            one.temporary.replace(one.path)
    return {"written": written, "failed": failed, "repeated": repeated}


def _settle(seen: Seen, config: ReadConfig, plan: Plan, writers: dict[int, Writer]) -> int:
    """How many events repeat, after a check that an id occurs once and that the configuration lets them."""
    if config.columns and config.columns.event_id is not None:
        seen.refuse_equal_ids(list(writers), str(config.columns.event_id))
        return 0
    kept, repeated = seen.distinct(list(writers), config.source.duplicates, plan.files, "source.duplicates")
    for number, writer in writers.items():
        writer.keep_rows(kept[number])
    return repeated
