"""Simulated events in one small file that travels to a machine without a simulation.

An event fills about four of its eleven slots with seven numbers that are not its type. Kept are those as float16, with
a bit for each slot: about 80 bytes an event. float16 keeps momenta to 0.05 %.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from raypipe.config import Config
from raypipe.errors import UserError
from raypipe.events.diphoton import PT, View
from raypipe.events.schema import OBJECT_FEATURES, SLOTS, SPLITS
from raypipe.events.table import read_table, sample_path
from raypipe.files import atomic_path
from raypipe.fit.encoder import EncoderInputs

MEASURED = OBJECT_FEATURES.index("is_jet")
"""Numbers of an object that do not follow from its slot."""
COLUMNS = ("event_id", "split", "group", "weight", "m_yy")


@dataclass(frozen=True)
class PackedEvents:
    """Events of many samples as an encoder is shown them, one row an event."""

    event_id: np.ndarray
    sample: np.ndarray
    """(n,) str."""
    search: np.ndarray
    """(n,) bool: of the search split, which stands for recorded data."""
    group: np.ndarray
    weight: np.ndarray
    """(n,) expected events per fb^-1."""
    mass: np.ndarray
    """(n,) GeV."""
    objects: np.ndarray
    """(n, 11, 12) float32."""
    event: np.ndarray
    """(n, 2) float32."""

    def training(self, samples: list[str]) -> EncoderInputs:
        """The embedding split of ``samples``, sorted by id."""
        rows = np.flatnonzero(~self.search & np.isin(self.sample, samples))
        rows = rows[np.argsort(self.event_id[rows], kind="stable")]
        return EncoderInputs(self.event_id[rows], self.objects[rows], self.event[rows], self.group[rows])


def pack(config: Config, events: Path, path: Path) -> int:
    """Write the simulated events of the folder ``events`` to ``path`` (.npz); returns its size in bytes."""
    view = View.of(config.embedding)
    columns = list(dict.fromkeys([*COLUMNS, *view.columns]))
    parts: dict[str, list[np.ndarray]] = {}
    for number, name in enumerate(config.simulate.samples):
        for split in SPLITS:
            for key, values in _packed(read_table(sample_path(events, split, name), columns), view).items():
                parts.setdefault(key, []).append(values)
            parts.setdefault("sample", []).append(np.full(len(parts["event_id"][-1]), number, np.uint8))
            parts.setdefault("search", []).append(np.full(len(parts["event_id"][-1]), split == "search"))
    arrays = {key: np.concatenate(values) for key, values in parts.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, names=np.array(list(config.simulate.samples)), **arrays)
    return path.stat().st_size


def _packed(table: pa.Table, view: View) -> dict[str, np.ndarray]:
    objects = view.objects(table)
    present = objects[..., PT] > 0
    return {
        "event_id": table["event_id"].to_numpy(),
        "group": table["group"].to_numpy(),
        "weight": table["weight"].to_numpy(),
        "mass": table["m_yy"].to_numpy(),
        "present": (present * (1 << np.arange(len(SLOTS), dtype=np.uint16))).sum(1).astype(np.uint16),
        "values": objects[present][:, :MEASURED].astype(np.float16),
        "event": view.event(table).astype(np.float16),
    }


def load(path: Path) -> PackedEvents:
    """The events of a file of `pack`.

    Raises:
        UserError: there is no such file, or it is another one.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; `make gpu-input` makes it")
    with np.load(path, allow_pickle=False) as file:
        if "present" not in file.files:
            raise UserError(f"{path}: not a file of packed events (array 'present' is missing)")
        given = {name: file[name] for name in file.files}
    present = (given["present"][:, None] >> np.arange(len(SLOTS))) & 1 == 1
    objects = np.zeros((len(present), len(SLOTS), len(OBJECT_FEATURES)), np.float32)
    types = np.zeros((len(SLOTS), len(OBJECT_FEATURES)), np.float32)
    for slot, name in enumerate(SLOTS):
        types[slot, OBJECT_FEATURES.index(f"is_{name}")] = 1
    objects[present] = np.broadcast_to(types, objects.shape)[present]
    objects[present, :MEASURED] = given["values"]
    return PackedEvents(
        given["event_id"],
        given["names"][given["sample"]],
        given["search"],
        given["group"].astype(np.int64),
        given["weight"],
        given["mass"].astype(np.float64),
        objects,
        given["event"].astype(np.float32),
    )
