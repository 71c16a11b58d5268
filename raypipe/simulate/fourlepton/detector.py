"""Electrons and muons with their charge, never wrong: the response formulas of `raypipe.simulate.detector`, no jets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from raypipe.events.objects import Objects
from raypipe.simulate.calorimeter import ELECTRON, PHOTON
from raypipe.simulate.card import Card
from raypipe.simulate.detector import Response, identified
from raypipe.simulate.particles import Particles
from raypipe.simulate.ragged import delta_r, same_event_pairs

_MIN_ELECTRON_PT = 1.0
"""GeV, softest electron that takes up photons."""


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
    px, py, pz = total[:3, changed]
    columns = {name: getattr(particles, name).copy() for name in ("event", "pdg", "pt", "eta", "phi")}
    columns["pt"][changed] = np.hypot(px, py)
    columns["eta"][changed] = np.arcsinh(pz / np.hypot(px, py))
    columns["phi"][changed] = np.arctan2(py, px)
    columns["energy"] = total[3]
    return replace(particles, **{name: np.delete(values, taken) for name, values in columns.items()})


def reconstruct_leptons(particles: Particles, card: Card, rng: np.random.Generator) -> tuple[Objects, Objects]:
    """Identified electrons and muons, isolated from hadrons and photons but not from leptons (as Delphes)."""
    seen = Response.of(collect_photons(particles, card.electron_cone), card, rng)
    electrons = seen.electrons.take(identified(seen.electrons, card.electron, seen.around, card, rng))
    return electrons, seen.muons.take(identified(seen.muons, card.muon, seen.around, card, rng))
