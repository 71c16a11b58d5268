"""From stable particles to photons, leptons, towers and missing momentum (formulas of Delphes, see the card).

Not modelled: magnetic bending, photon conversions, charge, tau leptons, pile-up (but see ``met_smearing``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from raypipe.events.objects import Objects, delta_r, same_event_pairs
from raypipe.simulate.calorimeter import ELECTRON, MUON, PHOTON, deposit, energy_sigma, fractions, log_normal, visible
from raypipe.simulate.card import Card, Identification, MomentumResolution, by_region, step_efficiency
from raypipe.simulate.particles import Particles

_NEUTRAL_HADRONS = (130, 310, 2112, 3122, 3322)


@dataclass(frozen=True)
class Reconstructed:
    """Everything the detector tells about a batch; missing transverse momentum is that before any selection of photons.

    ``muons``: identified and isolated; ``other_muons``, tracks that are not, count in jets and missing momentum.
    """

    n_events: int
    photons: Objects
    electrons: Objects
    muons: Objects
    other_muons: Objects
    ecal: Objects
    hcal: Objects
    met_x: np.ndarray
    met_y: np.ndarray


@dataclass(frozen=True)
class Response:
    """What trackers and calorimeters tell of a batch, before anything is identified.

    ``muons``: tracks, with their ECal tower. ``from_electron``: mask of the ECal towers that an electron hit.
    ``around``: what counts against isolation: charged-hadron tracks, photons, and the track-less part of the HCal
    towers.
    """

    electrons: Objects
    muons: Objects
    ecal: Objects
    hcal: Objects
    from_electron: np.ndarray
    around: Objects

    @staticmethod
    def of(particles: Particles, card: Card, rng: np.random.Generator) -> Response:
        """Of the detector ``card``."""
        kind = np.abs(particles.pdg)
        track = rng.random(len(kind)) < track_efficiency(kind, np.abs(particles.eta), particles.pt, card)
        electromagnetic, hadronic = fractions(particles.pdg, card)
        ecal, tower_of = deposit(card.ecal, particles, electromagnetic, particles.pdg == PHOTON, rng)
        hcal, _ = deposit(card.hcal, particles, hadronic, ~track, rng)
        electrons, muons = (
            lepton_tracks(particles, np.flatnonzero(track & (kind == lepton)), tower_of, card, rng, muon=lepton == MUON)
            for lepton in (ELECTRON, MUON)
        )
        from_electron = np.zeros(len(ecal), dtype=bool)
        from_electron[electrons.tower[electrons.tower >= 0]] = True
        none = np.full(len(kind), -1), np.full(len(hcal), -1)
        hadrons = Objects(particles.event, particles.pt, particles.eta, particles.phi, tower=none[0])
        neutral = replace(hcal, pt=hcal.pt * hcal.share, tower=none[1])
        parts = (hadrons, track & ~np.isin(kind, (ELECTRON, MUON))), (neutral, True), (ecal, ~from_electron)
        around = Objects.together(*(part.take(mask & (part.pt > card.isolation_min_pt)) for part, mask in parts))
        return Response(electrons, muons, ecal, hcal, from_electron, around)


def reconstruct(
    particles: Particles, card: Card, rng: np.random.Generator, *, met_smearing: float = 0.0
) -> Reconstructed:
    """Detector response to a batch; ``met_smearing`` [GeV] is added to each component of the missing momentum."""
    n, seen = particles.n_events, Response.of(particles, card, rng)
    ecal = seen.ecal
    photons = ecal.take((ecal.share > card.photon_ecal_fraction) & ~seen.from_electron)
    photons = photons.take(identified(photons, card.photon, seen.around, card, rng))
    electrons = seen.electrons.take(identified(seen.electrons, card.electron, seen.around, card, rng))
    good = identified(seen.muons, card.muon, seen.around, card, rng)
    met_x, met_y = (
        missing + met_smearing * rng.standard_normal(n)
        for missing in _missing(n, ecal, seen.hcal, electrons, seen.muons)
    )
    muons, others = seen.muons.take(good), seen.muons.take(~good)
    return Reconstructed(n, photons, electrons, muons, others, ecal, seen.hcal, met_x, met_y)


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
) -> Objects:
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
    charge = -np.sign(particles.pdg[use])
    return Objects(particles.event[use], measured, eta, particles.phi[use], charge=charge, tower=tower_of[use])


def identified(
    candidates: Objects, cuts: Identification, flow: Objects, card: Card, rng: np.random.Generator
) -> np.ndarray:
    """Mask of candidates that are hard, central, identified and isolated from the ``flow`` around them."""
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


def _missing(n: int, ecal: Objects, hcal: Objects, electrons: Objects, muons: Objects) -> list[np.ndarray]:
    """x and y of minus the vector sum of towers, electrons (in place of their tower) and muon tracks, (n,) each."""
    other = np.ones(len(ecal), dtype=bool)
    other[electrons.tower[electrons.tower >= 0]] = False
    seen = Objects.together(ecal.take(other), hcal, electrons, muons)
    return [-np.bincount(seen.event, seen.pt * axis(seen.phi), n) for axis in (np.cos, np.sin)]
