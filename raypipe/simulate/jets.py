"""Jets of the selected events: anti-kT, energy scale, N-subjettiness, flavour tags."""

from dataclasses import replace

import awkward as ak
import numpy as np

from raypipe.events.clustering import cluster, momenta, subjettiness
from raypipe.events.objects import NO_OBJECTS, Objects, delta_r, polar, ratio, same_event_pairs
from raypipe.simulate.calorimeter import MUON, NEUTRINOS, PHOTON
from raypipe.simulate.card import BTag, Card, FatJets, Scale, TagCurve
from raypipe.simulate.detector import Reconstructed
from raypipe.simulate.particles import Particles

MUON_MASS = 0.1057

MIN_CLUSTER_PT = 10.0  # GeV, softest jet asked of fastjet before the energy scale, which is below 1.4 there


def jet_input(seen: Reconstructed, events: np.ndarray) -> ak.Array:
    """Four-momenta [GeV] to cluster, a list for each of the selected ``events``: towers and non-isolated muons.

    Photons, of which the pair's would tell m_yy, and the selected electrons are taken out before: Delphes, too, drops
    jets that are one of them (its UniqueObjectFinder).
    """
    free = np.ones(len(seen.ecal), dtype=bool)
    free[seen.photons.tower] = False
    free[seen.electrons.tower[seen.electrons.tower >= 0]] = False
    parts = (seen.ecal.take(free), 0.0), (seen.hcal, 0.0), (seen.other_muons, MUON_MASS)
    given = Objects.together(*(replace(part, mass=np.full(len(part), mass)) for part, mass in parts))
    given = given.of_events(events, seen.n_events)
    pt, eta, phi = given.pt, given.eta, given.phi
    energy = np.hypot(pt * np.cosh(eta), given.mass)
    counts = np.bincount(given.event, minlength=len(events))
    return momenta(counts, pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta), energy)


def _objects(found: ak.Array) -> Objects:
    """Clustered jets, flat."""
    event = np.repeat(np.arange(len(found)), ak.num(found.px).to_numpy())
    px, py, pz, energy = (ak.flatten(found[name]).to_numpy() for name in ("px", "py", "pz", "E"))
    pt, eta, phi = polar(px, py, pz)
    return Objects(event, pt, eta, phi, np.sqrt(np.maximum(energy**2 - pt**2 - pz**2, 0.0)))


def jet_scale(scale: Scale, pt: np.ndarray, eta: np.ndarray) -> np.ndarray:
    """Factor on a jet's four-momentum: sqrt((a - b |eta|)^2 / pT + 1)."""
    return np.sqrt((scale.a - scale.b * np.abs(eta)) ** 2 / pt + 1.0)


def small_jets(
    given: ak.Array, particles: Particles, events: np.ndarray, card: Card, rng: np.random.Generator
) -> Objects:
    """Anti-kT jets with energy scale and b-tag score; ``particles`` and ``events`` give the truth labels."""
    if not len(given):
        return NO_OBJECTS
    jets = _objects(cluster(given, card.jets.radius, MIN_CLUSTER_PT)[0])
    scale = jet_scale(card.jets.scale, jets.pt, jets.eta)
    jets = replace(jets, pt=jets.pt * scale, mass=jets.mass * scale)
    jets = jets.take((jets.pt > card.jets.min_pt) & (np.abs(jets.eta) < card.jets.max_eta))
    flavour = jet_flavour(events[jets.event], jets.eta, jets.phi, particles, card.btag)
    return replace(jets, btag=btag_score(flavour, jets.pt, jets.eta, card.btag, rng))


def fat_jets(given: ak.Array, settings: FatJets) -> Objects:
    """Ungroomed large-radius jets with N-subjettiness ratios; they have no b-tag."""
    # Few events can hold one: the scalar sum of pT bounds any jet's.
    able = np.flatnonzero(ak.sum(np.hypot(given.px, given.py), axis=1).to_numpy() > settings.min_pt)
    if not len(able):
        return NO_OBJECTS
    given = given[able]
    found, sequence = cluster(given, settings.radius, settings.min_pt)
    jets = _objects(found)
    if not len(jets):
        return NO_OBJECTS
    tau = subjettiness(given, sequence.constituent_index(settings.min_pt), settings.radius, (2, 3, 4)).T
    jets = replace(jets, event=able[jets.event], tau32=ratio(tau[1], tau[0]), tau43=ratio(tau[2], tau[1]))
    return jets.take(np.abs(jets.eta) < settings.max_eta)


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
    return polar(px, py, pz)[1:]


def jets_as_photons(particles: Particles, eta: np.ndarray, phi: np.ndarray, rng: np.random.Generator) -> Particles:
    """Replace, in every event, what is visible within `CONE` of a jet by one photon with a share of its momentum.

    ``eta``, ``phi`` (n_events,) of the jet are moved once onto the visible momentum around it, if there is any.
    """
    visible = ~np.isin(np.abs(particles.pdg), (*NEUTRINOS, MUON))
    for _ in range(2):  # find the jet around the parton, then around itself
        near = visible & (delta_r(particles.eta, particles.phi, eta[particles.event], phi[particles.event]) < CONE)
        event, pt, phis, etas = (getattr(particles, name)[near] for name in ("event", "pt", "phi", "eta"))
        ways = np.cos(phis), np.sin(phis), np.sinh(etas)
        found, *place = polar(*(np.bincount(event, pt * way, particles.n_events) for way in ways))
        eta, phi = (np.where(found > 0, new, old) for new, old in zip(place, (eta, phi), strict=True))
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
