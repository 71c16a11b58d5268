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
"""Columns of a piece of a table; float64, tensors float32."""
Means = dict[str, tuple[np.ndarray, np.ndarray]]
"""Name -> (values, mask of the events that count)."""

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


def everywhere(batch: Batch) -> np.ndarray:
    """Mask of all events."""
    return np.ones(len(batch["weight"]), dtype=bool)


def slot(batch: Batch, kind: str, what: str) -> np.ndarray:
    """A feature of all slots of one kind, (n, slots); zero where absent."""
    first, count = SLOTS.index(kind), SLOTS.count(kind)
    return batch["objects"][:, first : first + count, OBJECT_FEATURES.index(what)]


def presence(batch: Batch) -> dict[str, np.ndarray]:
    """Slot name -> mask of the events in which it is filled."""
    columns = [slot(batch, "jet", "pt"), slot(batch, "fatjet", "pt")]
    columns += [slot(batch, kind, "pt")[:, :1] for kind in ("electron", "muon")]
    return dict(zip(SLOT_NAMES, (np.concatenate(columns, axis=1) > 0).T, strict=True))


def with_photons(batch: Batch) -> dict[str, np.ndarray]:
    """Large-R jets as a detector that does not take the pair's photons out of them would see.

    A cone of radius 1.0 around each photon collects photons and small jets; above 200 GeV it is a large-R jet, and
    a stored large-R jet with its axis in such a cone is the same jet. Both photons in one cone make one jet.

    Returns:
        Arrays of (n, 4): the candidates' ``pt``, ``eta``, ``mass`` (cones of the two photons, then the two stored jets;
        ``pt`` zero where absent or merged), and ``pair``, whether the candidate holds both photons.
    """
    y_pt, y_eta, y_phi = (np.stack([batch[f"y{i}_{q}"] for i in (1, 2)], axis=1) for q in ("pt", "eta", "phi"))
    # Objects are stored with the azimuth measured from the pair's.
    axis = np.arctan2((y_pt * np.sin(y_phi)).sum(axis=1), (y_pt * np.cos(y_phi)).sum(axis=1))
    y_phi = wrap_phi(y_phi - axis[:, None])
    jets = (slot(batch, "jet", q) for q in ("pt", "eta", "phi", "mass"))
    part_pt, part_eta, part_phi, part_mass = map(
        np.hstack, zip((y_pt, y_eta, y_phi, np.zeros_like(y_pt)), jets, strict=True)
    )
    energy = np.sqrt((part_pt * np.cosh(part_eta)) ** 2 + part_mass**2)
    momentum = (part_pt * np.cos(part_phi), part_pt * np.sin(part_phi), part_pt * np.sinh(part_eta))
    parts = np.stack([energy, *momentum], axis=2)
    cones = [delta_r(part_eta, part_phi, y_eta[:, [i]], y_phi[:, [i]]) < FAT_RADIUS for i in (0, 1)]
    sums = np.stack([np.einsum("nkc,nk->nc", parts, inside) for inside in cones], axis=1)
    e, px, py, pz = np.moveaxis(sums, 2, 0)
    pt = np.hypot(px, py)
    eta = np.arcsinh(pz / np.maximum(pt, 1e-9))
    mass = np.sqrt(np.maximum(e**2 - pt**2 - pz**2, 0.0))
    together = delta_r(y_eta[:, 0], y_phi[:, 0], y_eta[:, 1], y_phi[:, 1]) < FAT_RADIUS
    pt = np.where(pt > FAT_MIN_PT, pt, 0.0)
    pt[:, 1] = np.where(together, 0.0, pt[:, 1])
    f_pt, f_eta, f_phi, f_mass = (slot(batch, "fatjet", q) for q in ("pt", "eta", "phi", "mass"))
    near = delta_r(f_eta[:, :, None], f_phi[:, :, None], y_eta[:, None, :], y_phi[:, None, :]) < FAT_RADIUS
    taken = (near & (pt[:, None, :] > 0)).any(axis=2)
    stored = np.where((f_pt > FAT_MIN_PT) & ~taken, f_pt, 0.0)
    pair = np.zeros((len(pt), 4), dtype=bool)
    pair[:, 0] = together
    return {"pt": np.c_[pt, stored], "eta": np.c_[eta, f_eta], "mass": np.c_[mass, f_mass], "pair": pair}


def fat_variants(batch: Batch) -> Means:
    """Name -> (mask, events that count), for every entry of `VARIANTS`."""

    def skimmed(jets: dict[str, np.ndarray]) -> np.ndarray:
        """Cuts of the authors' later skim on large-R jets (numbers.md 2.1)."""
        return (np.abs(jets["eta"]) < 2.0) & (jets["mass"] > 40) & (jets["mass"] < 600)

    stored = {q: slot(batch, "fatjet", q) for q in ("pt", "eta", "mass")}
    seen = with_photons(batch)
    masks = {
        "fat_pt250": stored["pt"] > 250,
        "fat_pt300": stored["pt"] > 300,
        "fat_skim": (stored["pt"] > FAT_MIN_PT) & skimmed(stored),
        "fat_photons": seen["pt"] > 0,
        "fat_photons_skim": (seen["pt"] > 0) & skimmed(seen),
    }
    found = {
        f"{name}_{least}": (mask.sum(axis=1) >= least, everywhere(batch))
        for name, mask in masks.items()
        for least in (1, 2)
    }
    leading = np.argmax(seen["pt"], axis=1)
    holds = np.take_along_axis(seen["pair"], leading[:, None], axis=1)[:, 0]
    return found | {"fat_diphoton_1": (holds, masks["fat_photons"].any(axis=1))}


def presence_means(batch: Batch) -> Means:
    """All shares and means that the reference gives, as (values, events that count), in its mass window."""
    low, high = references()["presence"]["window"]
    window = (batch["m_yy"] > low) & (batch["m_yy"] < high)
    jet1 = slot(batch, "jet", "pt")[:, 0]
    found = {name: (mask, window) for name, mask in presence(batch).items()}
    found |= {name: (mask, counted & window) for name, (mask, counted) in fat_variants(batch).items()}
    found |= {"pt_yy": (batch["pt_yy"], window), "jet1_pt": (jet1, window & (jet1 > 0))}
    return {f"window.{name}": pair for name, pair in found.items()}
