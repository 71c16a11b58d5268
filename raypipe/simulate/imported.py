"""Events that others reconstructed (Delphes, NanoAOD) through the selection and into the columns of our own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa

from raypipe.config.read import EventSource
from raypipe.events.objects import ObjectBatch, Objects
from raypipe.events.schema import EVENT_SCHEMA, SPLITS
from raypipe.simulate.ragged import delta_r, same_event_pairs
from raypipe.simulate.selection import PAPER, Cuts, Diphotons, select
from raypipe.simulate.table import columns, event_table


def diphoton_table(
    batch: ObjectBatch, source: EventSource, cuts: Cuts = PAPER, first: int = 0
) -> tuple[pa.Table, dict[str, int]]:
    """The event table of the events that pass the diphoton selection, and its cut flow.

    Objects pass ``source.objects`` first. Whoever reconstructed them may have made jets of the photons and electrons
    too: those jets are dropped, and of the large-radius jets those that hold both photons of the pair, whose mass is
    m_yy (numbers.md 2.4).

    Args:
        first: number of the batch's first event in the file; an event's id is its number.
    """
    given = source.objects
    photons = _acceptable(batch.photons, given.photon_pt, given.photon_eta)
    pairs = select(photons, batch.n_events, cuts)
    electrons = _acceptable(batch.electrons, given.lepton_pt, given.lepton_eta)
    muons = _acceptable(batch.muons, given.lepton_pt, given.lepton_eta)
    jets = _acceptable(batch.jets, given.jet_pt, given.jet_eta)
    jets = jets.select(~_near_photons(jets, pairs, given.clean_dr, least=1) & ~_near(jets, electrons, given.clean_dr))
    fat = _acceptable(batch.fatjets, given.fatjet_pt, given.fatjet_eta)
    fat = fat.select(~_near_photons(fat, pairs, 1.0, least=2))
    selected = pairs.event
    met_x, met_y = (batch.met * f(batch.met_phi) for f in (np.cos, np.sin))
    made = columns(
        pairs,
        *(_renumbered(kind, selected, batch.n_events) for kind in (jets, fat, electrons, muons)),
        met_x[selected],
        met_y[selected],
    )
    weight = batch.weight[selected] / (source.luminosity or 1.0)
    embedding = np.full(len(selected), source.split == SPLITS[0])
    table = event_table([made], first + selected, source.sample, source.group, embedding, 0.0)
    place = EVENT_SCHEMA.get_field_index("weight")
    return table.set_column(place, EVENT_SCHEMA.field("weight"), pa.array(weight)), dict(pairs.cut_flow)


def _acceptable(objects: Objects, pt: float, eta: float) -> Objects:
    return objects.select((objects.pt > pt) & (np.abs(objects.eta) < eta))


def _near_photons(objects: Objects, pairs: Diphotons, radius: float, least: int) -> np.ndarray:
    """Mask of objects with at least ``least`` photons of the event's pair within ``radius``."""
    near = np.zeros(len(objects), dtype=int)
    i, j = same_event_pairs(objects.event, pairs.event)
    for photon in (0, 1):
        close = delta_r(objects.eta[i], objects.phi[i], pairs.eta[j, photon], pairs.phi[j, photon]) < radius
        np.add.at(near, i[close], 1)
    return near >= least


def _near(objects: Objects, others: Objects, radius: float) -> np.ndarray:
    """Mask of objects with one of ``others`` within ``radius``."""
    i, j = same_event_pairs(objects.event, others.event)
    near = np.zeros(len(objects), dtype=bool)
    near[i[delta_r(objects.eta[i], objects.phi[i], others.eta[j], others.phi[j]) < radius]] = True
    return near


def _renumbered(objects: Objects, events: np.ndarray, n_events: int) -> Objects:
    """The objects of the selected ``events``, numbered from 0."""
    new = np.full(n_events, -1)
    new[events] = np.arange(len(events))
    kept = objects.select(new[objects.event] >= 0)
    return replace(kept, event=new[kept.event])
