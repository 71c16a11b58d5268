"""From reconstructed objects to the columns of the event table (`raypipe.events.schema`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from raypipe.events.schema import EVENT_SCHEMA, FEATURES, OBJECT_FEATURES, SLOTS, SPLITS, tensor_column
from raypipe.simulate.detector import Candidates
from raypipe.simulate.jets import MUON_MASS, JetList
from raypipe.simulate.ragged import delta_r, order_and_rank, wrap_phi
from raypipe.simulate.selection import Diphotons

ELECTRON_MASS = 0.000511
HT_MIN_PT = 30.0
"""GeV, softest jet counted in H_T."""

_BELOW_PI = np.nextafter(np.float32(np.pi), np.float32(0))

Columns = dict[str, np.ndarray]
"""Columns of selected events: the float columns, ``objects`` and ``features``, all float32."""


def columns(
    pairs: Diphotons,
    jets: JetList,
    fat: JetList,
    electrons: Candidates,
    muons: Candidates,
    met_x: np.ndarray,
    met_y: np.ndarray,
) -> Columns:
    """All numeric columns of the selected events.

    Args:
        pairs: the n selected diphotons.
        jets, fat, electrons, muons: objects with event numbers 0..n-1.
        met_x, met_y: missing momentum of the n events, GeV.
    """
    n = len(pairs.mass)
    met, met_phi = np.hypot(met_x, met_y), np.arctan2(met_y, met_x)
    dr_yy = delta_r(pairs.eta[:, 0], pairs.phi[:, 0], pairs.eta[:, 1], pairs.phi[:, 1])
    result = {"m_yy": pairs.mass, "pt_yy": pairs.pair_pt, "dr_yy": dr_yy}
    for i in (0, 1):
        result |= {f"y{i + 1}_{q}": getattr(pairs, q)[:, i] for q in ("pt", "eta", "phi")}

    objects = np.zeros((n, len(SLOTS), len(OBJECT_FEATURES)))
    place = _Placer(objects, pairs.pair_phi)
    place("jet", jets.event, jets.pt, jets.eta, jets.phi, jets.mass, jets.btag)
    place("fatjet", fat.event, fat.pt, fat.eta, fat.phi, fat.mass, fat.btag, fat.tau32, fat.tau43)
    place("electron", electrons.event, electrons.pt, electrons.eta, electrons.phi, _like(electrons, ELECTRON_MASS))
    place("muon", muons.event, muons.pt, muons.eta, muons.phi, _like(muons, MUON_MASS))
    place("met", np.arange(n), met, np.zeros(n), met_phi, np.zeros(n))

    first, second = objects[:, 0], objects[:, 1]
    two = second[:, OBJECT_FEATURES.index("pt")] > 0
    has_lepton = np.bincount(electrons.event, minlength=n) + np.bincount(muons.event, minlength=n) > 0
    high = jets.pt > HT_MIN_PT
    features = {
        "pt_yy": pairs.pair_pt,
        "dr_yy": dr_yy,
        "m_jj": np.where(two, _dijet_mass(first, second), 0.0),
        "dr_jj": np.where(two, delta_r(first[:, 1], first[:, 2], second[:, 1], second[:, 2]), 0.0),
        "ht": np.bincount(jets.event[high], weights=jets.pt[high], minlength=n),
        "has_lepton": has_lepton,
        "met": met,
        "n_photon": pairs.n_photon,
        "n_jet": np.bincount(jets.event, minlength=n),
    }
    result = {name: np.asarray(values, dtype=np.float32) for name, values in result.items()}
    result["objects"] = objects.astype(np.float32)
    result["features"] = np.stack([np.asarray(features[name], dtype=np.float32) for name in FEATURES], axis=1)
    # 32-bit rounding may carry an angle just below pi over the edge of [-pi, pi).
    phi = result["objects"][:, :, OBJECT_FEATURES.index("phi")]
    np.clip(phi, -_BELOW_PI, _BELOW_PI, out=phi)
    return result


class _Placer:
    """Writes objects of one kind into their slots, hardest first; what has no slot is left out."""

    def __init__(self, objects: np.ndarray, axis_phi: np.ndarray) -> None:
        self.objects = objects
        self.axis_phi = axis_phi

    def __call__(
        self, kind: str, event: np.ndarray, pt: np.ndarray, eta: np.ndarray, phi: np.ndarray, *rest: np.ndarray
    ) -> None:
        """``rest``: mass, btag, tau32, tau43, as far as the kind has them."""
        slots = SLOTS.index(kind), SLOTS.count(kind)
        order, rank = order_and_rank(event, pt)
        order, rank = order[rank < slots[1]], rank[rank < slots[1]]
        rows, slot = event[order], slots[0] + rank
        values = (pt, eta, wrap_phi(phi - self.axis_phi[event]), *rest)
        for feature, column in enumerate(values):  # at most seven features
            self.objects[rows, slot, feature] = column[order]
        self.objects[rows, slot, OBJECT_FEATURES.index(f"is_{kind}")] = 1.0


def _like(candidates: Candidates, value: float) -> np.ndarray:
    return np.full(len(candidates), value)


def _dijet_mass(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Invariant mass of two object rows (pt, eta, phi, mass, ..)."""
    total = sum(_four_momentum(row) for row in (first, second))
    return np.sqrt(np.maximum(total[0] ** 2 - total[1] ** 2 - total[2] ** 2 - total[3] ** 2, 0.0))


def _four_momentum(row: np.ndarray) -> np.ndarray:
    pt, eta, phi, mass = row[:, 0], row[:, 1], row[:, 2], row[:, 3]
    energy = np.sqrt((pt * np.cosh(eta)) ** 2 + mass**2)
    return np.stack([energy, pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)])


def event_table(
    parts: Sequence[Columns], event_id: np.ndarray, sample: str, group: int, embedding: np.ndarray, weight: float
) -> pa.Table:
    """The Arrow event table of batches of `columns`; ``embedding`` marks the rows of that split."""
    n = len(event_id)
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    split = pa.DictionaryArray.from_arrays(
        pa.array(np.where(embedding, SPLITS.index("embedding"), SPLITS.index("search")).astype(np.int32)),
        pa.array(SPLITS),
    )
    names = pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, dtype=np.int32)), pa.array([sample]))
    fixed = {
        "event_id": pa.array(event_id.astype(np.int64)),
        "sample": names,
        "group": pa.array(np.full(n, group, dtype=np.int8)),
        "split": split,
        "weight": pa.array(np.full(n, weight, dtype=np.float64)),
    }
    arrays = []
    for field in EVENT_SCHEMA:
        if field.name in fixed:
            arrays.append(fixed[field.name])
        elif isinstance(field.type, pa.FixedShapeTensorType):
            arrays.append(tensor_column(joined[field.name]))
        else:
            arrays.append(pa.array(joined[field.name]))
    return pa.Table.from_arrays(arrays, schema=EVENT_SCHEMA)
