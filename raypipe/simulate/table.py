"""From reconstructed objects to the columns of the event table (`raypipe.events.schema`)."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from raypipe.config.read import EventSource
from raypipe.events.objects import ObjectBatch, Objects, delta_r, order_and_rank, same_event_pairs, wrap_phi
from raypipe.events.schema import EVENT_SCHEMA, FEATURES, OBJECT_FEATURES, SLOTS, SPLITS, tensor_column
from raypipe.simulate.jets import MUON_MASS
from raypipe.simulate.selection import PAPER, Cuts, Diphotons, select

ELECTRON_MASS = 0.000511
HT_MIN_PT = 30.0  # GeV, softest jet counted in H_T

_BELOW_PI = np.nextafter(np.float32(np.pi), np.float32(0))

Columns = dict[str, np.ndarray]
"""Columns of selected events: the float columns, ``objects`` and ``features``, all float32."""


def columns(
    pairs: Diphotons, jets: Objects, fat: Objects, leptons: tuple[Objects, Objects], met: tuple[np.ndarray, np.ndarray]
) -> Columns:
    """All numeric columns of the n selected events; objects have event numbers 0..n-1, ``met`` is (x, y) in GeV."""
    n = len(pairs.mass)
    missing = Objects(np.arange(n), np.hypot(*met), np.zeros(n), np.arctan2(met[1], met[0]))
    dr_yy = delta_r(pairs.eta[:, 0], pairs.phi[:, 0], pairs.eta[:, 1], pairs.phi[:, 1])
    result = {"m_yy": pairs.mass, "pt_yy": pairs.pair_pt, "dr_yy": dr_yy}
    for i in (0, 1):
        result |= {f"y{i + 1}_{q}": getattr(pairs, q)[:, i] for q in ("pt", "eta", "phi")}
    objects = np.zeros((n, len(SLOTS), len(OBJECT_FEATURES)))
    masses = {"electron": ELECTRON_MASS, "muon": MUON_MASS}
    light = [replace(kind, mass=np.full(len(kind), m)) for kind, m in zip(leptons, masses.values(), strict=True)]
    for kind, found in {"jet": jets, "fatjet": fat, **dict(zip(masses, light, strict=True)), "met": missing}.items():
        _place(objects, kind, found, pairs.pair_phi)
    first, second = objects[:, 0], objects[:, 1]
    two = second[:, OBJECT_FEATURES.index("pt")] > 0
    has_lepton = np.bincount(np.concatenate([kind.event for kind in leptons]), minlength=n) > 0
    high = jets.pt > HT_MIN_PT
    features = {
        "pt_yy": pairs.pair_pt,
        "dr_yy": dr_yy,
        "m_jj": np.where(two, _dijet_mass(first, second), 0.0),
        "dr_jj": np.where(two, delta_r(first[:, 1], first[:, 2], second[:, 1], second[:, 2]), 0.0),
        "ht": np.bincount(jets.event[high], weights=jets.pt[high], minlength=n),
        "has_lepton": has_lepton,
        "met": missing.pt,
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


def _place(table: np.ndarray, kind: str, objects: Objects, axis_phi: np.ndarray) -> None:
    """Write objects of one kind into their slots, hardest first; what has no slot is left out."""
    first, number = SLOTS.index(kind), SLOTS.count(kind)
    order, rank = order_and_rank(objects.event, objects.pt)
    order, rank = order[rank < number], rank[rank < number]
    rows, slot = objects.event[order], first + rank
    turned = replace(objects, phi=wrap_phi(objects.phi - axis_phi[objects.event]))
    for place, name in enumerate(OBJECT_FEATURES[:7]):
        if (values := getattr(turned, name)) is not None:
            table[rows, slot, place] = values[order]
    table[rows, slot, OBJECT_FEATURES.index(f"is_{kind}")] = 1.0


def _dijet_mass(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Invariant mass of two object rows (pt, eta, phi, mass, ..)."""
    total = sum(_four_momentum(row) for row in (first, second))
    return np.sqrt(np.maximum(total[0] ** 2 - total[1] ** 2 - total[2] ** 2 - total[3] ** 2, 0.0))


