"""The ledger: the rows of every finished trial, keyed by what determines them. It is the truth of a scan."""

import dataclasses
import hashlib
import importlib.metadata
import io
import json
import time
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from raypipe.errors import UserError, redact
from raypipe.events.table import read_schema, write_table
from raypipe.files import check_file_writable, check_writable, code_digest, code_of, inside_output_root
from raypipe.kinds import KINDS, background_modules
from raypipe.search.result import NUMERICS, Result
from raypipe.store.claims import once_each
from raypipe.store.files import Store

OK, FAILED = "ok", "failed"
KEY = "raypipe.key"  # Metadata of a table: the key of its trial
COUNT = "raypipe.arrays"  # Of rows on disk alone: how many arrays their trial has; where none are there is no file
COMPACT_AT = 200  # Parts outside the index that are read one by one before they are gathered
LAYOUT = 2  # Of the folder, as its ``layout.json`` says; the first was Parquet files without such a note


class Ledger:
    """A folder, on any storage, of ``rows/<key>.json`` (a finished trial), ``failed/`` and ``arrays/<key>.npz``.

    Nothing is ever changed in place: same key, same content. ``index/`` gathers parts into one file, a cache;
    ``tables/<key>/`` has tables of a trial; ``stages/`` holds what trials share, by the hash of its inputs, or lies in
    ``shared``. ``where``: path, URL or open `Store`; a folder of another layout is a `UserError`.
    """

    def __init__(self, where: str | Path | Store, shared: Store | None = None) -> None:
        self.store = where if isinstance(where, Store) else Store(where)
        self.shared = shared or self.store
        self._indexed: dict[str, tuple[float | None, str]] = {}
        self._seen: set[str] = set()
        self._marked = self._knows_layout()

    def __str__(self) -> str:
        return str(self.store)

    def _knows_layout(self) -> bool:
        """Whether the folder says that it has this layout; an empty one says nothing."""
        data = self.store.read("layout.json")
        if data is None and not any(n.endswith(".parquet") for f in ("rows", "failed") for n in self.store.listing(f)):
            return False
        try:
            found = "of an older layout" if data is None else f"of layout {json.loads(data)['layout']}"
        except (ValueError, LookupError, TypeError):
            found = "of an unknown layout"
        if found != f"of layout {LAYOUT}":
            remedy = "name another folder (output=..., resources.storage=...), or move this one away, and run again"
            raise UserError(f"{self}: a ledger {found}; this raypipe reads layout {LAYOUT} only: {remedy}")
        return True

    def mark(self) -> None:
        """Say in the folder which layout it has."""
        if not self._marked:
            self.store.write("layout.json", json.dumps({"layout": LAYOUT}).encode())
            self._marked = True

    def record(self, key: str, trial: Any, result: Result) -> None:
        """Store a finished trial, its rows last: they are there only if all else is."""
        self.mark()
        if arrays := {name: np.asarray(values, dtype=np.float64) for name, values in result.arrays.items()}:
            np.savez_compressed(file := io.BytesIO(), **arrays)
            self.store.write(f"arrays/{key}.npz", file.getvalue())
        for name, table in result.tables.items():
            pq.write_table(table.replace_schema_metadata({KEY: key}), file := io.BytesIO(), compression="zstd")
            self.store.write(f"tables/{key}/{name}.parquet", file.getvalue())
        if result.flow_state is not None:
            self.store.write(f"flows/{key}.pt", packed(result.flow_state))
        own = {"key": key, "status": OK, "error": "", COUNT: len(arrays)}
        self._write("rows", key, [own | row for row in result.rows])
        self.store.delete(f"failed/{key}.json")

    def record_failure(self, key: str, trial: Any, error: str, kind: str = "raised") -> None:
        """Store why a trial failed (kind ``raised``, ``died``, ``timeout``); a later run of the scan tries it again."""
        self.mark()
        before = self._part("failed", key)
        attempts = (before[0]["attempts"] if before else 0) + 1
        row = {"key": key, "status": FAILED, "error": redact(error, self.store.root, self.shared.root)}
        row |= {"kind": kind, "time": time.time(), "attempts": attempts}
        row |= {k: v for k, v in dataclasses.asdict(trial).items() if isinstance(v, str | int | float | bool)}
        self._write("failed", key, [row])

    def _write(self, folder: str, key: str, rows: list[dict[str, Any]]) -> None:
        # Python writes a float so that the same bits come back, and NaN and Infinity by name.
        self.store.write(f"{folder}/{key}.json", json.dumps(rows, default=lambda value: value.tolist()).encode())

    def _part(self, folder: str, key: str) -> list[dict[str, Any]] | None:
        """One part; a missing or damaged one is None."""
        try:
            rows = json.loads(self.store.read(f"{folder}/{key}.json") or b"") or []
            return [{name: value for name, value in row.items() if name != COUNT} for row in rows] or None
        except ValueError:
            return None

    def read(self, key: str) -> list[dict[str, Any]] | None:
        """The rows of a finished trial, else the one of its last failure, else None."""
        return self._part("rows", key) or self._part("failed", key)

    def finished(self, key: str) -> bool:
        """Whether this trial has succeeded (and can be read)."""
        return self._part("rows", key) is not None

    def written(self, folder: str = "rows") -> dict[str, float]:
        """Keys of all finished trials (or of ``failed``) with the Unix seconds of their writing, by storage's clock."""
        return {name.removesuffix(".json"): modified for name, modified in self.store.listing(folder).items()}

    def done(self, keys: Iterable[str]) -> set[str]:
        """Those of ``keys`` that have succeeded; reads only what the index does not hold."""
        there, indexed = self.written(), self._index()
        return {key for key in keys if key in there and (key in indexed or self.finished(key))}

    def rows(self, keys: Iterable[str]) -> list[dict[str, Any]]:
        """All rows of the given trials, in that order; a trial that only failed gives its last failure."""
        good, failed, indexed = self.written(), self.written("failed"), self._index()
        out: list[dict[str, Any]] = []
        for key in keys:
            rows = (json.loads(indexed[key][1]) if key in indexed else self._part("rows", key)) if key in good else None
            out += rows or (self._part("failed", key) if key in failed else None) or []
        return out

    def failures(self, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
        """The last failure of those trials that have one and have not succeeded since."""
        failed = self.written("failed")
        left = failed.keys() - self.written().keys() if failed else ()
        return {key: rows[0] for key in keys if key in left and (rows := self._part("failed", key))}

    def compact(self, at_least: int = COMPACT_AT) -> int:
        """Gather all parts into one index file if ``at_least`` are outside it; returns how many it then holds.

        JSON lines: the seconds of every trial by key, then its rows; any number of processes may do this at once.
        """
        there, old, indexed = self.written(), set(self.store.listing("index")), self._index()
        if len(loose := there.keys() - indexed.keys()) < at_least:
            return len(indexed)
        gathered = indexed | {k: (of[0].get("seconds"), json.dumps(of)) for k in loose if (of := self._part("rows", k))}
        kept = {key: gathered[key] for key in sorted(gathered.keys() & there.keys())}
        head = json.dumps({key: seconds for key, (seconds, _) in kept.items()})
        data = "\n".join([head, *(rows for _, rows in kept.values()), ""]).encode()
        name = _index_name(data)
        self.store.write(f"index/{name}", data)
        for stale in old - {name}:
            self.store.delete(f"index/{stale}")
        return len(kept)

    def _index(self) -> dict[str, tuple[float | None, str]]:
        """Seconds and rows (as JSON) by key, of every trial in the index; a damaged file of it holds nothing."""
        new = self.store.listing("index").keys() - self._seen
        for name in new:  # named by its content, a file once read needs no second look
            data = self.store.read(f"index/{name}") or b""
            if _index_name(data) == name:
                head, *lines = data.decode().split("\n")
                known = zip(json.loads(head).items(), lines, strict=False)
                self._indexed |= {key: (seconds, rows) for (key, seconds), rows in known}
        self._seen |= new
        return self._indexed

    def seconds(self) -> dict[str, float | None]:
        """Every finished trial with its wall seconds, as far as the index or at most `COMPACT_AT` parts tell."""
        there, indexed = self.written(), self._index()
        parts = {key: self._part("rows", key) for key in sorted(there.keys() - indexed.keys())[:COMPACT_AT]}
        known = {key: seconds for key, (seconds, _) in indexed.items() if key in there}
        return dict.fromkeys(there) | known | {k: rows[0].get("seconds") for k, rows in parts.items() if rows}

    def arrays(self, key: str) -> dict[str, np.ndarray]:
        """The figure arrays of a finished trial, which may have none."""
        data = self.store.read(f"arrays/{key}.npz")
        try:
            if data is None and not json.loads(self.store.read(f"rows/{key}.json") or b"")[0][COUNT]:
                return {}
            with np.load(io.BytesIO(data or b""), allow_pickle=False) as found:
                return dict(found)
        except (OSError, LookupError, ValueError, EOFError, zipfile.BadZipFile):
            told = f"not a readable NumPy file: delete it and rows/{key}.json beside it, and run `raypipe scan` again"
            raise UserError(f"{self.store}/arrays/{key}.npz: {told}") from None

    def lay_out(self, keys: Iterable[str], folder: Path) -> None:
        """Put the tables of those trials that have any into a folder, where they are not there yet."""
        for key in sorted(self.store.folders("tables").intersection(keys)):
            for name in self.store.listing(f"tables/{key}"):
                path = folder / name
                if not path.is_file() or (read_schema(path).metadata or {}).get(KEY.encode()) != key.encode():
                    write_table(pq.read_table(io.BytesIO(self.store.read(f"tables/{key}/{name}") or b"")), path)

    def stage(self, kind: str, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The state in ``stages/<kind>/<key>.pt``, or what ``make`` returns (tensors, plain values) from now on."""
        name = f"stages/{kind}/{key}.pt"

        def get(_: str) -> dict[str, Any] | None:
            data = self.shared.read(name)
            try:
                return None if data is None else unpacked(data)
            except (RuntimeError, EOFError, ValueError):  # a damaged one counts as absent
                self.shared.delete(name)
                return None

        folder, keep = f"stages/{kind}", lambda _: self.shared.write(name, packed(make()))
        return once_each(self.shared, folder, [key], get, keep)[key]

    def flow_file(self, key: str, row: dict[str, Any], folder: Path) -> Path | None:
        """The background model of a finished trial as a file in ``folder``, or None if it has none."""
        stage = row.get("flow_stage")
        data = self.shared.read(f"stages/flow/{stage}.pt") if stage else self.store.read(f"flows/{key}.pt")
        if data is not None:
            (folder / "flow.pt").write_bytes(data)
        return None if data is None else folder / "flow.pt"


def made_by(config: Any = None) -> dict[str, str]:
    """What the keys of trials are made of besides the configuration (None: all): code and packages of this process."""
    searches = [name for name, kind in KINDS.items() if "search" in kind.commands]
    made = {}
    for name in searches if config is None else (config.search,):
        kind, by_name = KINDS[name], background_modules() if KINDS[name].methods else ()
        given = isinstance(kind.search, str)  # not imported: others are those of plugins
        made[name] = code_of(kind.search.partition(":")[0], *by_name) if given else kind.search.code()
    if config is None or getattr(config, "simulate", None) is not None:
        made["simulate"] = code_digest("simulate")
    return made | {name: importlib.metadata.version(name) for name in NUMERICS}


def check_folders(config: Any) -> Path:
    """The run folder; a `UserError` if something of it, or the storage, cannot be written: before the work, not after.

    An existing folder of another user's is found by looking into it.
    """
    folder = check_writable(config.output)
    for path in filter(Path.exists, map(folder.joinpath, ("events", "encoder", "encoders", "ledger", "figures"))):
        check_writable(path)
    for name in ("summary.json", "scores.parquet", "calibration.json"):
        check_file_writable(folder / name)
    if config.resources.storage:
        open_ledger(config).store.check_writable()
    return folder


def open_ledger(config: Any) -> Ledger:
    """The ledger of a run: ``resources.storage`` if that is set, else a folder of its output; the stages of its trials
    are in ``resources.artefacts`` if that is set. A local folder outside RAYPIPE_OUTPUT_ROOT is a `UserError`.
    """
    store = Store(config.resources.storage or Path(config.output) / "ledger")
    shared = Store(config.resources.artefacts) if config.resources.artefacts else None
    for where in (store, shared):
        if where is not None and where.local is not None:
            inside_output_root(where.local)
    return Ledger(store, shared)


def _index_name(data: bytes) -> str:
    return f"{hashlib.sha256(data).hexdigest()[:20]}.jsonl"


def packed(state: dict[str, Any]) -> bytes:
    """Tensors and plain values as the bytes of a file of torch's."""
    import torch

    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def unpacked(data: bytes) -> dict[str, Any]:
    """What `packed` has packed."""
    import torch

    return torch.load(io.BytesIO(data), weights_only=True)
