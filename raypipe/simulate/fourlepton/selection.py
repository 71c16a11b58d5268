"""The four leptons of an event as a detector sees them, and the cuts on them, with their cut flow.

Paper B names no cut: its leptons are those of Delphes' default CMS card (pT > 10 GeV, |eta| < 2.5 and 2.4) behind
MadGraph's default cuts (pT > 10 GeV, |eta| < 2.5, distance 0.4). What is set here beyond is raypipe's default.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from raypipe.config.inputs import FourLeptonSelection
from raypipe.events.objects import Objects, delta_r, order_and_rank, polar, same_event_pairs
from raypipe.events.schema import LEPTONS, MASSES
from raypipe.simulate.calorimeter import ELECTRON, PHOTON
from raypipe.simulate.card import Card
from raypipe.simulate.detector import Response, identified
from raypipe.simulate.particles import Particles

_MIN_ELECTRON_PT = 1.0  # GeV, softest electron that takes up photons


def collect_photons(particles: Particles, cone: float) -> Particles:
    """Add each photon within ``cone`` of an electron to it (the nearest one) and drop it from the list."""
    electron = np.flatnonzero((np.abs(particles.pdg) == ELECTRON) & (particles.pt > _MIN_ELECTRON_PT))
    photon = np.flatnonzero(particles.pdg == PHOTON)
    if cone == 0 or not len(electron) or not len(photon):
        return particles
    i, j = same_event_pairs(particles.event[photon], particles.event[electron])
    distance = delta_r(
        particles.eta[photon[i]], particles.phi[photon[i]], particles.eta[electron[j]], particles.phi[electron[j]]
    )
    near = np.flatnonzero(distance < cone)
    near = near[np.lexsort((distance[near], i[near]))]
    _, first = np.unique(i[near], return_index=True)
    taken, owner = photon[i[near[first]]], electron[j[near[first]]]
    pt, eta, phi = particles.pt, particles.eta, particles.phi
    momentum = np.stack([pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta), particles.energy])
    total = momentum + [np.bincount(owner, weights=component[taken], minlength=len(pt)) for component in momentum]
    changed = np.unique(owner)
    columns = {name: getattr(particles, name).copy() for name in ("event", "pdg", "pt", "eta", "phi")}
    for name, values in zip(("pt", "eta", "phi"), polar(*total[:3, changed]), strict=True):
        columns[name][changed] = values
    columns["energy"] = total[3]
    return replace(particles, **{name: np.delete(values, taken) for name, values in columns.items()})


def reconstruct_leptons(particles: Particles, card: Card, rng: np.random.Generator) -> tuple[Objects, Objects]:
    """Identified electrons and muons, isolated from hadrons and photons but not from leptons (as Delphes)."""
    seen = Response.of(collect_photons(particles, card.electron_cone), card, rng)
    electrons = seen.electrons.take(identified(seen.electrons, card.electron, seen.around, card, rng))
    return electrons, seen.muons.take(identified(seen.muons, card.muon, seen.around, card, rng))


Z_MASS = 91.1876  # GeV

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
