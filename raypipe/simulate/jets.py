"""Jets of the selected events: anti-kT, energy scale, N-subjettiness, flavour tags."""

from __future__ import annotations

from dataclasses import dataclass

import awkward as ak
import fastjet
import numpy as np

from raypipe.simulate.card import BTag, Card, FatJets, Scale, TagCurve
from raypipe.simulate.detector import Candidates, Reconstructed
from raypipe.simulate.particles import Particles
from raypipe.simulate.ragged import delta_r, same_event_pairs, sum_by_event

MUON_MASS = 0.1057

MIN_CLUSTER_PT = 10.0
"""GeV, softest jet asked of fastjet before the energy scale, which is below 1.4 there."""


@dataclass(frozen=True)
class JetInput:
    """What is clustered: flat four-momenta sorted by event (renumbered 0..n_events-1), GeV."""

    n_events: int
    event: np.ndarray
    px: np.ndarray
    py: np.ndarray
    pz: np.ndarray
    energy: np.ndarray


@dataclass(frozen=True)
class JetList:
    """Jets, flat; GeV, radians."""

    event: np.ndarray
    pt: np.ndarray
    eta: np.ndarray
    phi: np.ndarray
    mass: np.ndarray
    btag: np.ndarray
    tau32: np.ndarray
    tau43: np.ndarray

    def __len__(self) -> int:
        return len(self.pt)


def jet_input(seen: Reconstructed, events: np.ndarray, photon_towers: np.ndarray) -> JetInput:
    """Towers and non-isolated muons of the selected ``events``.

    The pair's photons (``photon_towers``) and the selected electrons are taken out before clustering: a jet with a
    photon of the pair in it would tell m_yy. A third photon stays in, as the electromagnetic jet that it is.
    """
    new = np.full(seen.n_events, -1)
    new[events] = np.arange(len(events))
    ecal_kept = new[seen.ecal.event] >= 0
    ecal_kept[photon_towers.ravel()] = False
    ecal_kept[seen.electrons.tower[seen.electrons.tower >= 0]] = False
    hcal_kept = new[seen.hcal.event] >= 0
    muons = seen.other_muons.select(new[seen.other_muons.event] >= 0)

    def joined(name: str) -> np.ndarray:
        return np.concatenate(
            [getattr(seen.ecal, name)[ecal_kept], getattr(seen.hcal, name)[hcal_kept], getattr(muons, name)]
        )

    event, pt, eta, phi = new[joined("event")], joined("pt"), joined("eta"), joined("phi")
    mass = np.concatenate([np.zeros(ecal_kept.sum() + hcal_kept.sum()), np.full(len(muons), MUON_MASS)])
    order = np.argsort(event, kind="stable")
    event, pt, eta, phi, mass = (column[order] for column in (event, pt, eta, phi, mass))
    momentum = pt * np.cosh(eta)
    return JetInput(len(events), event, pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta), np.hypot(momentum, mass))


def _clusters(given: JetInput, radius: float) -> tuple[fastjet.ClusterSequence, ak.Array]:
    momenta = ak.zip({"px": given.px, "py": given.py, "pz": given.pz, "E": given.energy}, with_name="Momentum4D")
    counts = np.bincount(given.event, minlength=given.n_events)
    momenta = ak.unflatten(momenta, counts)
    return fastjet.ClusterSequence(momenta, fastjet.JetDefinition(fastjet.antikt_algorithm, radius)), momenta


def _kinematics(found: ak.Array) -> tuple[np.ndarray, ...]:
    """Event, pt, eta, phi, mass of clustered jets."""
    event = np.repeat(np.arange(len(found)), ak.num(found.px).to_numpy())
    px, py, pz, energy = (ak.flatten(found[name]).to_numpy() for name in ("px", "py", "pz", "E"))
    pt = np.hypot(px, py)
    mass = np.sqrt(np.maximum(energy**2 - pt**2 - pz**2, 0.0))
    return event, pt, np.arcsinh(pz / pt), np.arctan2(py, px), mass


def jet_scale(scale: Scale, pt: np.ndarray, eta: np.ndarray) -> np.ndarray:
    """Factor on a jet's four-momentum: sqrt((a - b |eta|)^2 / pT + 1)."""
    return np.sqrt((scale.a - scale.b * np.abs(eta)) ** 2 / pt + 1.0)


def small_jets(
    given: JetInput, particles: Particles, events: np.ndarray, card: Card, rng: np.random.Generator
) -> JetList:
    """Anti-kT jets with energy scale and b-tag score; ``particles`` and ``events`` give the truth labels."""
    if not given.n_events:
        return _no_jets()
    sequence, _ = _clusters(given, card.jets.radius)
    event, pt, eta, phi, mass = _kinematics(sequence.inclusive_jets(MIN_CLUSTER_PT))
    scale = jet_scale(card.jets.scale, pt, eta)
    pt, mass = pt * scale, mass * scale
    kept = (pt > card.jets.min_pt) & (np.abs(eta) < card.jets.max_eta)
    event, pt, eta, phi, mass = (column[kept] for column in (event, pt, eta, phi, mass))
    flavour = jet_flavour(events[event], eta, phi, particles, card.btag)
    zero = np.zeros(len(pt))
    return JetList(event, pt, eta, phi, mass, btag_score(flavour, pt, eta, card.btag, rng), zero, zero)


