"""Reconstructed objects of many events as flat arrays, whoever reconstructed them."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np


@dataclass(frozen=True)
class Objects:
    """Objects of one kind, flat, sorted by event; GeV, radians. What a kind does not have is zero."""

    event: np.ndarray
    """Number of the event in the batch, rising."""
    pt: np.ndarray
    eta: np.ndarray
    phi: np.ndarray
    mass: np.ndarray
    btag: np.ndarray
    tau32: np.ndarray
    tau43: np.ndarray
    charge: np.ndarray
    tower: np.ndarray
    """Place in the list it was taken from."""

    def __len__(self) -> int:
        return len(self.pt)

    def select(self, mask: np.ndarray) -> Objects:
        """The objects where ``mask`` holds."""
        return Objects(*(getattr(self, f.name)[mask] for f in fields(self)))


@dataclass(frozen=True)
class ObjectBatch:
    """Consecutive events of one file."""

    n_events: int
    photons: Objects
    jets: Objects
    fatjets: Objects
    electrons: Objects
    muons: Objects
    met: np.ndarray
    """(n_events,) GeV."""
    met_phi: np.ndarray
    weight: np.ndarray
    """(n_events,) as in the file, one where it has none."""


def flat_objects(counts: np.ndarray, **columns: np.ndarray) -> Objects:
    """Objects from flat ``columns`` (pt, eta, phi, ...) and the number of objects in every event."""
    n = int(counts.sum())
    if "btag" in columns:  # bits in Delphes, -1 or -3000 for "not computed" in NanoAOD
        columns["btag"] = np.clip(columns["btag"], 0.0, 1.0)
    given = {name: np.asarray(values, dtype=np.float64) for name, values in columns.items()}
    given = {f.name: given.get(f.name, np.zeros(n)) for f in fields(Objects)}
    event = np.repeat(np.arange(len(counts)), counts)
    return Objects(**given | {"event": event, "tower": np.arange(n)})
