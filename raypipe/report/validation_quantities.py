"""What is looked at in an event table: the quantities of the diphoton, the four-lepton and any other table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from raypipe.errors import UserError
from raypipe.events.fourlepton import LEPTONS, MASSES
from raypipe.events.schema import FEATURES, PHOTON_COLUMNS
from raypipe.events.table import read_schema, stream_table
from raypipe.report.html import resource
from raypipe.report.validation_presence import presence_means, slot

Batch = dict[str, np.ndarray]
"""Columns of a piece of a table; float64, tensors float32."""

Means = dict[str, tuple[np.ndarray, np.ndarray]]
"""Name -> (values, mask of the events that count)."""

BTAG = 0.5
"""Score above which a jet counts as b-tagged (`raypipe.simulate.jets.btag_score`)."""


def everywhere(batch: Batch) -> np.ndarray:
    """Mask of all events."""
    return np.ones(len(batch["weight"]), dtype=bool)


@dataclass(frozen=True)
class Quantity:
    """One spectrum."""

    name: str
    label: str
    """Axis label."""
    edges: np.ndarray
    values: Callable[[Batch], np.ndarray]
    log: bool = True
    """Logarithmic vertical axis."""
    present: Callable[[Batch], np.ndarray] = everywhere
    """Mask of the events that have it."""
    caption: str = ""
    shown: bool = True
    """False: kept for numbers only, no figure."""


@dataclass(frozen=True)
class Kind:
    """What one kind of table offers."""

    name: str
    columns: tuple[str, ...]
    quantities: tuple[Quantity, ...]
    means: Callable[[Batch], Means]


def _column(name: str) -> Callable[[Batch], np.ndarray]:
    return lambda batch: batch[name]


def _feature(name: str) -> Callable[[Batch], np.ndarray]:
    return lambda batch: batch["features"][:, FEATURES.index(name)]


def n_btag(batch: Batch) -> np.ndarray:
    """b-tagged jets among the four that the table keeps."""
    return (slot(batch, "jet", "btag") > BTAG).sum(axis=1)


def n_fatjet(batch: Batch) -> np.ndarray:
    """Large-radius jets, at most the two that the table keeps."""
    return (slot(batch, "fatjet", "pt") > 0).sum(axis=1)


def n_lepton(batch: Batch) -> np.ndarray:
    """Electrons and muons, at most two each."""
    return (slot(batch, "electron", "pt") > 0).sum(axis=1) + (slot(batch, "muon", "pt") > 0).sum(axis=1)


def _diphoton_means(batch: Batch) -> Means:
    values = {name: _feature(name)(batch) for name in ("n_jet", "met", "n_photon")} | {"pt_yy": batch["pt_yy"]}
    values |= {"n_btag": n_btag(batch), "n_fatjet": n_fatjet(batch), "n_lepton": n_lepton(batch)}
    mask = everywhere(batch)
    return {name: (v, mask) for name, v in values.items()} | presence_means(batch)


def _quantity(name: str, edges: list[float], of: dict[str, Any] | None = None, **texts: Any) -> Quantity:
    """An entry of ``quantities.yaml``; a leading object's quantity is that of the events that have the object."""
    [(where, what)] = (of or {"column": name}).items()
    if where == "leading":
        kind, feature = what
        texts["present"] = lambda batch: slot(batch, kind, "pt")[:, 0] > 0
        return Quantity(name, edges=np.linspace(*edges), values=lambda b: slot(b, kind, feature)[:, 0], **texts)
    values = _feature(what) if where == "feature" else _column(what)
    return Quantity(name, edges=np.linspace(*edges), values=values, **texts)


MAX_ANY = 24
"""Columns of a table of another kind that are looked at, in its order."""

Z_WINDOW = (85.0, 97.0)
"""GeV, m_4l of Z -> 4l (simulation.md 5)."""

ON_SHELL = (66.0, 116.0)
"""GeV, mass of a pair from a Z."""


def _four_lepton_means(batch: Batch) -> Means:
    both = [(batch[m] > ON_SHELL[0]) & (batch[m] < ON_SHELL[1]) for m in ("m_ee", "m_mumu")]
    shares = {"z_to_4l": (batch["m_4l"] > Z_WINDOW[0]) & (batch["m_4l"] < Z_WINDOW[1])}
    shares |= {"below_100": batch["m_4l"] < 100, "two_z": both[0] & both[1]}
    return {name: (mask, everywhere(batch)) for name, mask in shares.items()}


_LISTED = {kind: tuple(_quantity(**entry) for entry in entries) for kind, entries in resource("quantities").items()}

_DIPHOTON = ("weight", "m_yy", "pt_yy", "dr_yy", *PHOTON_COLUMNS, "objects", "features")
DIPHOTON = Kind("diphoton", _DIPHOTON, _LISTED["diphoton"], _diphoton_means)

_LEPTONS = ("weight", *MASSES, *(f"{name}_pt" for name in LEPTONS))
FOUR_LEPTON = Kind("four-lepton", _LEPTONS, _LISTED["four-lepton"], _four_lepton_means)


def _any_table(path: Path, schema: pa.Schema) -> Kind:
    """Every column of numbers, each over its own range."""
    numbers = [f.name for f in schema if pa.types.is_floating(f.type) or pa.types.is_integer(f.type)]
    names = [name for name in numbers if name not in {"event_id", "weight", "group"}][:MAX_ANY]
    if "weight" not in schema.names or not names:
        raise UserError(f"{path}: not an event table: columns {', '.join(schema.names)}, needed: weight and numbers")
    low, high = _ranges(path, names)

    def means(batch: Batch) -> Means:
        return {name: (batch[name], everywhere(batch)) for name in names}

    quantities = [Quantity(n, n, np.linspace(low[n], high[n], 51), _column(n), caption=f"Column {n}.") for n in names]
    return Kind("table", ("weight", *names), tuple(quantities), means)


def _ranges(path: Path, names: list[str]) -> tuple[dict[str, float], dict[str, float]]:
    """Axis limits of each column: smallest and largest finite value of the first piece, widened where equal."""
    piece = next(stream_table(path, names), None)
    low, high = {}, {}
    for name in names:
        values = piece[name].to_numpy() if piece is not None else np.zeros(1)
        values = values[np.isfinite(values)] if np.isfinite(values).any() else np.zeros(1)
        low[name], high[name] = float(values.min()), float(values.max())
        if low[name] == high[name]:
            low[name], high[name] = low[name] - 0.5, high[name] + 0.5
    return low, high


def kind_of(path: Path) -> Kind:
    """Which quantities the table in ``path`` has, from its columns."""
    schema = read_schema(path)
    for kind in (DIPHOTON, FOUR_LEPTON):
        if set(kind.columns) <= set(schema.names):
            return kind
    return _any_table(path, schema)
