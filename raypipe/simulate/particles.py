"""A Pythia batch as flat NumPy arrays: what reaches the detector and what truth labels need."""

from dataclasses import dataclass

import awkward as ak
import numpy as np

from raypipe.events.objects import polar

HADRON_MIN_PT = 5.0  # GeV, softest heavy hadron that labels a jet


@dataclass(frozen=True)
class Particles:
    """Stable particles of ``n_events`` events and their heavy hadrons, as flat arrays sorted by event; GeV, radians.

    ``pdg``: id. ``hadron_bottom``: of bottom and charm hadrons above `HADRON_MIN_PT`, True for bottom.
    """

    n_events: int
    event: np.ndarray
    pdg: np.ndarray
    pt: np.ndarray
    eta: np.ndarray
    phi: np.ndarray
    energy: np.ndarray
    hadron_event: np.ndarray
    hadron_eta: np.ndarray
    hadron_phi: np.ndarray
    hadron_bottom: np.ndarray


def has_quark(pdg: np.ndarray, flavour: int) -> np.ndarray:
    """True for hadrons whose heaviest valence quark is ``flavour`` (5 bottom, 4 charm); diquarks do not count."""
    pdg = np.abs(pdg)
    heaviest = np.where((pdg // 1000) % 10 > 0, (pdg // 1000) % 10, (pdg // 100) % 10)
    return (heaviest == flavour) & ((pdg // 10) % 10 > 0) & (pdg % 10 > 0) & (pdg < 1_000_000)


def flatten(batch: ak.Array) -> Particles:
    """The stable particles and heavy hadrons of a batch of `raypipe.simulate.generator.Generator.batches`."""
    particles = batch.prt
    n_events = len(particles)
    event = np.repeat(np.arange(n_events), ak.num(particles.id).to_numpy())
    pdg, status = _flat(particles.id), _flat(particles.status)
    px, py, pz, energy = (_flat(particles.p[name]) for name in ("px", "py", "pz", "e"))
    stable = np.flatnonzero(status > 0)
    pt, eta, phi = polar(px[stable], py[stable], pz[stable])
    # Digits are costly to take apart: only of the few ids that a heavy hadron may have.
    size = np.abs(pdg)
    maybe = np.flatnonzero((size > 400) & (size < 1_000_000))
    bottom = has_quark(pdg[maybe], 5)
    either = bottom | has_quark(pdg[maybe], 4)
    heavy, bottom = maybe[either], bottom[either]
    heavy_pt, heavy_eta, heavy_phi = polar(px[heavy], py[heavy], pz[heavy])
    hard = heavy_pt > HADRON_MIN_PT
    return Particles(
        n_events=n_events,
        event=event[stable],
        pdg=pdg[stable],
        pt=pt,
        eta=eta,
        phi=phi,
        energy=energy[stable],
        hadron_event=event[heavy[hard]],
        hadron_eta=heavy_eta[hard],
        hadron_phi=heavy_phi[hard],
        hadron_bottom=bottom[hard],
    )


def _flat(column: ak.Array) -> np.ndarray:
    return ak.flatten(column, axis=None).to_numpy()