def _four_momentum(row: np.ndarray) -> np.ndarray:
    pt, eta, phi, mass = row[:, 0], row[:, 1], row[:, 2], row[:, 3]
    energy = np.sqrt((pt * np.cosh(eta)) ** 2 + mass**2)
    return np.stack([energy, pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)])


def event_table(
    parts: Sequence[Columns],
    event_id: np.ndarray,
    about: tuple[str, int],
    embedding: np.ndarray,
    weight: float | np.ndarray,
    schema: pa.Schema = EVENT_SCHEMA,
) -> pa.Table:
    """The Arrow event table of batches of columns; ``weight``: of all rows, or of each."""
    n, (sample, group) = len(event_id), about
    values = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    values |= {"event_id": event_id.astype(np.int64), "group": np.full(n, group, np.int8)}
    values["weight"] = np.broadcast_to(weight, n).astype(np.float64)
    names = {"sample": ([sample], np.zeros(n)), "split": (SPLITS, np.where(embedding, *map(SPLITS.index, SPLITS)))}
    arrays = []
    for field in schema:
        if field.name in names:
            words, codes = names[field.name]
            arrays.append(pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(words)))
        elif isinstance(field.type, pa.FixedShapeTensorType):
            arrays.append(tensor_column(values[field.name]))
        else:
            arrays.append(pa.array(values[field.name]))
    return pa.Table.from_arrays(arrays, schema=schema)


def diphoton_table(
    batch: ObjectBatch, source: EventSource, cuts: Cuts = PAPER, first: int = 0
) -> tuple[pa.Table, dict[str, int]]:
    """The event table of the events that pass the diphoton selection, and its cut flow; event ids begin at ``first``.

    Objects pass ``source.objects`` first. Jets that are photons or electrons are dropped, and of the large-radius jets
    those that hold both photons of the pair, whose mass is m_yy.
    """
    given, n, axes = source.objects, batch.n_events, (np.cos, np.sin)
    pairs = select(_acceptable(batch.photons, given.photon_pt, given.photon_eta), n, cuts)
    photons = np.repeat(pairs.event, 2), pairs.eta.ravel(), pairs.phi.ravel()
    leptons = [_acceptable(kind, given.lepton_pt, given.lepton_eta) for kind in (batch.electrons, batch.muons)]
    electrons = leptons[0].event, leptons[0].eta, leptons[0].phi
    jets = _acceptable(batch.jets, given.jet_pt, given.jet_eta)
    jets = jets.take((_near(jets, photons, given.clean_dr) + _near(jets, electrons, given.clean_dr)) == 0)
    fat = _acceptable(batch.fatjets, given.fatjet_pt, given.fatjet_eta)
    fat = fat.take(_near(fat, photons, 1.0) < 2)
    selected = pairs.event
    jets, fat, *leptons = (kind.of_events(selected, n) for kind in (jets, fat, *leptons))
    made = columns(pairs, jets, fat, leptons, [(batch.met * axis(batch.met_phi))[selected] for axis in axes])
    weight = batch.weight[selected] / (source.luminosity or 1.0)
    embedding = np.full(len(selected), source.split == SPLITS[0])
    table = event_table([made], first + selected, (source.sample, source.group), embedding, weight)
    return table, dict(pairs.cut_flow)


def _acceptable(objects: Objects, pt: float, eta: float) -> Objects:
    return objects.take((objects.pt > pt) & (np.abs(objects.eta) < eta))


def _near(objects: Objects, others: tuple[np.ndarray, np.ndarray, np.ndarray], radius: float) -> np.ndarray:
    """How many of the ``others`` (event, eta, phi) of its event lie within ``radius`` of each object."""
    event, eta, phi = others
    i, j = same_event_pairs(objects.event, event)
    close = delta_r(objects.eta[i], objects.phi[i], eta[j], phi[j]) < radius
    return np.bincount(i[close], minlength=len(objects))
