"""What is looked at in an event table: the quantities of the diphoton, the four-lepton and any other table."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from raypipe.errors import UserError
from raypipe.events.schema import FEATURES, LEPTONS, MASSES, OBJECT_FEATURES, PHOTON_COLUMNS, SLOTS
from raypipe.events.table import read_schema, stream_table
from raypipe.report.html import resource

Batch = dict[str, np.ndarray]  # Columns of a piece of a table; float64, tensors float32
ALL = slice(None)
BTAG = 0.5  # Score above which a jet counts as b-tagged (`raypipe.simulate.jets.btag_score`)
MAX_ANY = 24  # Columns of a table of another kind that are looked at, in its order
Z_WINDOW, ON_SHELL = (85.0, 97.0), (66.0, 116.0)  # GeV: m_4l of Z -> 4l (simulation.md 5), mass of a pair from a Z


def slot(batch: Batch, kind: str, what: str) -> np.ndarray:
    """A feature of all slots of one kind, (n, slots); zero where absent."""
    first, count = SLOTS.index(kind), SLOTS.count(kind)
    return batch["objects"][:, first : first + count, OBJECT_FEATURES.index(what)]


@dataclass(frozen=True)
class Quantity:
    """One spectrum; an entry of ``quantities.yaml``."""

    name: str
    label: str  # Axis label
    edges: np.ndarray
    of: Mapping[str, Any] = field(default_factory=dict)
    """``column``, ``feature`` of the event, or ``leading`` (kind, feature); the column of its name where not given."""
    log: bool = True  # Logarithmic vertical axis
    caption: str = ""
    shown: bool = True  # False: kept for numbers only, no figure

    def values(self, batch: Batch) -> tuple[np.ndarray, np.ndarray | slice]:
        """Values (n,), and the mask of the events that have one: those with the leading object, else all."""
        if "leading" in self.of:
            kind, feature = self.of["leading"]
            return slot(batch, kind, feature)[:, 0], slot(batch, kind, "pt")[:, 0] > 0
        if "feature" in self.of:
            return batch["features"][:, FEATURES.index(self.of["feature"])], ALL
        return batch[self.of.get("column", self.name)], ALL


@dataclass(frozen=True)
class Kind:
    """What one kind of table offers."""

    name: str
    columns: tuple[str, ...]
    quantities: tuple[Quantity, ...]
    means: Callable[[Batch], dict[str, np.ndarray]]
    """Values (n,) by name; a mask where a share is meant."""


def _diphoton_means(batch: Batch) -> dict[str, np.ndarray]:
    values = {name: batch["features"][:, FEATURES.index(name)] for name in ("n_jet", "met", "n_photon")}
    values["pt_yy"] = batch["pt_yy"]
    values["n_btag"] = (slot(batch, "jet", "btag") > BTAG).sum(axis=1)
    present = {kind: (slot(batch, kind, "pt") > 0).sum(axis=1) for kind in ("fatjet", "electron", "muon")}
    return values | {"n_fatjet": present["fatjet"], "n_lepton": present["electron"] + present["muon"]}


def _four_lepton_means(batch: Batch) -> dict[str, np.ndarray]:
    def inside(name: str, window: tuple[float, float]) -> np.ndarray:
        return (batch[name] > window[0]) & (batch[name] < window[1])

    shares = {"z_to_4l": inside("m_4l", Z_WINDOW), "below_100": batch["m_4l"] < 100}
    return shares | {"two_z": inside("m_ee", ON_SHELL) & inside("m_mumu", ON_SHELL)}


def _listed(kind: str, columns: tuple[str, ...], means: Callable[[Batch], dict[str, np.ndarray]]) -> Kind:
    entries = [entry | {"edges": np.linspace(*entry["edges"])} for entry in resource("quantities")[kind]]
    return Kind(kind, ("weight", *columns), tuple(Quantity(**entry) for entry in entries), means)


DIPHOTON = _listed("diphoton", ("m_yy", "pt_yy", "dr_yy", *PHOTON_COLUMNS, "objects", "features"), _diphoton_means)
FOUR_LEPTON = _listed("four-lepton", (*MASSES, *(f"{name}_pt" for name in LEPTONS)), _four_lepton_means)


def _any_table(path: Path, schema: pa.Schema) -> Kind:
    """Every column of numbers, each from its smallest to its largest finite value in the first piece."""
    numbers = [f.name for f in schema if pa.types.is_floating(f.type) or pa.types.is_integer(f.type)]
    names = [name for name in numbers if name not in {"event_id", "weight", "group"}][:MAX_ANY]
    if "weight" not in schema.names or not names:
        raise UserError(f"{path}: not an event table: columns {', '.join(schema.names)}, needed: weight and numbers")
    piece = next(stream_table(path, names), None)

    def quantity(name: str) -> Quantity:
        values = np.zeros(1) if piece is None else piece[name].to_numpy()
        values = values[np.isfinite(values)] if np.isfinite(values).any() else np.zeros(1)
        low, high = float(values.min()), float(values.max())
        wider = 0.5 if low == high else 0.0
        return Quantity(name, name, np.linspace(low - wider, high + wider, 51), caption=f"Column {name}.")

    def means(batch: Batch) -> dict[str, np.ndarray]:
        return {name: batch[name] for name in names}

    return Kind("table", ("weight", *names), tuple(map(quantity, names)), means)


def kind_of(path: Path) -> Kind:
    """Which quantities the table in ``path`` has, from its columns."""
    schema = read_schema(path)
    listed = (kind for kind in (DIPHOTON, FOUR_LEPTON) if set(kind.columns) <= set(schema.names))
    return next(listed, None) or _any_table(path, schema)
