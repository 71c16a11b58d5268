"""Events of the four-lepton samples from Pythia."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np

from raypipe import seeds
from raypipe.config.fourlepton import FourLeptons
from raypipe.simulate.fourlepton.hard_process import PartonCuts, Unweighter, hard_process
from raypipe.simulate.fourlepton.lhe import write_lhe
from raypipe.simulate.generator import Generator, pythia_seed
from raypipe.simulate.processes import Process
from raypipe.simulate.processes.fourlepton import LES_HOUCHES

_HARD_OUTGOING = 23
"""Absolute Pythia status of particles that come out of the hard process or a resonance in it."""


def has_four_leptons(batch: ak.Array) -> np.ndarray:
    """Mask of the events whose hard process ends in e- e+ mu- mu+ (H -> ZZ* also gives four of a kind)."""
    hard = batch.prt.id[abs(batch.prt.status) == _HARD_OUTGOING]
    return np.all([ak.any(hard == pdg, axis=1).to_numpy() for pdg in (11, -11, 13, -13)], axis=0)


class FourLeptonSource:
    """Events of one shard from Pythia, by its own process or from raypipe's matrix element."""

    def __init__(self, process: Process, section: FourLeptons, seed: int, n: int, mpi: bool) -> None:
        self.details: dict[str, Any] = {}
        self._seen, self._kept = 0, 0
        self._cross_section: tuple[float, float] | None = None
        if LES_HOUCHES not in process.settings:
            beams = replace(process, settings=(*process.settings, f"Beams:eCM={section.beam_energy}"))
            self._generator = Generator(beams, pythia_seed(seed), mpi=mpi)
            return
        unweighter = Unweighter(hard_process(PartonCuts.of(section)), seeds.generator(seed, "hard process"))
        events = unweighter.events(n)
        self._cross_section = unweighter.cross_section
        self.details = {"tries": unweighter.tries, "overweight": unweighter.overweight}
        with tempfile.TemporaryDirectory(prefix="raypipe-lhe-") as folder:
            path = Path(folder) / "events.lhe"
            write_lhe(path, events, section.beam_energy, self._cross_section)
            reading = replace(process, settings=(*process.settings, f"Beams:LHEF={path}"))
            # Pythia opens the file here and keeps it open, so that its name is no longer needed.
            self._generator = Generator(reading, pythia_seed(seed), mpi=mpi)

    def batches(self, n: int) -> Iterator[ak.Array]:
        """``n`` events or more with e- e+ mu- mu+ in truth, fewer where the Les Houches file ends."""
        while self._kept < n:
            for batch in self._generator.batches(n - self._kept):
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
