"""The four leptons of an event and the cuts on them, with their cut flow.

Paper B names no cut: its leptons are those of Delphes' default CMS card (pT > 10 GeV, |eta| < 2.5 and 2.4) behind
MadGraph's default cuts (pT > 10 GeV, |eta| < 2.5, distance 0.4). What is set here beyond is raypipe's default.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from raypipe.config.fourlepton import FourLeptonSelection
from raypipe.events.fourlepton import LEPTONS, MASSES
from raypipe.events.objects import Objects
from raypipe.simulate.ragged import delta_r, order_and_rank

Z_MASS = 91.1876
"""GeV."""

STEPS = ("generated", "four_leptons", "transverse_momenta", "pair_masses")
"""Names of the cut flow, in order; `generated` counts events that hold e+ e- mu+ mu- in truth."""


@dataclass(frozen=True)
class Quadruplets:
    """The selected events' leptons: arrays of (n, 4) in the order e-, e+, mu-, mu+, and masses of (n,)."""

    event: np.ndarray
    pt: np.ndarray
    eta: np.ndarray
    phi: np.ndarray
    m_4l: np.ndarray
    m_ee: np.ndarray
    m_mumu: np.ndarray
    cut_flow: dict[str, int] = field(default_factory=dict)

    def columns(self) -> dict[str, np.ndarray]:
        """The numbers of the four-lepton table, float32."""
        found = {name: getattr(self, name) for name in MASSES}
        for quantity in ("pt", "eta", "phi"):
            found |= {f"{lepton}_{quantity}": getattr(self, quantity)[:, i] for i, lepton in enumerate(LEPTONS)}
        return {name: values.astype(np.float32) for name, values in found.items()}


def select(electrons: Objects, muons: Objects, n_events: int, cuts: FourLeptonSelection | None = None) -> Quadruplets:
    """The hardest e-, e+, mu- and mu+ of each event, and all ``cuts`` on them."""
    cuts = cuts or FourLeptonSelection()
    kinds = (electrons, -1), (electrons, 1), (muons, -1), (muons, 1)
    dense = np.full((n_events, 4), -1)
    for slot, (kind, charge) in enumerate(kinds):
        use = np.flatnonzero(kind.charge == charge)
        order, rank = order_and_rank(kind.event[use], kind.pt[use])
        first = use[order[rank == 0]]
        dense[kind.event[first], slot] = first
    events = np.flatnonzero((dense >= 0).all(axis=1))
    pt, eta, phi = (
        np.stack([getattr(kind, name)[dense[events, slot]] for slot, (kind, _) in enumerate(kinds)], axis=1)
        for name in ("pt", "eta", "phi")
    )
    flow = {"four_leptons": len(events)}

    hard = (pt[:, :2] > cuts.electron_pt).all(axis=1) & (pt[:, 2:] > cuts.muon_pt).all(axis=1)
    ordered = -np.sort(-pt, axis=1)
    for place, threshold in enumerate(cuts.leading_pt):
        hard &= ordered[:, place] > threshold
    flow["transverse_momenta"] = int(hard.sum())

    m_4l, m_ee, m_mumu = (mass(pt[:, i], eta[:, i], phi[:, i]) for i in (slice(0, 4), slice(0, 2), slice(2, 4)))
    kept = hard & (np.minimum(m_ee, m_mumu) > cuts.min_pair)
    for i in range(4):
        for j in range(i):
            kept &= delta_r(eta[:, i], phi[:, i], eta[:, j], phi[:, j]) > cuts.min_delta_r
    ee_is_z1 = np.abs(m_ee - Z_MASS) < np.abs(m_mumu - Z_MASS)
    z1, z2 = np.where(ee_is_z1, m_ee, m_mumu), np.where(ee_is_z1, m_mumu, m_ee)
    for value, window in ((z1, cuts.z1_window), (z2, cuts.z2_window)):
        if window is not None:
            kept &= (value > window[0]) & (value < window[1])
    flow["pair_masses"] = int(kept.sum())
    kept_columns = (column[kept] for column in (events, pt, eta, phi, m_4l, m_ee, m_mumu))
    return Quadruplets(*kept_columns, cut_flow=flow)


def mass(pt: np.ndarray, eta: np.ndarray, phi: np.ndarray) -> np.ndarray:
    """Invariant mass of the massless momenta along the last axis."""
    energy = (pt * np.cosh(eta)).sum(axis=-1)
    px, py, pz = ((pt * f).sum(axis=-1) for f in (np.cos(phi), np.sin(phi), np.sinh(eta)))
    return np.sqrt(np.maximum(energy**2 - px**2 - py**2 - pz**2, 0.0))
