"""Events of the four-lepton samples from Pythia."""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np

from raypipe import seeds
from raypipe.config.inputs import FourLeptons
from raypipe.simulate.fourlepton.hard_process import HardEvents, PartonCuts, Unweighter, hard_process
from raypipe.simulate.fourlepton.matrix_element import Electroweak
from raypipe.simulate.generator import Generator, pythia_seed
from raypipe.simulate.processes import FB_PER_PB, LES_HOUCHES, Process

LEPTON_IDS = (11, -11, 13, -13)  # PDG ids in the order of `HardEvents.leptons`

_PROTON = 2212

_INCOMING = "%d -1 0 0 %d %d 0. 0. %.11e %.11e 0. 0. 9.\n"
_OUTGOING = "%d 1 1 2 0 0 %.11e %.11e %.11e %.11e 0. 0. 9.\n"
_EVENT = "<event>\n6 1 1. %.11e %.8e 0.13\n" + 2 * _INCOMING + 4 * _OUTGOING + "</event>\n"


def write_lhe(path: Path, events: HardEvents, beam_energy: float, cross_section: tuple[float, float]) -> None:
    """Write ``events`` of unit weight with their ``cross_section`` and its error [fb]; SCALUP is their mass."""
    n, half = len(events), beam_energy / 2
    first = events.quark > 0
    columns = [events.mass, np.full(n, Electroweak().alpha)]
    for beam, sign in enumerate((1, -1)):
        # The quark carries colour 501, the antiquark anticolour 501.
        is_quark = first if beam == 0 else ~first
        energy = events.x[:, beam] * half
        columns += [sign * events.quark, np.where(is_quark, 501, 0), np.where(is_quark, 0, 501), sign * energy, energy]
    for i, pdg in enumerate(LEPTON_IDS):
        columns += [np.full(n, pdg), *events.leptons[:, i, 1:].T, events.leptons[:, i, 0]]
    sigma, error = (value / FB_PER_PB for value in cross_section)
    rows = np.column_stack(columns).ravel().tolist()
    path.write_text(
        f'<LesHouchesEvents version="1.0">\n<init>\n{_PROTON} {_PROTON} {half:.8e} {half:.8e} 0 0 0 0 3 1\n'
        f"{sigma:.8e} {error:.8e} 1. 1\n</init>\n" + (_EVENT * n) % tuple(rows) + "</LesHouchesEvents>\n",
        encoding="ascii",
    )


_HARD_OUTGOING = 23  # Absolute Pythia status of particles that come out of the hard process or a resonance in it


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

    @property
    def seed(self) -> int:
        """Of Pythia."""
        return self._generator.seed

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
