"""The ledger: one Parquet part a finished trial, keyed by what determines its result. It is the truth of a scan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from raypipe.events.table import read_table, write_table
from raypipe.files import atomic_path, make_directory
from raypipe.search.result import Result, Trial

OK, FAILED = "ok", "failed"


class Ledger:
    """A folder with ``rows/<key>.parquet`` (rows of a trial, or its failure), ``arrays/`` and ``flows/``.

    A trial's rows are written last, so that whoever sees them finds its other files too. Same key, same content:
    writing one twice is harmless.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        for name in ("rows", "arrays", "flows"):
            make_directory(self.folder / name)

    def _path(self, kind: str, key: str, suffix: str = "parquet") -> Path:
        return self.folder / kind / f"{key}.{suffix}"

    def record(self, key: str, trial: Trial, result: Result) -> None:
        """Store a finished trial."""
        if result.flow_state is not None:
            with atomic_path(self._path("flows", key, "pt")) as temporary:
                torch.save(result.flow_state, temporary)
        arrays = {name: pa.array([np.asarray(v, dtype=np.float64)]) for name, v in result.arrays.items()}
        write_table(pa.table(arrays), self._path("arrays", key))
        self._write(key, [{"key": key, "status": OK, "error": "", **row} for row in result.rows])

    def record_failure(self, key: str, trial: Trial, error: str) -> None:
        """Store why a trial failed; a later run of the scan tries it again."""
        row = {"key": key, "status": FAILED, "error": error, "signal": trial.signal, "strength": trial.strength,
               "instance": trial.instance}  # fmt: skip
        self._write(key, [row])

    def _write(self, key: str, rows: list[dict[str, Any]]) -> None:
        plain = [{k: v.item() if isinstance(v, np.generic) else v for k, v in row.items()} for row in rows]
        write_table(pa.Table.from_pylist(plain), self._path("rows", key))

    def read(self, key: str) -> list[dict[str, Any]] | None:
        """The rows of a trial, or None if it has none yet (a damaged part counts as none)."""
        path = self._path("rows", key)
        return read_table(path).to_pylist() if path.exists() else None

    def finished(self, key: str) -> bool:
        """Whether this trial has succeeded."""
        rows = self.read(key)
        return rows is not None and all(row["status"] == OK for row in rows)

    def arrays(self, key: str) -> dict[str, np.ndarray]:
        """The figure arrays of a finished trial."""
        table = read_table(self._path("arrays", key))
        return {name: np.asarray(table[name][0].as_py(), dtype=np.float64) for name in table.column_names}

    def flow_path(self, key: str) -> Path:
        """Where the background model of a trial is."""
        return self._path("flows", key, "pt")

    def rows(self, keys: list[str]) -> list[dict[str, Any]]:
        """All rows of the given trials, in that order."""
        return [row for key in keys for row in self.read(key) or []]
