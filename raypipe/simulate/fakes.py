"""A jet that looks like a photon: the part of the diphoton continuum that is photon + jet.

Real fakes are one jet in two thousand. Instead every event's jet is turned into a photon with most of its energy, and
the sample's K factor is the rate (a flat, free choice in ``yields.yaml``).
"""

from __future__ import annotations

from dataclasses import replace

import awkward as ak
import numpy as np

from raypipe.simulate.calorimeter import MUON, NEUTRINOS, PHOTON
from raypipe.simulate.particles import Particles
from raypipe.simulate.ragged import delta_r, sum_by_event

CONE = 0.4
MEAN, WIDTH = 0.92, 0.05  # Energy share of a fake photon in its jet, a Gaussian cut at one [raypipe]

OUTGOING = (5, 6)  # Rows of Pythia's event record that hold the outgoing particles of a 2 -> 2 process

MAX_COPIES = 200


def hard_partons(batch: ak.Array) -> tuple[np.ndarray, np.ndarray]:
    """eta and phi of each event's outgoing quark or gluon, after all recoils and before it first radiates."""
    p = batch.prt
    counts = ak.num(p.id).to_numpy()
    start = np.cumsum(counts) - counts
    ids, first, last = (ak.flatten(column).to_numpy() for column in (p.id, p.daughter1, p.daughter2))
    row = start + np.where(ids[start + OUTGOING[0]] == PHOTON, OUTGOING[1], OUTGOING[0])
    for _ in range(MAX_COPIES):
        # A daughter alone of the same kind is the particle itself, pushed by something else.
        copied = (first[row] > 0) & (first[row] == last[row]) & (ids[start + first[row]] == ids[row])
        if not copied.any():
            break
        row = np.where(copied, start + first[row], row)
    px, py, pz = (ak.flatten(p.p[name]).to_numpy()[row] for name in ("px", "py", "pz"))
    return np.arcsinh(pz / np.hypot(px, py)), np.arctan2(py, px)


def jets_as_photons(particles: Particles, eta: np.ndarray, phi: np.ndarray, rng: np.random.Generator) -> Particles:
    """Replace, in every event, what is visible within `CONE` of a jet by one photon with a share of its momentum.

    ``eta``, ``phi`` (n_events,) of the jet are moved once onto the visible momentum around it, if there is any.
    """
    visible = ~np.isin(np.abs(particles.pdg), (*NEUTRINOS, MUON))
    for _ in range(2):  # find the jet around the parton, then around itself
        near = visible & (delta_r(particles.eta, particles.phi, eta[particles.event], phi[particles.event]) < CONE)
        event, pt = particles.event[near], particles.pt[near]
        px, py, pz = (
            sum_by_event(event, values, particles.n_events)
            for values in (
                pt * np.cos(particles.phi[near]),
                pt * np.sin(particles.phi[near]),
                pt * np.sinh(particles.eta[near]),
            )
        )
        found = np.hypot(px, py)
        eta = np.where(found > 0, np.arcsinh(pz / np.maximum(found, 1e-12)), eta)
        phi = np.where(found > 0, np.arctan2(py, px), phi)
    share = np.clip(rng.normal(MEAN, WIDTH, particles.n_events), 0.0, 1.0)
    new = np.flatnonzero(found > 0)
    photon_pt = (share * found)[new]
    columns = {
        "event": new,
        "pdg": np.full(len(new), PHOTON),
        "pt": photon_pt,
        "eta": eta[new],
        "phi": phi[new],
        "energy": photon_pt * np.cosh(eta[new]),
    }
    joined = {name: np.concatenate([getattr(particles, name)[~near], values]) for name, values in columns.items()}
    order = np.argsort(joined["event"], kind="stable")
    return replace(particles, **{name: values[order] for name, values in joined.items()})
