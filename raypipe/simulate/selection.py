"""The papers' diphoton selection (hep-lbdl/EventGen, 2025-08 and 2026-02) and ATLAS's own 0.35/0.25, with cut flow."""

from dataclasses import dataclass, field

import numpy as np

from raypipe.events.objects import Objects, order_and_rank

H_MASS = 125.0  # GeV, the mass nearest to which a pair is chosen

CANDIDATES = 3  # Leading photons that a pair is chosen from


@dataclass(frozen=True)
class Cuts:
    """Cuts of the diphoton selection, GeV: pT above which two photons, or one alone, fire the trigger.

    ``relative``: smallest pT / m_yy of the two. ``window``: open interval of m_yy.
    """

    trigger_pair: tuple[float, float] = (35.0, 25.0)
    trigger_single: float = 140.0
    relative: tuple[float, float] = (0.4, 0.3)
    window: tuple[float, float] = (105.0, 160.0)


PAPER = Cuts()
ATLAS = Cuts(relative=(0.35, 0.25))

STEPS = ("generated", "two_photons", "trigger", "relative_pt", "mass_window")  # Names of the cut flow, in order


@dataclass(frozen=True)
class Diphotons:
    """The selected events' photon pairs; arrays of (n,) or (n, 2), leading photon first."""

    event: np.ndarray
    pt: np.ndarray
    eta: np.ndarray
    phi: np.ndarray
    mass: np.ndarray
    pair_pt: np.ndarray
    pair_phi: np.ndarray
    n_photon: np.ndarray
    cut_flow: dict[str, int] = field(default_factory=dict)


def select(photons: Objects, n_events: int, cuts: Cuts = PAPER) -> Diphotons:
    """Choose the pair of each event (of three leading photons, nearest 125 GeV: paper C) and apply ``cuts``."""
    order, rank = order_and_rank(photons.event, photons.pt)
    order, rank = order[rank < CANDIDATES], rank[rank < CANDIDATES]
    dense = np.full((n_events, CANDIDATES), -1)
    dense[photons.event[order], rank] = order
    n_photon = np.bincount(photons.event, minlength=n_events)
    events = np.flatnonzero(n_photon >= 2)
    flow = {"generated": n_events, "two_photons": len(events)}
    pairs = np.array([(0, 1), (0, 2), (1, 2)])
    choices = dense[events][:, pairs]  # (n, 3 pairs, 2 photons)
    exists = choices.min(axis=2) >= 0
    mass = _mass(photons, choices)
    best = np.argmin(np.where(exists, np.abs(mass - H_MASS), np.inf), axis=1)
    rows = np.arange(len(events))
    pair, mass = choices[rows, best], mass[rows, best]
    pt = photons.pt[pair]
    trigger = ((pt[:, 0] > cuts.trigger_pair[0]) & (pt[:, 1] > cuts.trigger_pair[1])) | (pt[:, 0] > cuts.trigger_single)
    relative = trigger & (pt[:, 0] > cuts.relative[0] * mass) & (pt[:, 1] > cuts.relative[1] * mass)
    kept = relative & (mass > cuts.window[0]) & (mass < cuts.window[1])
    flow |= {"trigger": int(trigger.sum()), "relative_pt": int(relative.sum()), "mass_window": int(kept.sum())}
    events, pair, mass, pt = events[kept], pair[kept], mass[kept], pt[kept]
    eta, phi = photons.eta[pair], photons.phi[pair]
    px, py = (pt * np.cos(phi)).sum(axis=1), (pt * np.sin(phi)).sum(axis=1)
    pair_pt, pair_phi = np.hypot(px, py), np.arctan2(py, px)
    return Diphotons(events, pt, eta, phi, mass, pair_pt, pair_phi, n_photon[events], flow)


def _mass(photons: Objects, pairs: np.ndarray) -> np.ndarray:
    """Invariant mass of massless pairs (..., 2): m^2 = 2 pT1 pT2 (cosh d_eta - cos d_phi)."""
    pt, eta, phi = photons.pt[pairs], photons.eta[pairs], photons.phi[pairs]
    deta, dphi = eta[..., 0] - eta[..., 1], phi[..., 0] - phi[..., 1]
    return np.sqrt(np.maximum(2 * pt[..., 0] * pt[..., 1] * (np.cosh(deta) - np.cos(dphi)), 0.0))
