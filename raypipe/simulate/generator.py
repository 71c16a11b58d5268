"""Pythia 8 as a stream of event batches that cannot fail silently."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import awkward as ak
import pythia8mc

from raypipe.errors import UserError
from raypipe.simulate.matrix_elements import MATRIX_ELEMENTS
from raypipe.simulate.processes import Process

BATCH = 500
"""Events a call of Pythia: larger batches are no faster and cost memory (about 0.3 MB an event)."""

MAX_LOSS = 0.01
"""Largest share of events that Pythia may fail to make."""

MAX_SEED = 900_000_000
"""Largest seed that Pythia accepts."""

FB_PER_MB = 1e12

_COMMON = ("Print:quiet=on", "Beams:eCM=13000.", "Random:setSeed=on")


def pythia_seed(seed: int) -> int:
    """A shard's seed folded into the range that Pythia accepts."""
    return 1 + seed % MAX_SEED


class GenerationError(UserError):
    """Pythia cannot make the events asked for; the message names the sample."""


class _HardPhotonVeto(pythia8mc.UserHooks):
    """Rejects q qbar, gg -> y y events that cannot be selected early; cross section x efficiency is unchanged."""

    SHOWER_SCALE, SHOWER_SLACK, SHOWER_ETA = 8.0, 4.0, 2.95
    """When the shower has come down to this pT [GeV]: what follows shifts a photon by less than the slack [GeV].

    Before the shower nothing can be said: of the pairs above 100 GeV, 6 % come from photons with |eta| > 3.5 there.
    """
    ETA, LEADING, SUBLEADING = 2.55, 0.37, 0.275
    """Before hadronisation, when photons are final: the cuts on |eta| and pT/m with four resolutions of slack."""

    def canVetoPT(self) -> bool:
        return True

    def scaleVetoPT(self) -> float:
        return self.SHOWER_SCALE

    def doVetoPT(self, _position: int, event: pythia8mc.Event) -> bool:
        return self._hopeless(event, self.SHOWER_ETA, self.SHOWER_SLACK)

    def canVetoPartonLevel(self) -> bool:
        return True

    def doVetoPartonLevel(self, event: pythia8mc.Event) -> bool:
        return self._hopeless(event, self.ETA, 0.0)

    def _hopeless(self, event: pythia8mc.Event, max_eta: float, slack: float) -> bool:
        first, second = (event[event[i].iBotCopyId()] for i in (5, 6))
        if abs(first.eta()) > max_eta or abs(second.eta()) > max_eta:
            return True
        mass = (first.p() + second.p()).mCalc()
        low, high = sorted((first.pT(), second.pT()))
        return high < self.LEADING * mass - slack or low < self.SUBLEADING * mass - slack


class Generator:
    """Pythia set up for one ``process``; ``mpi``: multi-parton interactions (3 to 12 times slower)."""

    def __init__(self, process: Process, seed: int, *, mpi: bool = False) -> None:
        if not 1 <= seed <= MAX_SEED:
            raise ValueError(f"Pythia seed {seed} is not between 1 and {MAX_SEED}")
        self.process = process
        self.generated = 0
        self.pythia = pythia8mc.Pythia("", False)
        # Pythia does not own the hook: without this reference Python would free it.
        self._hook = _HardPhotonVeto() if process.veto_hard_photons else None
        if self._hook is not None:
            self.pythia.setUserHooksPtr(self._hook)
        # Nor does it own a process of ours.
        self._matrix_element = MATRIX_ELEMENTS[process.matrix_element]() if process.matrix_element else None
        if self._matrix_element is not None:
            self.pythia.setSigmaPtr(self._matrix_element)
        self._read(_COMMON)
        self._read((f"Random:seed={seed}", f"PartonLevel:MPI={'on' if mpi else 'off'}", *process.settings))
        with tempfile.TemporaryDirectory(prefix="raypipe-slha-") as folder:
            if process.slha is not None:
                path = Path(folder) / "spectrum.slha"
                path.write_text(process.slha, encoding="utf-8")
                self._read((f"SLHA:file={path}", "SLHA:useDecayTable=on", "SLHA:verbose=0"))
            if not self.pythia.init():
                raise GenerationError(f"sample {process.name}: Pythia refused to initialise; check its settings")
        self._read(process.after_init)

    def _read(self, settings: tuple[str, ...]) -> None:
        for setting in settings:
            if not self.pythia.readString(setting):
                raise GenerationError(f"sample {self.process.name}: Pythia does not know the setting {setting!r}")

    def batches(self, n: int) -> Iterator[ak.Array]:
        """About ``n`` events in batches of at most `BATCH`: records ``prt`` (particles) and ``info``.

        More than `MAX_LOSS` skipped events, or a misconfigured process, is a `GenerationError`: Pythia says neither.
        """
        asked = 0
        while asked < n:
            size = min(BATCH, n - asked)
            batch = self.pythia.nextBatch(size)
            asked += size
            made = len(batch)
            if made == 0 or "prt" not in batch.fields:
                raise GenerationError(
                    f"sample {self.process.name}: Pythia made none of {size} events (no open process or decay channel?)"
                )
            self.generated += made
            # Small numbers get the slack of a few events.
            if asked - self.generated > max(MAX_LOSS * asked, 3):
                raise GenerationError(
                    f"sample {self.process.name}: Pythia lost {asked - self.generated} of {asked} events (more than "
                    f"{MAX_LOSS:.0%})"
                )
            yield batch

    def cross_section(self) -> tuple[float, float]:
        """Pythia's cross section and its statistical error [fb], after vetoes and for the open decay channels."""
        info = self.pythia.infoPython()
        return info.sigmaGen() * FB_PER_MB, info.sigmaErr() * FB_PER_MB
