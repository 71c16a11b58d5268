"""What a search returns: flat rows for the ledger, named arrays for the figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from raypipe.files import digest

if TYPE_CHECKING:
    import pyarrow as pa

NUMERICS = ("numpy", "torch", "xgboost", "scipy", "iminuit", "pyhf")  # Packages whose version can move a number
NO_SIGNAL = "none"  # Name of the runs without an injection
DATA = "data"  # Name of the one trial of a search on recorded data

Stage = Callable[[str, str, Callable[[], dict[str, Any]]], dict[str, Any]]
"""``stage(kind, key, make)``: the state (tensors and plain values) of a part of the work that has the hash ``key`` of
everything that determines it; ``make()`` is called if nobody has made it yet."""


@dataclass(frozen=True)
class Tools:
    """What a trial may use besides its inputs; it changes no number that its key does not tell."""

    threads: int = 1  # BLAS, OMP and XGBoost threads
    device: str = "cpu"  # ``cpu`` or ``cuda``
    stage: Stage | None = None  # Keeps the background model by the hash of its inputs, for trials that share it
    mapper: Callable[..., Iterable[Any]] = map  # `map` for independent parts of one trial, here or on many cores
    train: Callable[..., Any] | None = None  # Trains large trees, a `raypipe.models.bdt.Train`; None: this process


ALONE = Tools()  # One core, nothing kept


@dataclass(frozen=True)
class Trial:
    """One point of a scan: what is injected into which instance of the pseudo-data."""

    signal: str
    strength: float
    instance: int
    embedding: str = "id"  # Which representation the classifier sees: see `raypipe.search.contrastive_search`
    method: str = "cathode"  # How the background is known: see `raypipe.kinds.BACKGROUNDS`

    def key(self, inputs: dict[str, Any]) -> str:
        """Hash of the trial together with everything that determines its result."""
        return digest({"trial": asdict(self), "inputs": inputs})  # side by side: their names may coincide

    def label(self) -> str:
        """Short name for people."""
        what = "no signal" if self.signal == NO_SIGNAL else f"{self.signal} at {self.strength:g}"
        how = [] if self.embedding == "id" and self.method == "cathode" else [self.embedding, self.method]
        return ", ".join([what, *how, f"instance {self.instance}"])


DRAWN, RETRAINED, SIMULATED = "drawn", "retrained", "simulated"
"""Where a null's data come from: sideband fit and flows of the trial; the same, which flows of its own then learn; the
simulated events of the trial itself."""


@dataclass(frozen=True)
class Null(Trial):
    """A null of the trial of the same fields, which has no signal."""

    number: int = 0
    kind: str = DRAWN

    def label(self) -> str:
        """Short name for people."""
        return f"{self.kind} null {self.number} of {super().label()}"


@dataclass(frozen=True)
class Result:
    """One finished search."""

    rows: list[dict[str, Any]]  # One a working point; their columns: see `raypipe.search.evaluate.evaluate`
    arrays: dict[str, np.ndarray] = field(default_factory=dict)  # One-dimensional arrays for the figures
    flow_state: dict[str, Any] | None = None  # The background model, for storage; None if a `Stage` keeps it
    tables: dict[str, pa.Table] = field(default_factory=dict)  # Written into the run folder as ``<name>.parquet``
    metric: str = "z_after"  # Column that sums a trial up: what Ray Tune and the progress of a scan are told
