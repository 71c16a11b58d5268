"""Calorimeter towers: energy shared into cells, smeared, zero-suppressed."""

import numpy as np

from raypipe.events.objects import Objects
from raypipe.simulate.card import Calorimeter, Card, by_region
from raypipe.simulate.particles import Particles

NEUTRINOS = (12, 14, 16)
ELECTRON, MUON, PHOTON = 11, 13, 22
LONG_LIVED = (310, 3122)  # K0S and Lambda, which decay inside the calorimeters

FIRST_EXOTIC = 1_000_000  # PDG ids from here on are new particles; a stable one is taken to be invisible


def visible(pdg: np.ndarray) -> np.ndarray:
    """True for particles that leave energy in a calorimeter: not neutrinos, muons or stable new particles."""
    pdg = np.abs(pdg)
    return ~np.isin(pdg, (*NEUTRINOS, MUON)) & (pdg < FIRST_EXOTIC)


def fractions(pdg: np.ndarray, card: Card) -> tuple[np.ndarray, np.ndarray]:
    """Shares of a particle's energy that the electromagnetic and the hadronic calorimeter see."""
    seen, pdg = visible(pdg), np.abs(pdg)
    ecal = np.where(np.isin(pdg, (ELECTRON, PHOTON)), 1.0, 0.0)
    ecal = np.where(np.isin(pdg, LONG_LIVED), card.long_lived_ecal_fraction, ecal)
    return np.where(seen, ecal, 0.0), np.where(seen, 1.0 - ecal, 0.0)


def energy_sigma(calorimeter: Calorimeter, energy: np.ndarray, eta: np.ndarray) -> np.ndarray:
    """Resolution sigma_E [GeV] at ``energy`` and ``eta``."""
    abs_eta = np.abs(eta)
    constant, stochastic, noise, scale, curvature, centre = by_region(
        calorimeter.resolution, abs_eta, "constant", "stochastic", "noise", "scale", "curvature", "centre"
    )
    shape = scale + curvature * (abs_eta - centre) ** 2
    return shape * np.sqrt((constant * energy) ** 2 + stochastic**2 * energy + noise**2)


def log_normal(mean: np.ndarray, sigma: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Log-normal numbers with this mean and standard deviation, so that no energy is negative (Delphes)."""
    width2 = np.log1p((sigma / mean) ** 2)
    return np.exp(np.log(mean) - width2 / 2 + np.sqrt(width2) * rng.standard_normal(len(mean)))


def deposit(
    calorimeter: Calorimeter, particles: Particles, fraction: np.ndarray, kind: np.ndarray, rng: np.random.Generator
) -> tuple[Objects, np.ndarray]:
    """A ``fraction`` (n,) of each particle's energy into smeared massless towers, at random places in their cells.

    The ``share`` of a tower is that of its true energy from particles of a ``kind`` (mask). Also the tower that each
    particle hit, -1: below threshold or outside.
    """
    use = np.flatnonzero((fraction > 0) & (particles.energy > 0))
    cell, position = _cells(calorimeter, particles.event[use], particles.eta[use], particles.phi[use])
    inside = np.flatnonzero(cell >= 0)
    _, first, tower = np.unique(cell[inside], return_index=True, return_inverse=True)
    n_towers, use = len(first), use[inside]
    energy = particles.energy[use] * fraction[use]
    true_energy = np.bincount(tower, weights=energy, minlength=n_towers)
    share = np.bincount(tower, weights=energy * kind[use], minlength=n_towers) / true_energy
    low_eta, d_eta, low_phi, d_phi = position[:, inside[first]]
    tower_eta = low_eta + d_eta * rng.random(n_towers)
    tower_phi = low_phi + d_phi * rng.random(n_towers)
    # The centre decides the resolution region: |eta| 3.2 is a cell edge, give or take one cell.
    centre = low_eta + d_eta / 2
    measured = log_normal(true_energy, energy_sigma(calorimeter, true_energy, centre), rng)
    sigma = energy_sigma(calorimeter, measured, centre)
    kept = (measured > calorimeter.min_energy) & (measured > calorimeter.min_significance * sigma)
    number, tower_of = np.where(kept, np.cumsum(kept) - 1, -1), np.full(len(fraction), -1)
    tower_of[use] = number[tower]
    pt = measured / np.cosh(tower_eta)
    towers = Objects(particles.event[use[first]], pt, tower_eta, tower_phi, tower=number, share=share)
    return towers.take(kept), tower_of


def _cells(
    calorimeter: Calorimeter, event: np.ndarray, eta: np.ndarray, phi: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Number of each particle's cell (-1 outside), and (low eta, width, low phi, width), mirrored at negative eta."""
    edges = np.array([0.0, *(region.eta for region in calorimeter.cells)])
    d_eta, d_phi = (
        np.array([getattr(region, name) for region in calorimeter.cells], dtype=float)
        for name in ("d_eta", "d_phi_degrees")
    )
    columns = np.ceil(np.diff(edges) / d_eta - 1e-9).astype(np.int64)
    offset = np.concatenate([[0], np.cumsum(columns)])
    abs_eta, side = np.abs(eta), np.where(eta < 0, -1.0, 1.0)
    inside = abs_eta < edges[-1]
    region = np.minimum(np.searchsorted(edges, abs_eta, "right") - 1, len(columns) - 1)
    column = np.where(inside, (abs_eta - edges[region]) / d_eta[region], 0).astype(np.int64)
    width_phi = np.deg2rad(d_phi[region])
    row = np.floor((phi + np.pi) / width_phi).astype(np.int64)
    number = ((event * 2 + (side < 0)) * offset[-1] + offset[region] + column) * 361 + row
    position = np.stack(
        [side * (edges[region] + column * d_eta[region]), side * d_eta[region], row * width_phi - np.pi, width_phi]
    )
    return np.where(inside, number, -1), position
