"""One shard of a four-lepton sample: hard process, Pythia, detector, selection, a piece of the event table."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pyarrow as pa

from raypipe import seeds
from raypipe.simulate.card import Card
from raypipe.simulate.fourlepton.detector import reconstruct_leptons
from raypipe.simulate.fourlepton.hard_process import Unweighter, hard_process
from raypipe.simulate.fourlepton.lhe import write_lhe
from raypipe.simulate.fourlepton.selection import STEPS, Quadruplets, select
from raypipe.simulate.fourlepton.settings import FourLeptonSettings
from raypipe.simulate.fourlepton.table import four_lepton_table
from raypipe.simulate.generator import Generator
from raypipe.simulate.particles import flatten
from raypipe.simulate.processes import Process
from raypipe.simulate.processes.fourlepton import LES_HOUCHES
from raypipe.simulate.shard import account, event_ids, in_embedding, pythia_seed
from raypipe.simulate.yields import reference

_HARD_OUTGOING = 23
"""Absolute Pythia status of particles that come out of the hard process or a resonance in it."""


def has_four_leptons(batch: ak.Array) -> np.ndarray:
    """Mask of the events whose hard process ends in e- e+ mu- mu+ (H -> ZZ* also gives four of a kind)."""
    hard = batch.prt.id[abs(batch.prt.status) == _HARD_OUTGOING]
    return np.all([ak.any(hard == pdg, axis=1).to_numpy() for pdg in (11, -11, 13, -13)], axis=0)


class _Source:
    """Events of one shard from Pythia, by its own process or from raypipe's matrix element."""

    def __init__(self, process: Process, settings: FourLeptonSettings, seed: int, n: int, mpi: bool) -> None:
        self.details: dict[str, Any] = {}
        self._n, self._seen, self._kept = n, 0, 0
        self._cross_section: tuple[float, float] | None = None
        if LES_HOUCHES not in process.settings:
            beams = replace(process, settings=(*process.settings, f"Beams:eCM={settings.beam_energy}"))
            self._generator = Generator(beams, pythia_seed(seed), mpi=mpi)
            return
        unweighter = Unweighter(hard_process(settings.parton_cuts), seeds.generator(seed, "hard process"))
        events = unweighter.events(n)
        self._cross_section = unweighter.cross_section
        self.details = {"tries": unweighter.tries, "overweight": unweighter.overweight}
        with tempfile.TemporaryDirectory(prefix="raypipe-lhe-") as folder:
            path = Path(folder) / "events.lhe"
            write_lhe(path, events, settings.beam_energy, self._cross_section)
            reading = replace(process, settings=(*process.settings, f"Beams:LHEF={path}"))
            # Pythia opens the file here and keeps it open, so that its name is no longer needed.
            self._generator = Generator(reading, pythia_seed(seed), mpi=mpi)

    def batches(self) -> Iterator[ak.Array]:
        """Events with e- e+ mu- mu+ in truth, until there are enough or the Les Houches file has ended."""
        while self._kept < self._n:
            for batch in self._generator.batches(self._n - self._kept):
                wanted = has_four_leptons(batch)
                self._seen, self._kept = self._seen + len(batch), self._kept + int(wanted.sum())
                if wanted.any():
                    yield batch[wanted]
            if self._cross_section is not None:
                return

    def cross_section(self) -> tuple[float, float]:
        """Generator's cross section into e- e+ mu- mu+ and its statistical error [fb]."""
        if self._cross_section is not None:
            return self._cross_section
        value, error = self._generator.cross_section()
        return value * self._kept / self._seen, error * self._kept / self._seen


def simulate_shard(
    process: Process,
    card: Card,
    *,
    seed: int,
    shard: int,
    n_generate: int,
    embedding_fraction: float = 0.5,
    mpi: bool = False,
    settings: FourLeptonSettings | None = None,
) -> tuple[pa.Table, dict[str, Any]]:
    """Generate ``n_generate`` events of a four-lepton sample and keep those that pass the selection.

    Args:
        seed: seed of this shard; hard process, Pythia, detector and split have their own streams under it.
        shard: number of the shard in its sample, part of the event ids.
        embedding_fraction: probability that an event belongs to the `embedding` split.
        mpi: multi-parton interactions.
        settings: beam energy and selection.

    Returns:
        The four-lepton table, weighted as if this shard were the whole sample and its splits were one, and the sidecar
        as of `raypipe.simulate.shard.simulate_shard`; ``n_generated`` counts events with e- e+ mu- mu+ in truth.
    """
    settings = settings or FourLeptonSettings()
    began = time.perf_counter(), time.process_time()
    detector_rng = seeds.generator(seed, "detector")
    source = _Source(process, settings, seed, n_generate, mpi)
    flow = dict.fromkeys(STEPS, 0)
    parts: list[Quadruplets] = []
    rows: list[np.ndarray] = []
    for batch in source.batches():
        part = select(reconstruct_leptons(flatten(batch), card, detector_rng), len(batch), settings.cuts)
        parts.append(part)
        rows.append(flow["generated"] + part.event)
        for step, count in ({"generated": len(batch)} | part.cut_flow).items():
            flow[step] += count

    generated, selected = flow["generated"], flow[STEPS[-1]]
    sigma = source.cross_section()
    weight = reference(process.name, settings.beam_energy).value(sigma[0]) / generated
    embedding = in_embedding(seed, selected, embedding_fraction)
    table = four_lepton_table(
        parts, event_ids(process, shard, np.concatenate(rows)), process.name, process.group, embedding, weight
    )
    about = {"sample": process.name, "shard": shard, "hard_process": source.details}
    return table, about | account(seed, flow, embedding, sigma, began)
