"""Electrons and muons with their charge: the response formulas of `raypipe.simulate.detector`, no jets.

Electrons take up the photons around them first, as a cluster of calorimeter cells does (`collect_photons`); muons do
not. Charges are never wrong.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from raypipe.simulate.calorimeter import ELECTRON, MUON, PHOTON, electromagnetic_towers, hadronic_towers
from raypipe.simulate.card import Card
from raypipe.simulate.detector import identified, isolation_flow, lepton_tracks, track_efficiency
from raypipe.simulate.particles import Particles
from raypipe.simulate.ragged import delta_r, same_event_pairs

_MIN_ELECTRON_PT = 1.0
"""GeV, softest electron that takes up photons."""


@dataclass(frozen=True)
class Leptons:
    """Identified, isolated electrons and muons, flat; GeV, radians. Electrons first, each kind sorted by event."""

    event: np.ndarray
    pt: np.ndarray
    eta: np.ndarray
    phi: np.ndarray
    charge: np.ndarray
    """+1 or -1."""
    is_muon: np.ndarray

    def __len__(self) -> int:
        return len(self.pt)


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
    total = momentum.copy()
    for component in range(4):
        total[component] += np.bincount(owner, weights=momentum[component, taken], minlength=len(pt))
    changed = np.unique(owner)
    columns = {"pt": pt.copy(), "eta": eta.copy(), "phi": phi.copy(), "energy": total[3]}
    px, py, pz = total[:3, changed]
    columns["pt"][changed] = np.hypot(px, py)
    columns["eta"][changed] = np.arcsinh(pz / np.hypot(px, py))
    columns["phi"][changed] = np.arctan2(py, px)
    kept = np.ones(len(pt), dtype=bool)
    kept[taken] = False
    return replace(
        particles,
        event=particles.event[kept],
        pdg=particles.pdg[kept],
        **{name: values[kept] for name, values in columns.items()},
    )


def reconstruct_leptons(particles: Particles, card: Card, rng: np.random.Generator) -> Leptons:
    """Response of the detector ``card`` to a batch: tracking, momentum and energy resolution, identification.

    Isolation sums hadron tracks, photons and neutral hadrons; other leptons do not count (Delphes), so that two
    leptons of one light particle do not spoil each other.
    """
    particles = collect_photons(particles, card.electron_cone)
    kind = np.abs(particles.pdg)
    track = rng.random(len(kind)) < track_efficiency(kind, np.abs(particles.eta), particles.pt, card)
    ecal, ecal_particles = electromagnetic_towers(particles, card, rng)
    hcal = hadronic_towers(particles, card, track, rng)
    tower_of = np.full(len(kind), -1)
    tower_of[ecal_particles] = ecal.cell_of

    use = {flavour: np.flatnonzero(track & (kind == flavour)) for flavour in (ELECTRON, MUON)}
    found = {
        flavour: lepton_tracks(particles, rows, tower_of, card, rng, muon=flavour == MUON)
        for flavour, rows in use.items()
    }
    from_electron = np.zeros(len(ecal), dtype=bool)
    from_electron[found[ELECTRON].tower[found[ELECTRON].tower >= 0]] = True
    flow = isolation_flow(particles, track & ~np.isin(kind, (ELECTRON, MUON)), ecal, from_electron, hcal, card)

    parts = []
    for flavour, cuts in ((ELECTRON, card.electron), (MUON, card.muon)):
        good = identified(found[flavour], cuts, flow, card, rng)
        kept, charge = found[flavour].select(good), -np.sign(particles.pdg[use[flavour][good]])
        parts.append((kept.event, kept.pt, kept.eta, kept.phi, charge, np.full(len(kept), flavour == MUON)))
    return Leptons(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
