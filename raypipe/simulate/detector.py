"""From stable particles to photons, leptons, towers and missing momentum (formulas of Delphes, see the card).

Not modelled: magnetic bending, photon conversions, charge, tau leptons, pile-up (but see ``met_smearing``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raypipe.simulate.calorimeter import (
    ELECTRON,
    MUON,
    PHOTON,
    Towers,
    electromagnetic_towers,
    energy_sigma,
    hadronic_towers,
    log_normal,
    visible,
)
from raypipe.simulate.card import Card, Identification, MomentumResolution, by_region, step_efficiency
from raypipe.simulate.particles import Particles
from raypipe.simulate.ragged import delta_r, same_event_pairs, sum_by_event

_NEUTRAL_HADRONS = (130, 310, 2112, 3122, 3322)


@dataclass(frozen=True)
class Candidates:
    """Reconstructed massless objects, flat and sorted by event; GeV, radians."""

    event: np.ndarray
    pt: np.ndarray
    eta: np.ndarray
    phi: np.ndarray
    tower: np.ndarray
    """Index of the ECal tower that is this object, -1 if none."""

    def __len__(self) -> int:
        return len(self.pt)

    def select(self, mask: np.ndarray) -> Candidates:
        """The candidates where ``mask`` holds."""
        return Candidates(*(getattr(self, name)[mask] for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Reconstructed:
    """Everything the detector tells about a batch."""

    n_events: int
    photons: Candidates
    electrons: Candidates
    muons: Candidates
    """Identified and isolated."""
    other_muons: Candidates
    """Muon tracks that are not: they count in jets and missing momentum."""
    ecal: Towers
    hcal: Towers
    met_x: np.ndarray
    met_y: np.ndarray
    """Missing transverse momentum of each event, before any selection of photons."""


def reconstruct(
    particles: Particles, card: Card, rng: np.random.Generator, *, met_smearing: float = 0.0
) -> Reconstructed:
    """Detector response to a batch.

    Args:
        met_smearing: GeV, Gaussian width added to each component of the missing momentum.
    """
    kind, abs_eta = np.abs(particles.pdg), np.abs(particles.eta)
    track = rng.random(len(kind)) < track_efficiency(kind, abs_eta, particles.pt, card)

    ecal, ecal_particles = electromagnetic_towers(particles, card, rng)
    hcal = hadronic_towers(particles, card, track, rng)
    tower_of = np.full(len(kind), -1)
    tower_of[ecal_particles] = ecal.cell_of

    electron_tracks = lepton_tracks(particles, np.flatnonzero(track & (kind == ELECTRON)), tower_of, card, rng)
    muon_tracks = lepton_tracks(particles, np.flatnonzero(track & (kind == MUON)), tower_of, card, rng, muon=True)

    from_electron = np.zeros(len(ecal), dtype=bool)
    from_electron[electron_tracks.tower[electron_tracks.tower >= 0]] = True
    isolation = isolation_flow(particles, track & ~np.isin(kind, (ELECTRON, MUON)), ecal, from_electron, hcal, card)

    bright = np.flatnonzero((ecal.shares[:, 0] > card.photon_ecal_fraction) & ~from_electron)
    photons = Candidates(ecal.event[bright], ecal.pt[bright], ecal.eta[bright], ecal.phi[bright], bright)
    photons = photons.select(identified(photons, card.photon, isolation, card, rng))
    electrons = electron_tracks.select(identified(electron_tracks, card.electron, isolation, card, rng))
    good_muon = identified(muon_tracks, card.muon, isolation, card, rng)

    met_x, met_y = _missing(particles.n_events, ecal, hcal, electrons, muon_tracks)
    met_x = met_x + met_smearing * rng.standard_normal(particles.n_events)
    met_y = met_y + met_smearing * rng.standard_normal(particles.n_events)
    return Reconstructed(
        n_events=particles.n_events,
        photons=photons,
        electrons=electrons,
        muons=muon_tracks.select(good_muon),
        other_muons=muon_tracks.select(~good_muon),
        ecal=ecal,
        hcal=hcal,
        met_x=met_x,
        met_y=met_y,
    )


def track_efficiency(kind: np.ndarray, abs_eta: np.ndarray, pt: np.ndarray, card: Card) -> np.ndarray:
    """Probability of a track; zero for neutral and invisible particles."""
    efficiency = np.zeros(len(kind))
    charged_hadron = visible(kind) & (kind != ELECTRON) & (kind != PHOTON) & ~np.isin(kind, _NEUTRAL_HADRONS)
    for mask, curve in (
        (charged_hadron, card.tracks.hadron),
        (kind == ELECTRON, card.tracks.electron),
        (kind == MUON, card.tracks.muon),
    ):
        efficiency[mask] = step_efficiency(curve, abs_eta[mask], pt[mask])
    return np.where(abs_eta < card.tracks.eta, efficiency, 0.0)


def momentum_sigma(regions: list[MomentumResolution], pt: np.ndarray, eta: np.ndarray) -> np.ndarray:
    """Relative resolution sigma_pT / pT of a track."""
    constant, slope = by_region(regions, np.abs(eta), "constant", "slope")
    return np.hypot(constant, slope * pt)


def lepton_tracks(
    particles: Particles,
    use: np.ndarray,
    tower_of: np.ndarray,
    card: Card,
    rng: np.random.Generator,
    *,
    muon: bool = False,
) -> Candidates:
    """Tracks of electrons or muons with smeared momentum; electrons combine the track with the ECal."""
    pt, eta = particles.pt[use], particles.eta[use]
    if muon:
        sigma = momentum_sigma(card.muon_momentum, pt, eta)
    else:
        energy = particles.energy[use]
        track = momentum_sigma(card.electron_momentum, pt, eta)
        calorimeter = energy_sigma(card.ecal, energy, eta) / energy
        product = track * calorimeter
        sigma = np.divide(product, np.hypot(track, calorimeter), out=np.zeros_like(pt), where=product > 0)
    measured = log_normal(pt, np.minimum(sigma, 1.0) * pt, rng)
    return Candidates(particles.event[use], measured, eta, particles.phi[use], tower_of[use])


@dataclass(frozen=True)
class _Flow:
    """Momentum that counts against isolation, sorted by event."""

    event: np.ndarray
    pt: np.ndarray
    eta: np.ndarray
    phi: np.ndarray
    tower: np.ndarray


def isolation_flow(
    particles: Particles, tracks: np.ndarray, ecal: Towers, from_electron: np.ndarray, hcal: Towers, card: Card
) -> _Flow:
    """Charged-hadron tracks, photons (ECal towers without electrons), and the track-less part of the HCal towers."""
    charged = np.flatnonzero(tracks & (particles.pt > card.isolation_min_pt))
    photon = np.flatnonzero(~from_electron & (ecal.pt > card.isolation_min_pt))
    neutral_pt = hcal.pt * hcal.shares[:, 0]
    neutral = np.flatnonzero(neutral_pt > card.isolation_min_pt)
    none = np.full(len(charged) + len(neutral), -1)
    columns = [
        np.concatenate([particles.event[charged], hcal.event[neutral], ecal.event[photon]]),
        np.concatenate([particles.pt[charged], neutral_pt[neutral], ecal.pt[photon]]),
        np.concatenate([particles.eta[charged], hcal.eta[neutral], ecal.eta[photon]]),
        np.concatenate([particles.phi[charged], hcal.phi[neutral], ecal.phi[photon]]),
        np.concatenate([none, photon]),
    ]
    order = np.argsort(columns[0], kind="stable")
    return _Flow(*(column[order] for column in columns))


def identified(
    candidates: Candidates, cuts: Identification, flow: _Flow, card: Card, rng: np.random.Generator
) -> np.ndarray:
    """Mask of candidates that are hard, central, identified and isolated."""
    (efficiency,) = by_region(cuts.efficiency, np.abs(candidates.eta), "value")
    passed = (rng.random(len(candidates)) < efficiency) & (candidates.pt > cuts.min_pt)
    # Isolation is the costly part: only for those still in.
    left = np.flatnonzero(passed)
    i, j = same_event_pairs(candidates.event[left], flow.event)
    i = left[i]
    near = delta_r(candidates.eta[i], candidates.phi[i], flow.eta[j], flow.phi[j]) < card.isolation_cone
    own = (candidates.tower[i] >= 0) & (candidates.tower[i] == flow.tower[j])
    around = np.bincount(i, weights=np.where(near & ~own, flow.pt[j], 0.0), minlength=len(candidates))
    return passed & (around < cuts.max_isolation * candidates.pt)


def _missing(
    n_events: int, ecal: Towers, hcal: Towers, electrons: Candidates, muons: Candidates
) -> tuple[np.ndarray, np.ndarray]:
    """Minus the vector sum of towers, electrons (in place of their tower) and muon tracks."""
    is_electron = np.zeros(len(ecal), dtype=bool)
    is_electron[electrons.tower[electrons.tower >= 0]] = True
    other = ~is_electron
    event = np.concatenate([ecal.event[other], hcal.event, electrons.event, muons.event])
    pt = np.concatenate([ecal.pt[other], hcal.pt, electrons.pt, muons.pt])
    phi = np.concatenate([ecal.phi[other], hcal.phi, electrons.phi, muons.phi])
    return (
        -sum_by_event(event, pt * np.cos(phi), n_events),
        -sum_by_event(event, pt * np.sin(phi), n_events),
    )