def fat_jets(given: JetInput, settings: FatJets) -> JetList:
    """Ungroomed large-radius jets with N-subjettiness ratios (beta = 1, one-pass kT axes); their b-tag is zero."""
    # Few events can hold one: the scalar sum of pT bounds any jet's.
    total = sum_by_event(given.event, np.hypot(given.px, given.py), given.n_events)
    able = np.flatnonzero(total > settings.min_pt)
    if not len(able):
        return _no_jets()
    number = np.full(given.n_events, -1)
    number[able] = np.arange(len(able))
    kept = number[given.event] >= 0
    columns = (column[kept] for column in (given.px, given.py, given.pz, given.energy))
    sequence, momenta = _clusters(JetInput(len(able), number[given.event[kept]], *columns), settings.radius)
    event, pt, eta, phi, mass = _kinematics(sequence.inclusive_jets(settings.min_pt))
    if not len(pt):
        return _no_jets()
    indices = sequence.constituent_index(settings.min_pt)
    # One "event" a fat jet: all N-subjettinesses in one call.
    sizes = ak.flatten(ak.num(indices, axis=2)).to_numpy()
    members = ak.unflatten(ak.flatten(momenta[ak.flatten(indices, axis=2)]), sizes)
    tau = n_subjettiness(members, settings.radius)
    kept = np.abs(eta) < settings.max_eta
    return JetList(
        able[event][kept],
        pt[kept],
        eta[kept],
        phi[kept],
        mass[kept],
        np.zeros(kept.sum()),
        _ratio(tau[:, 2], tau[:, 1])[kept],
        _ratio(tau[:, 3], tau[:, 2])[kept],
    )


def n_subjettiness(members: ak.Array, radius: float) -> np.ndarray:
    """tau_1..tau_4 (n, 4) of n jets given by their constituents (records px, py, pz, E)."""
    sequence = fastjet.ClusterSequence(members, fastjet.JetDefinition(fastjet.antikt_algorithm, radius))
    tau = sequence.njettiness(
        measure_definition="NormalizedMeasure",
        axes_definition="OnePass_KT_Axes",
        njets=[1, 2, 3, 4],
        beta=1.0,
        R0=radius,
    )
    return ak.to_numpy(tau)


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """top / bottom in [0, 1], zero where the jet has too few constituents for it to mean anything."""
    ratio = np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 1e-9)
    return np.clip(np.nan_to_num(ratio, nan=0.0, posinf=0.0, neginf=0.0), 0.0, 1.0)


def _no_jets() -> JetList:
    return JetList(np.empty(0, dtype=np.int64), *(np.empty(0) for _ in range(7)))


def jet_flavour(event: np.ndarray, eta: np.ndarray, phi: np.ndarray, particles: Particles, tagger: BTag) -> np.ndarray:
    """5, 4 or 0: a bottom hadron, else a charm hadron, else none within the cone."""
    i, j = same_event_pairs(event, particles.hadron_event)
    near = delta_r(eta[i], phi[i], particles.hadron_eta[j], particles.hadron_phi[j]) < tagger.cone
    flavour = np.zeros(len(eta), dtype=np.int64)
    np.maximum.at(flavour, i[near], np.where(particles.hadron_bottom[j[near]], 5, 4))
    return flavour


def btag_efficiency(flavour: np.ndarray, pt: np.ndarray, tagger: BTag) -> np.ndarray:
    """Probability of a b-tag for bottom (5), charm (4) and light (0) jets."""

    def curve(c: TagCurve) -> np.ndarray:
        return c.height * np.tanh(c.slope * pt) * c.scale / (1 + c.falloff * pt)

    light = tagger.light.constant + tagger.light.slope * pt
    return np.select([flavour == 5, flavour == 4], [curve(tagger.bottom), curve(tagger.charm)], light)


def btag_score(
    flavour: np.ndarray, pt: np.ndarray, eta: np.ndarray, tagger: BTag, rng: np.random.Generator
) -> np.ndarray:
    """Continuous score in [0, 1], above 0.5 with the efficiency; zero outside the tracker."""
    tagged = rng.random(len(pt)) < btag_efficiency(flavour, pt, tagger)
    uniform = rng.random(len(pt))
    high = 0.5 + 0.5 * uniform ** (1 / tagger.tagged_power)  # Beta(power, 1) by inversion
    low = 0.5 * (1 - (1 - uniform) ** (1 / tagger.untagged_power))  # Beta(1, power)
    return np.where(np.abs(eta) < tagger.eta, np.clip(np.where(tagged, high, low), 0.0, 1.0), 0.0)


def leptons_in(candidates: Candidates, seen: Reconstructed, events: np.ndarray) -> Candidates:
    """The candidates of the selected ``events``, renumbered like the jets."""
    new = np.full(seen.n_events, -1)
    new[events] = np.arange(len(events))
    kept = candidates.select(new[candidates.event] >= 0)
    return Candidates(new[kept.event], kept.pt, kept.eta, kept.phi, kept.tower)
