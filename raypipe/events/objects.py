"""Reconstructed objects of many events as flat arrays, whoever reconstructed them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from raypipe.events.fields import Rows


@dataclass(frozen=True)
class Objects(Rows):
    """Objects of one kind, flat, sorted by event; GeV, radians. What a kind does not have is None.

    ``event``: number in the batch. ``tower``: place in the list it was taken from, such as the towers; -1: none.
    ``share``: of a calorimeter tower, see `raypipe.simulate.calorimeter.deposit`.
    """

    event: np.ndarray
    pt: np.ndarray
    eta: np.ndarray
    phi: np.ndarray
    mass: np.ndarray | None = None
    btag: np.ndarray | None = None
    tau32: np.ndarray | None = None
    tau43: np.ndarray | None = None
    charge: np.ndarray | None = None
    tower: np.ndarray | None = None
    share: np.ndarray | None = None

    def of_events(self, events: np.ndarray, n_events: int) -> Objects:
        """The objects of some of the ``n_events`` events, which are numbered anew from 0."""
        new = np.full(n_events, -1)
        new[events] = np.arange(len(events))
        kept = self.take(new[self.event] >= 0)
        return replace(kept, event=new[kept.event])

    @staticmethod
    def together(*kinds: Objects) -> Objects:
        """Several kinds as one, sorted by event, with the columns that all of them have."""
        columns = [kind.arrays() for kind in kinds]
        names = [name for name in columns[0] if all(name in one for one in columns)]
        order = np.argsort(np.concatenate([kind.event for kind in kinds]), kind="stable")
        return Objects(**{name: np.concatenate([one[name] for one in columns])[order] for name in names})


@dataclass(frozen=True)
class ObjectBatch:
    """Consecutive events of one file: ``met`` (n_events,) GeV, ``weight`` (n_events,), one where the file has none."""

    n_events: int
    photons: Objects
    jets: Objects
    fatjets: Objects
    electrons: Objects
    muons: Objects
    met: np.ndarray
    met_phi: np.ndarray
    weight: np.ndarray


def flat_objects(counts: np.ndarray, **columns: np.ndarray) -> Objects:
    """Objects from flat ``columns`` (pt, eta, phi, ...) and the number of objects in every event."""
    if "btag" in columns:  # bits in Delphes, -1 or -3000 for "not computed" in NanoAOD
        columns["btag"] = np.clip(columns["btag"], 0.0, 1.0)
    given = {name: np.asarray(values, dtype=np.float64) for name, values in columns.items()}
    return Objects(np.repeat(np.arange(len(counts)), counts), **given, tower=np.arange(int(counts.sum())))


NO_OBJECTS = Objects(np.empty(0, np.int64), np.empty(0), np.empty(0), np.empty(0))


def invariant_mass(vectors: np.ndarray) -> np.ndarray:
    """Invariant mass of (..., 4) vectors E, px, py, pz."""
    return np.sqrt(np.maximum(vectors[..., 0] ** 2 - (vectors[..., 1:] ** 2).sum(-1), 0.0))


def ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """top / bottom in [0, 1] of two N-subjettinesses, zero where a jet has too few constituents to have one."""
    found = np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 1e-9)
    return np.clip(np.nan_to_num(found, nan=0.0, posinf=0.0, neginf=0.0), 0.0, 1.0)


def polar(px: np.ndarray, py: np.ndarray, pz: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """pT, eta and phi of momenta; one along the beam gets a huge finite eta, which no detector region contains."""
    pt = np.hypot(px, py)
    return pt, np.arcsinh(pz / np.maximum(pt, 1e-12)), np.arctan2(py, px)


def wrap_phi(phi: np.ndarray) -> np.ndarray:
    """``phi`` wrapped to [-pi, pi)."""
    return (phi + np.pi) % (2 * np.pi) - np.pi


def same_event_pairs(event_a: np.ndarray, event_b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices (ia, ib) of all pairs of one entry of a and one of b in the same event; ``event_b`` must be sorted."""
    start = np.searchsorted(event_b, event_a, "left")
    count = np.searchsorted(event_b, event_a, "right") - start
    ia = np.repeat(np.arange(len(event_a)), count)
    within = np.arange(len(ia)) - np.repeat(np.cumsum(count) - count, count)
    return ia, np.repeat(start, count) + within


def delta_r(eta_a: np.ndarray, phi_a: np.ndarray, eta_b: np.ndarray, phi_b: np.ndarray) -> np.ndarray:
    """Distance in the eta-phi plane."""
    return np.hypot(eta_a - eta_b, wrap_phi(phi_a - phi_b))


def order_and_rank(event: np.ndarray, key: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Permutation that sorts by event, then by falling ``key``, and each sorted entry's place in its event (0, 1..)."""
    order = np.lexsort((-key, event))
    sorted_event = event[order]
    return order, np.arange(len(order)) - np.searchsorted(sorted_event, sorted_event, "left")
