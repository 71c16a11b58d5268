"""The ledger: one Parquet part a finished trial, keyed by what determines its result. It is the truth of a scan."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import io
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raypipe.cluster.storage import Store
from raypipe.errors import UserError
from raypipe.files import code_digest, inside_output_root
from raypipe.redact import redact
from raypipe.search.result import Result

OK, FAILED = "ok", "failed"
CODE = ("events", "models", "fit", "stats", "search")
"""Rooms whose source is part of the key of a trial."""
NUMERICS = ("numpy", "torch", "xgboost", "scipy", "iminuit")
"""Packages whose version can move a number."""
COMPACT_AT = 200
"""Parts outside the index that are read one by one before they are gathered."""


class Ledger:
    """A folder, on any storage, of ``rows/<key>.parquet`` (a finished trial), ``failed/`` and ``arrays/``.

    Nothing is ever changed in place: a part is written once, whole, after everything that belongs to it. Same key,
    same content, so two drivers on one ledger can only write the same thing twice. ``index/`` gathers many parts into
    one file for speed; it is a cache, may be deleted at any time, and speaks only for parts that are there.
    ``stages/`` holds what several trials share, by the hash of its inputs.

    Args:
        where: path or URL, or an open `Store`.
        shared: where ``stages/`` is instead, so that several ledgers share them.
    """

    def __init__(self, where: str | Path | Store, shared: Store | None = None) -> None:
        self.store = where if isinstance(where, Store) else Store(where)
        self.shared = shared or self.store
        self._pieces: dict[str, dict[str, tuple[float | None, str]]] = {}

    def __str__(self) -> str:
        return str(self.store)

    def record(self, key: str, trial: Any, result: Result) -> None:
        """Store a finished trial."""
        arrays = {name: pa.array([np.asarray(v, dtype=np.float64)]) for name, v in result.arrays.items()}
        self.store.write(f"arrays/{key}.parquet", _parquet(pa.table(arrays)))
        if result.flow_state is not None:
            self.store.write(f"flows/{key}.pt", _torch_bytes(result.flow_state))
        self._write("rows", key, [{"key": key, "status": OK, "error": "", **row} for row in result.rows])
        self.store.delete(f"failed/{key}.parquet")

    def record_failure(self, key: str, trial: Any, error: str, kind: str = "raised") -> None:
        """Store why a trial failed; a later run of the scan tries it again.

        Args:
            kind: ``raised``, ``died`` or ``timeout``.
        """
        before = self._part("failed", key)
        row = {
            "key": key,
            "status": FAILED,
            "error": redact(error, self.store.root, self.shared.root),
            "kind": kind,
            "time": time.time(),
            "attempts": (before[0]["attempts"] if before else 0) + 1,
        }
        self._write("failed", key, [row | plain_fields(trial)])

    def _write(self, folder: str, key: str, rows: list[dict[str, Any]]) -> None:
        plain = [{k: v.item() if isinstance(v, np.generic) else v for k, v in row.items()} for row in rows]
        self.store.write(f"{folder}/{key}.parquet", _parquet(pa.Table.from_pylist(plain)))

    def _part(self, folder: str, key: str) -> list[dict[str, Any]] | None:
        """One part; a missing or damaged one is None."""
        table = _table(self.store.read(f"{folder}/{key}.parquet"))
        return None if table is None else table.to_pylist()

    def read(self, key: str) -> list[dict[str, Any]] | None:
        """The rows of a finished trial, else the one of its last failure, else None."""
        return self._part("rows", key) or self._part("failed", key)

    def finished(self, key: str) -> bool:
        """Whether this trial has succeeded (and can be read)."""
        return self._part("rows", key) is not None

    def done(self, keys: Iterable[str]) -> set[str]:
        """Those of ``keys`` that have succeeded; reads only what the index does not hold."""
        there, indexed = self.store.names("rows"), self._index()
        return {k for k in keys if f"{k}.parquet" in there and (k in indexed or self._part("rows", k) is not None)}

    def _finished(self, keys: Iterable[str]) -> dict[str, list[dict[str, Any]]]:
        there = self.store.names("rows")
        indexed = self._index()
        found = {}
        for key in keys:
            if f"{key}.parquet" in there:
                rows = json.loads(indexed[key][1]) if key in indexed else self._part("rows", key)
                if rows:
                    found[key] = rows
        return found

    def rows(self, keys: Iterable[str]) -> list[dict[str, Any]]:
        """All rows of the given trials, in that order; a trial that only failed gives its last failure."""
        keys = list(keys)
        good = self._finished(keys)
        failed = self.store.names("failed")
        out = []
        for key in keys:
            out += good.get(key) or (self._part("failed", key) if f"{key}.parquet" in failed else None) or []
        return out

    def failures(self, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
        """The last failure of those trials that have one and have not succeeded since."""
        failed, good = self.store.names("failed"), self.store.names("rows")
        found = {}
        for key in keys:
            if f"{key}.parquet" in failed and f"{key}.parquet" not in good and (rows := self._part("failed", key)):
                found[key] = rows[0]
        return found

    def compact(self, at_least: int = COMPACT_AT) -> int:
        """Gather all parts into one index file if ``at_least`` are outside it; returns how many it then holds.

        Any number of processes may do this at once: the file's name is the hash of what is in it.
        """
        names = {name.removesuffix(".parquet") for name in self.store.names("rows")}
        old = self.store.names("index")
        indexed = self._index()
        loose = names - set(indexed)
        if len(loose) < at_least:
            return len(indexed)
        parts = {key: rows for key in sorted(loose) if (rows := self._part("rows", key))}
        gathered = {key: (rows[0].get("seconds"), json.dumps(rows)) for key, rows in parts.items()}
        merged = {key: entry for key, entry in sorted((indexed | gathered).items()) if key in names}
        table = pa.table(
            {
                "key": pa.array(merged, pa.string()),
                "seconds": pa.array([entry[0] for entry in merged.values()], pa.float64()),
                # Rows as text: every search has its own columns, and they must come back as they were.
                "rows": pa.array([entry[1] for entry in merged.values()], pa.string()),
            }
        )
        name = f"{hashlib.sha256(' '.join(merged).encode()).hexdigest()[:20]}.parquet"
        self.store.write(f"index/{name}", _parquet(table))
        for stale in old - {name}:
            self.store.delete(f"index/{stale}")
        return len(merged)

    def _index(self) -> dict[str, tuple[float | None, str]]:
        """Seconds and rows (as JSON) by key, of every trial in the index."""
        names = self.store.names("index")
        self._pieces = {name: piece for name, piece in self._pieces.items() if name in names}
        for name in names - set(self._pieces):  # named by its content, a file once read needs no second look
            table = _table(self.store.read(f"index/{name}"))
            columns = [table[c].to_pylist() for c in ("key", "seconds", "rows")] if table is not None else [[], [], []]
            self._pieces[name] = {key: (seconds, rows) for key, seconds, rows in zip(*columns, strict=True)}
        return {key: entry for piece in self._pieces.values() for key, entry in piece.items()}

    def seconds(self) -> dict[str, float | None]:
        """Every finished trial with its wall seconds, as far as the index or at most `COMPACT_AT` parts tell."""
        names = {name.removesuffix(".parquet") for name in self.store.names("rows")}
        known = {key: entry[0] for key, entry in self._index().items() if key in names}
        for key in sorted(names - set(known))[:COMPACT_AT]:
            rows = self._part("rows", key)
            known[key] = rows[0].get("seconds") if rows else None
        return dict.fromkeys(names) | known

    def arrays(self, key: str) -> dict[str, np.ndarray]:
        """The figure arrays of a finished trial."""
        table = _table(self.store.read(f"arrays/{key}.parquet"))
        if table is None:
            raise UserError(
                f"{self.store}/arrays/{key}.parquet: not a readable Parquet file: delete it and rows/{key}.parquet "
                "beside it, and run `raypipe scan` again"
            )
        return {name: np.asarray(table[name][0].as_py(), dtype=np.float64) for name in table.column_names}

    def stage(self, kind: str, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The state of a stage that trials share: what ``stages/<kind>/<key>.pt`` holds, else made and kept there.

        ``make`` returns a dictionary of tensors and plain values, as `torch.load(weights_only=True)` reads them.
        """
        import torch

        name = f"stages/{kind}/{key}.pt"
        data = self.shared.read(name)
        if data is not None:
            try:
                return torch.load(io.BytesIO(data), weights_only=True)
            except (RuntimeError, EOFError, ValueError):  # damaged: make it again
                self.shared.delete(name)
        state = make()
        self.shared.write(name, _torch_bytes(state))
        return state

    def flow_file(self, key: str, row: dict[str, Any], folder: Path) -> Path | None:
        """The background model of a finished trial as a file in ``folder``, or None if it has none."""
        stage = row.get("flow_stage")
        data = self.shared.read(f"stages/flow/{stage}.pt") if stage else self.store.read(f"flows/{key}.pt")
        if data is None:
            return None
        path = folder / "flow.pt"
        path.write_bytes(data)
        return path


