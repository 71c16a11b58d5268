"""Calorimeter towers: energy shared into cells, smeared, zero-suppressed."""

from dataclasses import dataclass

import numpy as np

from raypipe.events.objects import Objects
from raypipe.simulate.card import Calorimeter, Card, by_region
from raypipe.simulate.particles import Particles

NEUTRINOS = (12, 14, 16)
ELECTRON, MUON, PHOTON = 11, 13, 22
LONG_LIVED = (310, 3122)  # K0S and Lambda, which decay inside the calorimeters

FIRST_EXOTIC = 1_000_000  # PDG ids from here on are new particles; a stable one is taken to be invisible


@dataclass(frozen=True)
class Towers:
    """Calorimeter towers above threshold, flat and sorted by event; massless, GeV and radians.

    ``shares``: (n, k), of the true energy, from each of k kinds of particles (see `deposit`). ``cell_of``: index of the
    tower hit by each deposited particle, -1: below threshold or outside.
    """

    event: np.ndarray
    pt: np.ndarray
    eta: np.ndarray
    phi: np.ndarray
    shares: np.ndarray
    cell_of: np.ndarray

    def __len__(self) -> int:
        return len(self.pt)

    @property
    def objects(self) -> Objects:
        """The towers as massless objects."""
        return Objects(self.event, self.pt, self.eta, self.phi, tower=np.arange(len(self)))


def visible(pdg: np.ndarray) -> np.ndarray:
    """True for particles that leave energy in a calorimeter: not neutrinos, muons or stable new particles."""
    pdg = np.abs(pdg)
    return ~np.isin(pdg, (*NEUTRINOS, MUON)) & (pdg < FIRST_EXOTIC)


def ecal_fraction(pdg: np.ndarray, card: Card) -> np.ndarray:
    """Share of a particle's energy that the electromagnetic calorimeter sees; the rest is hadronic."""
    pdg = np.abs(pdg)
    fraction = np.where(np.isin(pdg, (ELECTRON, PHOTON)), 1.0, 0.0)
    return np.where(np.isin(pdg, LONG_LIVED), card.long_lived_ecal_fraction, fraction)


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
    calorimeter: Calorimeter,
    event: np.ndarray,
    energy: np.ndarray,
    eta: np.ndarray,
    phi: np.ndarray,
    kinds: np.ndarray,
    rng: np.random.Generator,
) -> Towers:
    """Particles (flat arrays, ``kinds``: (k, n) of 0/1 marks) into smeared towers, at random places in their cells."""
    cell, position = _cells(calorimeter, event, eta, phi)
    inside = np.flatnonzero(cell >= 0)
    _, first, tower = np.unique(cell[inside], return_index=True, return_inverse=True)
    n_towers = len(first)
    weights = energy[inside]
    true_energy = np.bincount(tower, weights=weights, minlength=n_towers)
    shares = np.stack(
        [np.bincount(tower, weights=weights * kind[inside], minlength=n_towers) / true_energy for kind in kinds], axis=1
    )
    low_eta, d_eta, low_phi, d_phi = position[:, inside[first]]
    tower_eta = low_eta + d_eta * rng.random(n_towers)
    tower_phi = low_phi + d_phi * rng.random(n_towers)
    # The centre decides the resolution region: |eta| 3.2 is a cell edge, give or take one cell.
    centre = low_eta + d_eta / 2
    measured = log_normal(true_energy, energy_sigma(calorimeter, true_energy, centre), rng)
    sigma = energy_sigma(calorimeter, measured, centre)
    kept = (measured > calorimeter.min_energy) & (measured > calorimeter.min_significance * sigma)
    index = np.where(kept, np.cumsum(kept) - 1, -1)
    cell_of = np.full(len(event), -1)
    cell_of[inside] = index[tower]
    return Towers(
        event=event[inside[first]][kept],
        pt=(measured / np.cosh(tower_eta))[kept],
        eta=tower_eta[kept],
        phi=tower_phi[kept],
        shares=shares[kept],
        cell_of=cell_of,
    )


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


def electromagnetic_towers(particles: Particles, card: Card, rng: np.random.Generator) -> tuple[Towers, np.ndarray]:
    """ECal towers, kinds: photons; and the tower (or -1) that each particle hit."""
    fraction = np.where(visible(particles.pdg), ecal_fraction(particles.pdg, card), 0.0)
    towers, use = _deposited(card.ecal, particles, fraction, particles.pdg == PHOTON, rng)
    tower_of = np.full(len(fraction), -1)
    tower_of[use] = towers.cell_of
    return towers, tower_of


def hadronic_towers(particles: Particles, card: Card, tracked: np.ndarray, rng: np.random.Generator) -> Towers:
    """HCal towers; kinds: hadrons without a track (``tracked`` marks the particles with one)."""
    fraction = np.where(visible(particles.pdg), 1.0 - ecal_fraction(particles.pdg, card), 0.0)
    return _deposited(card.hcal, particles, fraction, ~tracked, rng)[0]


def _deposited(
    calorimeter: Calorimeter, particles: Particles, fraction: np.ndarray, kind: np.ndarray, rng: np.random.Generator
) -> tuple[Towers, np.ndarray]:
    """Towers of a ``fraction`` of each particle's energy, and the particles that have one."""
    use = np.flatnonzero((fraction > 0) & (particles.energy > 0))
    energy, eta, phi = particles.energy[use] * fraction[use], particles.eta[use], particles.phi[use]
    return deposit(calorimeter, particles.event[use], energy, eta, phi, kind[None, use], rng), use
