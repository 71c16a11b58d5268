"""One shard: so many generated events of one sample, from one seed, to a piece of the event table."""

import resource
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import awkward as ak
import numpy as np
import pyarrow as pa

from raypipe import seeds
from raypipe.config.inputs import FourLeptons
from raypipe.errors import UserError
from raypipe.events.schema import EVENT_SCHEMA, FOUR_LEPTON_SCHEMA
from raypipe.simulate import selection
from raypipe.simulate.card import Card
from raypipe.simulate.detector import reconstruct
from raypipe.simulate.fourlepton import selection as four_lepton_selection
from raypipe.simulate.fourlepton.selection import reconstruct_leptons
from raypipe.simulate.fourlepton.source import FourLeptonSource
from raypipe.simulate.generator import Generator, pythia_seed
from raypipe.simulate.jets import fat_jets, hard_partons, jet_input, jets_as_photons, small_jets
from raypipe.simulate.particles import flatten
from raypipe.simulate.processes import BEAM_ENERGY, FOUR_LEPTONS, Process, reference
from raypipe.simulate.table import Columns, columns, event_table

ROW_BITS, SHARD_BITS = 24, 24  # Bits of an event id: row in the shard, shard; the process number sits above them

PACKAGES = ("pythia8mc", "fastjet", "awkward", "numpy", "raypipe")
"""Packages whose versions a sidecar records: all that a shard's numbers depend on."""

Selected = tuple[np.ndarray, Columns, dict[str, int]]
"""Numbers of the selected events in their batch, their columns, and the cut flow."""


def event_ids(process: Process, shard: int, rows: np.ndarray) -> np.ndarray:
    """Ids unique in a data set, the same whoever makes the shard: process number, shard and generated row packed."""
    if shard >= 1 << SHARD_BITS or (len(rows) and rows.max() >= 1 << ROW_BITS):
        raise UserError(f"sample {process.name}: more shards or events a shard than event ids can number (2^24)")
    return (np.int64(process.number) << (ROW_BITS + SHARD_BITS)) | (np.int64(shard) << ROW_BITS) | rows.astype(np.int64)


def _diphotons(process: Process, card: Card, seed: int, met_smearing: float) -> Callable[[ak.Array], Selected]:
    """Detector, selection and table columns of a batch of Pythia's events."""
    detector, fakes = (seeds.generator(seed, name) for name in ("detector", "fakes"))

    def select(batch: ak.Array) -> Selected:
        particles = flatten(batch)
        if process.jet_fakes_photon:
            particles = jets_as_photons(particles, *hard_partons(batch), fakes)
        seen = reconstruct(particles, card, detector, met_smearing=met_smearing)
        pairs = selection.select(seen.photons, seen.n_events)
        events, n = pairs.event, seen.n_events
        given = jet_input(seen, events)
        jets, fat = small_jets(given, particles, events, card, detector), fat_jets(given, card.fat_jets)
        leptons = seen.electrons.of_events(events, n), seen.muons.of_events(events, n)
        made = columns(pairs, jets, fat, leptons, (seen.met_x[events], seen.met_y[events]))
        return events, made, pairs.cut_flow

    return select


def _four_leptons(card: Card, seed: int, section: FourLeptons) -> Callable[[ak.Array], Selected]:
    """As `_diphotons`."""
    detector = seeds.generator(seed, "detector")

    def select(batch: ak.Array) -> Selected:
        electrons, muons = reconstruct_leptons(flatten(batch), card, detector)
        found = four_lepton_selection.select(electrons, muons, len(batch), section.selection)
        return found.event, found.columns(), {"generated": len(batch)} | found.cut_flow

    return select


def account(
    seed: int, flow: dict[str, int], embedding: np.ndarray, sigma: tuple[float, float], began: tuple[float, float]
) -> dict[str, Any]:
    """Most of a sidecar; ``sigma``: cross section and error [fb]; ``began``: wall and CPU time of the start."""
    generated, *_, selected = flow.values()
    efficiency, usage = selected / generated, resource.getrusage(resource.RUSAGE_SELF)
    counts = {"n_generated": generated, "n_selected": selected, "n_embedding": int(embedding.sum()), "cut_flow": flow}
    error = float(np.sqrt(efficiency * (1 - efficiency) / generated))
    spent = {"seconds": time.perf_counter() - began[0], "cpu_seconds": time.process_time() - began[1]}
    return {
        "seed": seed,
        **counts,
        **{"efficiency": efficiency, "efficiency_error": error},
        **{"pythia_cross_section_fb": sigma[0], "pythia_cross_section_error_fb": sigma[1]},
        "versions": {name: version(name) for name in PACKAGES},
        **spent,
        "max_rss_mib": usage.ru_maxrss / 1024,
    }


def simulate_shard(
    process: Process,
    card: Card,
    *,
    seed: int,
    shard: int,
    n_generate: int,
    embedding_fraction: float = 0.5,
    mpi: bool = False,
    met_smearing: float = 0.0,
    four_leptons: FourLeptons | None = None,
) -> tuple[pa.Table, dict[str, Any]]:
    """Generate ``n_generate`` events and keep those that pass the selection of the sample's final state.

    ``embedding_fraction``: probability of the `embedding` split. ``met_smearing``: GeV. Returns the event table,
    weighted as if this shard were the whole sample and its splits were one, and the sidecar.
    """
    began = time.perf_counter(), time.process_time()
    about: dict[str, Any] = {"sample": process.name, "shard": shard}
    if process.final_state == FOUR_LEPTONS:
        section = four_leptons or FourLeptons()
        source = FourLeptonSource(process, section, seed, n_generate, mpi)
        about["hard_process"] = source.details
        select, schema, energy = _four_leptons(card, seed, section), FOUR_LEPTON_SCHEMA, section.beam_energy
        steps = four_lepton_selection.STEPS
    else:
        source = Generator(process, pythia_seed(seed), mpi=mpi)
        select, schema, energy = _diphotons(process, card, seed, met_smearing), EVENT_SCHEMA, BEAM_ENERGY
        steps = selection.STEPS
    flow = dict.fromkeys(steps, 0)
    parts, rows = [], []
    for batch in source.batches(n_generate):
        events, part, counts = select(batch)
        parts.append(part)
        rows.append(flow["generated"] + events)
        flow = {step: flow[step] + counts[step] for step in steps}
    sigma = source.cross_section()
    weight = reference(process.name, energy).value(sigma[0]) / flow["generated"]
    embedding = seeds.generator(seed, "split").random(flow[steps[-1]]) < embedding_fraction
    ids = event_ids(process, shard, np.concatenate(rows))
    table = event_table(parts, ids, (process.name, process.group), embedding, weight, schema)
    return table, about | {"pythia_seed": source.seed} | account(seed, flow, embedding, sigma, began)
