"""What the encoder sees of the photon pair, and how much that tells of its mass.

On the continuum boosted trees find 14 % of the variance of m_yy in (objects, pt_yy, dr_yy), and 0.2 % if the opening
angle is that of the same decay at a fixed mass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from raypipe.config import Embedding
from raypipe.events.schema import OBJECT_FEATURES, PHOTON_COLUMNS, tensor_values

Opening = Literal["measured", "at_125", "none"]
"""The opening angle as measured (paper C), as it would be at m_yy = 125 GeV, or none (zero)."""
Origin = Literal["lab", "diphoton"]
"""What the pseudorapidity of objects is measured from: the centre of the detector, or the rapidity of the pair."""

PT, ETA, IS_MET = (OBJECT_FEATURES.index(name) for name in ("pt", "eta", "is_met"))
H_MASS = 125.0
TINY = 1e-6  # GeV; a pair of collinear photons has no rest frame, and this keeps its numbers finite


@dataclass(frozen=True)
class View:
    """How an encoder is shown the events of a table."""

    opening: Opening = "measured"
    eta: Origin = "lab"

    @staticmethod
    def of(embedding: Embedding) -> View:
        """As configured."""
        return View(embedding.opening, embedding.eta)

    @property
    def columns(self) -> list[str]:
        """Columns of the event table that are needed."""
        photons = PHOTON_COLUMNS if self.opening == "at_125" or self.eta == "diphoton" else ()
        return ["pt_yy", *(("dr_yy",) if self.opening == "measured" else ()), *photons, "objects"]

    def event(self, table: pa.Table) -> np.ndarray:
        """(n, 2) float32 of pt_yy [GeV] and the opening angle."""
        pt = table["pt_yy"].to_numpy()
        if self.opening == "at_125":
            return np.stack([pt, opening_at_mass(table).astype(np.float32)], axis=1)
        return np.stack([pt, table["dr_yy"].to_numpy() if self.opening == "measured" else np.zeros_like(pt)], axis=1)

    def objects(self, table: pa.Table) -> np.ndarray:
        """(n, 11, 12) float32; a view of the table's memory where it is shown as it is."""
        objects = tensor_values(table["objects"])
        if self.eta == "lab":
            return objects
        shifted = np.array(objects, dtype=np.float32)
        has_direction = (shifted[..., PT] > 0) & (shifted[..., IS_MET] == 0)
        shifted[..., ETA] -= has_direction * rapidity(table).astype(np.float32)[:, None]
        return shifted


def rapidity(table: pa.Table) -> np.ndarray:
    """(n,) of the photon pair."""
    pair = sum(_photons(table))
    return np.arctanh(pair[3] / pair[0])


def opening_at_mass(table: pa.Table, mass: float = H_MASS) -> np.ndarray:
    """(n,) dR of the photons if the pair had this ``mass`` [GeV], with its pT, rapidity and decay angles unchanged."""
    first, second = _photons(table)
    pair = first + second
    pt = np.hypot(pair[1], pair[2])
    transverse = np.sqrt(np.maximum(pair[0] ** 2 - pair[3] ** 2, TINY**2))  # E_T = sqrt(m^2 + pT^2)
    own = np.sqrt(np.maximum(transverse**2 - pt**2, TINY**2))
    along = np.array([0 * pt, 0 * pt, pair[3] / pair[0]])
    across = np.array([pair[1], pair[2], 0 * pt])
    places = []
    for photon in (first, second):
        rest = _boost(_boost(photon, -along), -across / transverse)
        moved = _boost(rest * mass / own, across / np.hypot(mass, pt))  # dR does not feel the boost along the beam
        places.append((np.arcsinh(moved[3] / np.hypot(moved[1], moved[2])), np.arctan2(moved[2], moved[1])))
    (eta1, phi1), (eta2, phi2) = places
    return np.hypot(eta1 - eta2, (phi1 - phi2 + np.pi) % (2 * np.pi) - np.pi)


def _photons(table: pa.Table) -> list[np.ndarray]:
    """E, px, py, pz of the two photons, (4, n) each."""
    found = []
    for i in (1, 2):
        pt, eta, phi = (table[f"y{i}_{name}"].to_numpy().astype(np.float64) for name in ("pt", "eta", "phi"))
        found.append(np.stack([pt * np.cosh(eta), pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)]))
    return found


def _boost(p: np.ndarray, beta: np.ndarray) -> np.ndarray:
    """Momenta (4, n) seen from a frame in which theirs moves with ``beta`` (3, n)."""
    squared = np.sum(beta**2, axis=0)
    gamma = 1 / np.sqrt(1 - squared)
    parallel = np.sum(beta * p[1:], axis=0)
    factor = gamma**2 / (gamma + 1) * parallel + gamma * p[0]
    return np.concatenate([(gamma * (p[0] + parallel))[None], p[1:] + factor * beta])
