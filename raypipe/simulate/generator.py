"""Pythia 8 as a stream of event batches that cannot fail silently, and the hard processes that it lacks."""

import faulthandler
import sys
import tempfile
from collections.abc import Callable, Iterator
from math import pi
from pathlib import Path

import awkward as ak
import pythia8mc

from raypipe.errors import UserError
from raypipe.simulate.processes import Process

GLUON, TOP, HIGGS = 21, 6, 25


def qg_to_top_higgs(s: float, u: float, mass2_higgs: float, mass2_top: float) -> float:
    """|M|^2 of q g -> t H up to couplings: s-channel quark and u-channel top, q massless; u = (p_g - p_t)^2.

    One scalar vertex gives the kinematics of b g -> t H- with one Yukawa coupling; one for small m and u -> s. In
    GeV^2.
    """
    top = mass2_top - u
    return (
        s / top
        + top / s
        + 2 * mass2_top * (mass2_higgs - u) / top**2
        - 2 * mass2_top / top
        + 2 * (mass2_higgs - u) * (mass2_higgs - mass2_top - s) / (top * s)
    )


class TopHiggs(pythia8mc.Sigma2Process):
    """q g -> t H and its conjugate for one light up-type flavour, with unit coupling."""

    def __init__(self, flavour: int) -> None:
        super().__init__()
        self.flavour = flavour

    def name(self) -> str:
        return f"q({self.flavour}) g -> t H"

    def code(self) -> int:
        return 10_000 + self.flavour  # Pythia keeps 10000 and up for users

    def inFlux(self) -> str:
        return "qg"

    def id3Mass(self) -> int:
        return HIGGS

    def id4Mass(self) -> int:
        return TOP

    def initProc(self) -> None:
        """Nothing to set up."""

    def sigmaKin(self) -> None:
        """With the quark in the first beam, t = (p_q - p_H)^2 = (p_g - p_t)^2; `setIdColAcol` swaps the other case."""
        self._sigma = pi / self.sH2 * self.alpS * qg_to_top_higgs(self.sH, self.tH, self.s3, self.s4)

    def sigmaHat(self) -> float:
        return self._sigma if self.flavour in (abs(self.id1), abs(self.id2)) else 0.0

    def setIdColAcol(self) -> None:
        gluon_first = self.id1 == GLUON
        quark = self.id2 if gluon_first else self.id1
        self.setId(self.id1, self.id2, HIGGS, TOP if quark > 0 else -TOP)
        self.swapTU = gluon_first
        self.setColAcol(*((2, 1, 1, 0) if gluon_first else (1, 0, 2, 1)), 0, 0, 2, 0)
        if quark < 0:
            self.swapColAcol()


MATRIX_ELEMENTS: dict[str, Callable[[], pythia8mc.Sigma2Process]] = {
    "ug_th": lambda: TopHiggs(2),
    "cg_th": lambda: TopHiggs(4),
}
"""By the name that a `raypipe.simulate.processes.Process` gives."""


BATCH = 500  # Events a call of Pythia: larger batches are no faster and cost memory (about 0.3 MB an event)

MAX_LOSS = 0.01  # Largest share of events that Pythia may fail to make
FIRST = 25  # Events that tell how many tries an event takes
MOST_TRIES = 10_000  # An event; most processes take some ten, ttH some hundred
SEEDS = 5  # That are tried
STUCK = 900.0  # Seconds; a batch takes a few, with multi-parton interactions and on a busy machine a few hundred

MAX_SEED = 900_000_000  # Largest seed that Pythia accepts

FB_PER_MB = 1e12


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
        self._mpi = mpi
        self._start(seed)

    def _start(self, seed: int) -> None:
        """A Pythia of this seed."""
        process, self.seed = self.process, seed
        self.pythia = pythia8mc.Pythia("", False)
        # Pythia does not own the hook: without this reference Python would free it.
        self._hook = _HardPhotonVeto() if process.veto_hard_photons else None
        if self._hook is not None:
            self.pythia.setUserHooksPtr(self._hook)
        # Nor does it own a process of ours.
        self._matrix_element = MATRIX_ELEMENTS[process.matrix_element]() if process.matrix_element else None
        if self._matrix_element is not None:
            self.pythia.setSigmaPtr(self._matrix_element)
        self._read(("Print:quiet=on", "Beams:eCM=13000.", "Random:setSeed=on"))
        self._read((f"Random:seed={seed}", f"PartonLevel:MPI={'on' if self._mpi else 'off'}", *process.settings))
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

        More than `MAX_LOSS` skipped events, or a misconfigured process, is a `GenerationError`: Pythia says neither. A
        batch of `STUCK` seconds ends the process: Ray makes the shard again in another, and so does the next run.
        """
        asked = 0
        while asked < n:
            size = min(BATCH, n - asked)
            batch = self._batch(size) if self.generated else self._first(size)
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

    def _batch(self, size: int) -> ak.Array:
        faulthandler.dump_traceback_later(STUCK, exit=True, file=sys.__stderr__)
        batch = self.pythia.nextBatch(size)
        faulthandler.cancel_dump_traceback_later()
        return batch

    def _first(self, size: int) -> ak.Array:
        """The first batch, by another seed if this one's needs far too many tries an event.

        Pythia accepts events against the largest cross section that it met while it started. Now and then that is some
        spike, and an event takes seconds.
        """
        for number in range(SEEDS):
            if number:
                self._start(pythia_seed(self.seed + MAX_SEED // SEEDS))
            few = self._batch(min(FIRST, size))
            if self.pythia.infoPython().nTried() <= MOST_TRIES * FIRST:
                return ak.concatenate([few, self._batch(size - FIRST)]) if size > FIRST else few
        raise GenerationError(
            f"sample {self.process.name}: more than {MOST_TRIES} tries an event with each of {SEEDS} seeds"
        )

    def cross_section(self) -> tuple[float, float]:
        """Pythia's cross section and its statistical error [fb], after vetoes and for the open decay channels."""
        info = self.pythia.infoPython()
        return info.sigmaGen() * FB_PER_MB, info.sigmaErr() * FB_PER_MB
