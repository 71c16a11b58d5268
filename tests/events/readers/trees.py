"""Trees with the branches of Delphes, written with uproot from known events."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import uproot

Event = dict[str, Any]
"""kind -> list of tuples in the order of `LEAVES`; ``met`` (value, phi); ``weight``."""

LEAVES = {
    "Photon": ("PT", "Eta", "Phi"),
    "Jet": ("PT", "Eta", "Phi", "Mass", "BTag"),
    "FatJet": ("PT", "Eta", "Phi", "Mass"),
    "Electron": ("PT", "Eta", "Phi", "Charge"),
    "Muon": ("PT", "Eta", "Phi", "Charge"),
}


def known_events() -> list[Event]:
    """A Higgs-like event with everything, one with a single photon, one whose only jets are its photons."""
    half = np.pi / 2
    full = {
        "Photon": [(80.0, 0.0, 0.0), (60.0, 0.0, half)],
        "Jet": [(50.0, 1.0, 2.0, 8.0, 1), (90.0, -1.0, -2.5, 12.0, 0), (80.0, 0.05, 0.05, 0.0, 0), (20.0, 0, 3, 2, 0)],
        "FatJet": [(250.0, 0.0, -2.0, 85.0), (210.0, 0.0, np.pi / 4, 125.0)],
        "Tau": [(0.5, 0.4, 0.2, 0.1, 0.05), (0.5, 0.4, 0.3, 0.2, 0.1)],
        "Electron": [(30.0, 0.5, -1.0, -1)],
        "Muon": [(5.0, 0.5, 1.0, 1), (45.0, -0.5, 3.0, 1)],
        "met": (40.0, -1.5),
        "weight": 0.25,
    }
    return [full, full | {"Photon": full["Photon"][:1]}, full | {"weight": 0.5, "Jet": [(80.0, 0.0, 0.0, 0.0, 0)]}]


def write_delphes(path: Path, events: list[Event], drop: tuple[str, ...] = ()) -> Path:
    """Write a Delphes tree; branches in ``drop`` are left out."""
    data = {
        f"{kind}.{leaf}": ak.Array([[float(o[i]) for o in e[kind]] for e in events])
        for kind, leaves in LEAVES.items()
        for i, leaf in enumerate(leaves)
    }
    data["FatJet.Tau"] = ak.Array([[t for tau in e["Tau"] for t in tau] for e in events])
    data |= {
        "MissingET.MET": ak.Array([[e["met"][0]] for e in events]),
        "MissingET.Phi": ak.Array([[e["met"][1]] for e in events]),
        "Event.Weight": ak.Array([[e["weight"]] for e in events]),
    }
    data = {name: ak.values_astype(values, np.float32) for name, values in data.items() if name not in drop}
    with uproot.recreate(path) as file:
        tree = file.mktree("Delphes", {name: "var * float32" for name in data})
        tree.extend(data)
    return path
