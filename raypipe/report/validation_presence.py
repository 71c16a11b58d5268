"""How often the object slots are filled, beside the authors' samples, and what the differences are made of.

The reference (``references.yaml``) was made with MadGraph, Pythia and Delphes; ours differs in known ways. Those that
can be undone on the event table are measured: every `VARIANTS` entry is a share under the reference's definition
of a large-R jet instead of ours. ``texts.yaml`` says which other differences there are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from raypipe.events.schema import OBJECT_FEATURES, SLOTS
from raypipe.report.html import resource
from raypipe.simulate.ragged import delta_r, wrap_phi

Batch = dict[str, np.ndarray]

FAT_RADIUS = 1.0
"""Radius of the large-R jets."""

FAT_MIN_PT = 200.0
"""GeV, the authors' threshold for large-R jets (numbers.md 2.4)."""

SLOT_NAMES = ("jet1", "jet2", "jet3", "jet4", "fat1", "fat2", "e1", "mu1")

VARIANTS = resource("texts")["validation"]["variants"]
"""Other definitions of a large-R jet, each measured as <name>_1 and <name>_2 (one, two of them present)."""


def references() -> dict[str, Any]:
    """Numbers of others."""
    return resource("references")


def slot(batch: Batch, kind: str, what: str) -> np.ndarray:
    """A feature of all slots of one kind, (n, slots); zero where absent."""
    first, count = SLOTS.index(kind), SLOTS.count(kind)
    return batch["objects"][:, first : first + count, OBJECT_FEATURES.index(what)]


def presence(batch: Batch) -> dict[str, np.ndarray]:
    """Slot name -> mask of the events in which it is filled."""
    columns = [
        slot(batch, "jet", "pt"),
        slot(batch, "fatjet", "pt"),
        slot(batch, "electron", "pt")[:, :1],
        slot(batch, "muon", "pt")[:, :1],
    ]
    return dict(zip(SLOT_NAMES, (np.concatenate(columns, axis=1) > 0).T, strict=True))


def with_photons(batch: Batch) -> dict[str, np.ndarray]:
    """Large-R jets as a detector that does not take the pair's photons out of them would see.

    A cone of radius 1.0 around each photon collects photons and small jets; above 200 GeV it is a large-R jet, and
    a stored large-R jet with its axis in such a cone is the same jet. Both photons in one cone make one jet.

    Returns:
        Arrays of (n, 4): the candidates' ``pt``, ``eta``, ``mass`` (cones of the two photons, then the two stored jets;
        ``pt`` zero where absent or merged), and ``pair``, whether the candidate holds both photons.
    """
    n = len(batch["weight"])
    y_pt, y_eta, y_phi = (np.stack([batch[f"y{i}_{q}"] for i in (1, 2)], axis=1) for q in ("pt", "eta", "phi"))
    # Objects are stored with the azimuth measured from the pair's.
    axis = np.arctan2((y_pt * np.sin(y_phi)).sum(axis=1), (y_pt * np.cos(y_phi)).sum(axis=1))
    y_phi = wrap_phi(y_phi - axis[:, None])
    j_pt, j_eta, j_phi, j_mass = (slot(batch, "jet", q) for q in ("pt", "eta", "phi", "mass"))
    f_pt, f_eta, f_phi, f_mass = (slot(batch, "fatjet", q) for q in ("pt", "eta", "phi", "mass"))
    parts = _momenta(np.c_[y_pt, j_pt], np.c_[y_eta, j_eta], np.c_[y_phi, j_phi], np.c_[np.zeros((n, 2)), j_mass])
    part_eta, part_phi = np.c_[y_eta, j_eta], np.c_[y_phi, j_phi]

    cones = []
    for i in (0, 1):
        inside = delta_r(part_eta, part_phi, y_eta[:, i : i + 1], y_phi[:, i : i + 1]) < FAT_RADIUS
        cones.append(np.einsum("nkc,nk->nc", parts, inside))
    e, px, py, pz = np.moveaxis(np.stack(cones, axis=1), 2, 0)
    pt = np.hypot(px, py)
    eta = np.arcsinh(pz / np.maximum(pt, 1e-9))
    mass = np.sqrt(np.maximum(e**2 - pt**2 - pz**2, 0.0))
    together = delta_r(y_eta[:, 0], y_phi[:, 0], y_eta[:, 1], y_phi[:, 1]) < FAT_RADIUS
    pt = np.where(pt > FAT_MIN_PT, pt, 0.0)
    pt[:, 1] = np.where(together, 0.0, pt[:, 1])
    near = delta_r(f_eta[:, :, None], f_phi[:, :, None], y_eta[:, None, :], y_phi[:, None, :]) < FAT_RADIUS
    taken = (near & (pt[:, None, :] > 0)).any(axis=2)
    stored = np.where((f_pt > FAT_MIN_PT) & ~taken, f_pt, 0.0)
    pair = np.zeros((n, 4), dtype=bool)
    pair[:, 0] = together
    return {"pt": np.c_[pt, stored], "eta": np.c_[eta, f_eta], "mass": np.c_[mass, f_mass], "pair": pair}


def _momenta(pt: np.ndarray, eta: np.ndarray, phi: np.ndarray, mass: np.ndarray) -> np.ndarray:
    """(n, k, 4) of E, px, py, pz."""
    energy = np.sqrt((pt * np.cosh(eta)) ** 2 + mass**2)
    return np.stack([energy, pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)], axis=2)


def _skimmed(eta: np.ndarray, mass: np.ndarray) -> np.ndarray:
    """Cuts of the authors' later skim on large-R jets (numbers.md 2.1)."""
    return (np.abs(eta) < 2.0) & (mass > 40) & (mass < 600)


def fat_variants(batch: Batch) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Name -> (mask, events that count), for every entry of `VARIANTS`."""
    everywhere = np.ones(len(batch["weight"]), dtype=bool)
    pt, eta, mass = (slot(batch, "fatjet", q) for q in ("pt", "eta", "mass"))
    seen = with_photons(batch)
    counts = {
        "fat_pt250": (pt > 250).sum(axis=1),
        "fat_pt300": (pt > 300).sum(axis=1),
        "fat_skim": ((pt > FAT_MIN_PT) & _skimmed(eta, mass)).sum(axis=1),
        "fat_photons": (seen["pt"] > 0).sum(axis=1),
        "fat_photons_skim": ((seen["pt"] > 0) & _skimmed(seen["eta"], seen["mass"])).sum(axis=1),
    }
    found = {}
    for name, count in counts.items():
        found |= {f"{name}_1": (count > 0, everywhere), f"{name}_2": (count > 1, everywhere)}
    leading = np.argmax(seen["pt"], axis=1)
    holds = np.take_along_axis(seen["pair"], leading[:, None], axis=1)[:, 0]
    return found | {"fat_diphoton_1": (holds, counts["fat_photons"] > 0)}


def presence_means(batch: Batch) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """All shares and means that the reference gives, as (values, events that count), in its mass window."""
    low, high = references()["presence"]["window"]
    window = (batch["m_yy"] > low) & (batch["m_yy"] < high)
    found = {name: (mask, window) for name, mask in presence(batch).items()}
    found |= {name: (mask, counted & window) for name, (mask, counted) in fat_variants(batch).items()}
    jet1 = slot(batch, "jet", "pt")[:, 0]
    found |= {"pt_yy": (batch["pt_yy"], window), "jet1_pt": (jet1, window & (jet1 > 0))}
    return {f"window.{name}": pair for name, pair in found.items()}
