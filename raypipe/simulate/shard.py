"""One shard: so many generated events of one sample, from one seed, to a piece of the event table."""

from __future__ import annotations

import resource
import time
from importlib.metadata import version
from typing import Any

import numpy as np
import pyarrow as pa

from raypipe import seeds
from raypipe.errors import UserError
from raypipe.simulate.card import Card
from raypipe.simulate.detector import reconstruct
from raypipe.simulate.fakes import hard_partons, jets_as_photons
from raypipe.simulate.generator import MAX_SEED, Generator
from raypipe.simulate.jets import fat_jets, jet_input, leptons_in, small_jets
from raypipe.simulate.particles import Particles, flatten
from raypipe.simulate.processes import Process
from raypipe.simulate.selection import PAPER, STEPS, Cuts, Diphotons, select
from raypipe.simulate.table import Columns, columns, event_table

ROW_BITS, SHARD_BITS = 24, 24
"""Bits of an event id: row in the shard, shard; the process number sits above them."""

PACKAGES = ("pythia8mc", "fastjet", "awkward", "numpy", "raypipe")
"""Packages whose versions a sidecar records."""


def versions() -> dict[str, str]:
    """Versions of everything that a shard's numbers depend on."""
    return {name: version(name) for name in PACKAGES}


def event_ids(process: Process, shard: int, rows: np.ndarray) -> np.ndarray:
    """Ids unique in a data set, the same whoever makes the shard: process number, shard and generated row packed."""
    if shard >= 1 << SHARD_BITS or (len(rows) and rows.max() >= 1 << ROW_BITS):
        raise UserError(f"sample {process.name}: more shards or events a shard than event ids can number (2^24)")
    return (np.int64(process.number) << (ROW_BITS + SHARD_BITS)) | (np.int64(shard) << ROW_BITS) | rows.astype(np.int64)


def pythia_seed(seed: int) -> int:
    """A shard's seed folded into the range that Pythia accepts."""
    return 1 + seed % MAX_SEED


def process_batch(
    particles: Particles, card: Card, rng: np.random.Generator, *, met_smearing: float = 0.0, cuts: Cuts = PAPER
) -> tuple[Diphotons, Columns]:
    """Detector, selection and table columns of one batch of particles."""
    seen = reconstruct(particles, card, rng, met_smearing=met_smearing)
    pairs = select(seen.photons, seen.n_events, cuts)
    events = pairs.event
    given = jet_input(seen, events, pairs.tower)
    jets = small_jets(given, particles, events, card, rng)
    fat = fat_jets(given, card.fat_jets)
    electrons, muons = (leptons_in(leptons, seen, events) for leptons in (seen.electrons, seen.muons))
    return pairs, columns(pairs, jets, fat, electrons, muons, seen.met_x[events], seen.met_y[events])


def in_embedding(seed: int, selected: int, fraction: float) -> np.ndarray:
    """Which of the selected events belong to the `embedding` split."""
    return seeds.generator(seed, "split").random(selected) < fraction


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
        "pythia_seed": pythia_seed(seed),
        **counts,
        **{"efficiency": efficiency, "efficiency_error": error},
        **{"pythia_cross_section_fb": sigma[0], "pythia_cross_section_error_fb": sigma[1]},
        "versions": versions(),
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
    cuts: Cuts = PAPER,
) -> tuple[pa.Table, dict[str, Any]]:
    """Generate ``n_generate`` events and keep those that pass the selection.

    Args:
        seed: seed of this shard; generator, detector and split have their own streams under it.
        shard: number of the shard in its sample, part of the event ids.
        embedding_fraction: probability that an event belongs to the `embedding` split.
        mpi: multi-parton interactions.
        met_smearing: GeV added to each component of the missing momentum.

    Returns:
        The event table, weighted as if this shard were the whole sample and its splits were one, and the sidecar:
        counts, cut flow, cross section [fb], efficiency, seeds, versions, seconds.
    """
    began = time.perf_counter(), time.process_time()
    detector_rng, fake_rng = (seeds.generator(seed, name) for name in ("detector", "fakes"))
    generator = Generator(process, pythia_seed(seed), mpi=mpi)
    flow = dict.fromkeys(STEPS, 0)
    parts: list[Columns] = []
    rows: list[np.ndarray] = []
    for batch in generator.batches(n_generate):
        particles = flatten(batch)
        if process.jet_fakes_photon:
            particles = jets_as_photons(particles, *hard_partons(batch), fake_rng)
        pairs, part = process_batch(particles, card, detector_rng, met_smearing=met_smearing, cuts=cuts)
        parts.append(part)
        rows.append(flow["generated"] + pairs.event)
        for step in STEPS:
            flow[step] += pairs.cut_flow[step]

    selected = flow[STEPS[-1]]
    sigma = generator.cross_section()
    weight = process.reference.value(sigma[0]) / generator.generated
    embedding = in_embedding(seed, selected, embedding_fraction)
    table = event_table(
        parts, event_ids(process, shard, np.concatenate(rows)), process.name, process.group, embedding, weight
    )
    return table, {"sample": process.name, "shard": shard} | account(seed, flow, embedding, sigma, began)
