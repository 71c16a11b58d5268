"""Toy particles, an ideal detector and small helpers for the simulation tests."""

from __future__ import annotations

import numpy as np

from raypipe.events.objects import Objects
from raypipe.simulate.card import Card, load_card
from raypipe.simulate.particles import Particles


def particles(rows: list[tuple], n_events: int, hadrons: list[tuple] = ()) -> Particles:
    """Particles from rows (event, pdg, pt, eta, phi), massless; hadrons (event, eta, phi, is_bottom)."""
    event, pdg, pt, eta, phi = (np.array(column) for column in zip(*rows, strict=True))
    h = [np.array(column) for column in zip(*hadrons, strict=True)] if hadrons else [np.empty(0) for _ in range(4)]
    pt = pt.astype(float)
    return Particles(
        n_events=n_events,
        event=event,
        pdg=pdg,
        pt=pt,
        eta=eta.astype(float),
        phi=phi.astype(float),
        energy=pt * np.cosh(eta),
        hadron_event=h[0].astype(int),
        hadron_eta=h[1],
        hadron_phi=h[2],
        hadron_bottom=h[3].astype(bool),
    )


def candidates(rows: list[tuple]) -> Objects:
    """Candidates from rows (event, pt, eta, phi)."""
    event, pt, eta, phi = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    return Objects(event.astype(int), pt, eta, phi, tower=np.full(len(pt), -1))


def ideal_card() -> Card:
    """The atlas card with perfect resolution and efficiency, no thresholds, and cells too small to matter."""
    values = load_card("atlas").model_dump()
    for name in ("ecal", "hcal"):
        values[name]["cells"] = [{"eta": 4.9, "d_eta": 1e-3, "d_phi_degrees": 1}]
        values[name]["resolution"] = [{"eta": 4.9, "constant": 0.0, "stochastic": 0.0, "noise": 0.0}]
        values[name] |= {"min_energy": 0.0, "min_significance": 0.0}
    for curve in ("hadron", "electron", "muon"):
        values["tracks"][curve] = [{"eta": 2.5, "steps": [{"pt": 0.0, "value": 1.0}]}]
    for kind in ("photon", "electron", "muon"):
        values[kind]["efficiency"] = [{"eta": 2.5, "value": 1.0}]
    for kind in ("electron_momentum", "muon_momentum"):
        values[kind] = [{"eta": 2.5, "constant": 0.0, "slope": 0.0}]
    return Card.model_validate(values)