def made_by(config: Any = None) -> dict[str, str]:
    """What, besides the configuration, the keys of trials are made of: the code and the packages of this process.

    Args:
        config: leaves out what its keys do not hold.
    """
    made = {"search": code_digest(*CODE)}
    if config is None or getattr(config, "simulate", None) is not None:
        made["simulate"] = code_digest("simulate")
    if config is None or config.search != "multilepton":
        made |= {name: importlib.metadata.version(name) for name in NUMERICS}
    return made


def open_ledger(config: Any) -> Ledger:
    """The ledger of a run: ``resources.storage`` if that is set, else a folder of its output; the stages of its trials
    are in ``resources.artefacts`` if that is set.

    Raises:
        UserError: a local folder outside RAYPIPE_OUTPUT_ROOT.
    """
    store = Store(config.resources.storage or Path(config.output) / "ledger")
    shared = Store(config.resources.artefacts) if config.resources.artefacts else None
    for where in (store, shared):
        if where is not None and where.local is not None:
            inside_output_root(where.local)
    return Ledger(store, shared)


def plain_fields(trial: Any) -> dict[str, Any]:
    """The fields of a trial that fit into a row: text and numbers."""
    values = dataclasses.asdict(trial) if dataclasses.is_dataclass(trial) else dict(trial)
    return {k: v for k, v in values.items() if isinstance(v, str | int | float | bool)}


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", compression_level=3)
    return sink.getvalue().to_pybytes()


def _table(data: bytes | None, columns: list[str] | None = None) -> pa.Table | None:
    """The table in ``data``; None if there is none or it is damaged."""
    if data is None:
        return None
    try:
        # Not `read_table`: its dataset machinery leaves threads behind, and a part is far too small for any.
        with pq.ParquetFile(pa.BufferReader(data)) as file:
            return file.read(columns=columns, use_threads=False)
    except (pa.ArrowException, OSError, ValueError):
        return None


def _torch_bytes(state: dict[str, Any]) -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()
