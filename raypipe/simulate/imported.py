"""Events that others reconstructed (Delphes, NanoAOD) through the selection and into the columns of our own."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from raypipe.config.read import EventSource
from raypipe.events.objects import ObjectBatch, Objects
from raypipe.events.schema import SPLITS
from raypipe.simulate.ragged import delta_r, same_event_pairs
from raypipe.simulate.selection import PAPER, Cuts, select
from raypipe.simulate.table import columns, event_table


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
