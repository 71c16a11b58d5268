"""The process table: every sample that can be simulated, one entry each.

A new sample is one new `Process` in `_TABLE` (and, if it is not a signal, its cross section in ``yields.yaml``).
Settings are Pythia 8 strings; the event generator's common settings (beams, seed, multi-parton interactions) are in
`raypipe.simulate.generator`. Recipes were checked in the event record: the tests hold the decay chains.
"""

from __future__ import annotations

import difflib
from dataclasses import asdict, dataclass
from typing import Any

from raypipe.errors import UserError
from raypipe.simulate.slha import C1, N1, N2, spectrum
from raypipe.simulate.yields import Reference, reference


@dataclass(frozen=True)
class Process:
    """One sample: what Pythia is told and how its events are labelled."""

    name: str
    """Name of the sample, process and mass point."""
    number: int
    """Fixed number of the sample, the high bits of its event ids; never reuse one."""
    group: int
    """Label of the contrastive loss: 0 non-resonant, 1..4 Higgs, -1..-8 signal families (paper C, table 1)."""
    title: str
    """For people."""
    settings: tuple[str, ...]
    """Pythia settings read before initialisation."""
    efficiency: float
    """Expected selected per generated event, only used to size shards (measured with the atlas card)."""
    slha: str | None = None
    """Text of an SLHA spectrum, for supersymmetric models."""
    after_init: tuple[str, ...] = ()
    """Pythia settings read after initialisation (an SLHA DECAY block overwrites earlier ones)."""
    veto_hard_photons: bool = False
    """Drop events whose two hard photons cannot pass the selection before hadronising them."""

    @property
    def reference(self) -> Reference:
        """Cross section, branching ratio and K factor (``yields.yaml``)."""
        return reference(self.name)

    def as_dict(self) -> dict[str, Any]:
        """All that determines this sample's events and yields; `efficiency` acts through the number generated."""
        return {**asdict(self), "reference": self.reference.as_dict(), "efficiency": None, "title": None}


_HIGGS = ("25:m0=125.", "25:mWidth=0.00407", "25:doForceWidth=on", "25:onMode=off", "25:onIfMatch=22 22")
"""H(125) -> yy in every event."""


def _higgs(name: str, number: int, title: str, efficiency: float, *switches: str) -> Process:
    settings = (*(f"HiggsSM:{switch}=on" for switch in switches), *_HIGGS)
    return Process(name, number, number, title, settings, efficiency)


def _wn(mass: float, number: int, efficiency: float) -> Process:
    """chi1+- chi2^0 -> (W chi1^0)(H chi1^0), both of ``mass``, with a chi1^0 of 0.5 GeV (A: "SUSY150"; C: group -1)."""
    slha = spectrum(
        {C1: mass, N2: mass, N1: 0.5},
        {N2: (0.1, [(1.0, (N1, 25))]), C1: (0.1, [(1.0, (N1, 24))]), N1: (0.0, [])},
    )
    settings = ("SUSY:qqbar2chi+-chi0=on", f"SUSY:idA={C1}", f"SUSY:idB={N2}", *_HIGGS)
    return Process(f"wn_{mass:g}", number, -1, f"chi+- chi0 -> WH, {mass:g} GeV", settings, efficiency, slha=slha)


def _xsh(mass_x: float, mass_s: float, number: int, efficiency: float) -> Process:
    """gg -> X -> S H with S -> b bbar; X is Pythia's H2 (35), S its A (36), both narrow (A and C: group -2).

    35 keeps its own channels, because they give its gg coupling: the new one is added and selected.
    """
    settings = (
        "Higgs:useBSM=on", "HiggsBSM:gg2H2=on",
        f"35:m0={mass_x}", "35:mWidth=0.01", "35:doForceWidth=on", f"35:mMin={mass_x - 2}", f"35:mMax={mass_x + 2}",
        "35:addChannel=1 1.0 100 25 36", "35:onMode=off", "35:onIfMatch=25 36",
        f"36:m0={mass_s}", "36:mWidth=0.01", "36:doForceWidth=on", f"36:mMin={mass_s - 1}", f"36:mMax={mass_s + 1}",
        "36:onMode=off", "36:onIfMatch=5 -5", *_HIGGS,
    )  # fmt: skip
    name = f"xsh_{mass_x:g}_{mass_s:g}"
    return Process(name, number, -2, f"X -> SH, {mass_x:g}/{mass_s:g} GeV, S -> bb", settings, efficiency)


def _zp(mass: float, number: int, efficiency: float) -> Process:
    """q qbar -> Z' -> H y, decay isotropic, relative width 4.2e-3 of a spin-2 carrier (C: group -6).

    The H is a copy with its own id (9000025): were it 25, Pythia would recognise G* -> hh and impose its own decay
    angle. Pythia's Z' itself cannot be used, as its cross section counts open fermion channels only.
    """
    settings = (
        "ExtraDimensionsG*:ffbar2G*=on", "ExtraDimensionsG*:kappaMG=0.054",
        f"5100039:m0={mass}", f"5100039:mWidth={0.0042 * mass}", "5100039:doForceWidth=on",
        f"5100039:mMin={0.9 * mass}", f"5100039:mMax={1.1 * mass}",
        "9000025:all=Hcopy void 1 0 0 125. 0.00407 120. 130. 0.", "9000025:isResonance=on",
        "9000025:oneChannel=1 1.0 100 22 22",
        "5100039:addChannel=1 1.0 100 9000025 22", "5100039:onMode=off", "5100039:onIfMatch=9000025 22",
    )  # fmt: skip
    return Process(f"zp_{mass:g}", number, -6, f"Z' -> H y, {mass:g} GeV", settings, efficiency)


_YY = Process(
    "yy", 0, 0, "non-resonant diphoton",
    (
        "PromptPhoton:ffbar2gammagamma=on", "PromptPhoton:gg2gammagamma=on",
        # The window exceeds 105-160 GeV by four resolutions on either side; the pT cut is below the selection's.
        "PhaseSpace:mHatMin=100.", "PhaseSpace:mHatMax=166.", "PhaseSpace:pTHatMin=25.",
        # Power shower: without it prompt-photon events have no hard jets at all.
        "SpaceShower:pTmaxMatch=2",
    ),
    efficiency=0.522, veto_hard_photons=True,
)  # fmt: skip

_TABLE = (
    _YY,
    _higgs("ggf", 1, "gluon-fusion H", 0.382, "gg2H"),
    _higgs("vbf", 2, "vector-boson-fusion H", 0.377, "ff2Hff(t:ZZ)", "ff2Hff(t:WW)"),
    _higgs("vh", 3, "WH and ZH", 0.315, "ffbar2HZ", "ffbar2HW"),
    _higgs("tth", 4, "ttH", 0.266, "gg2Httbar", "qqbar2Httbar"),
    _wn(150, 10, 0.342),
    _wn(300, 12, 0.404),
    _xsh(500, 100, 20, 0.446),
    _zp(400, 62, 0.385),
)

PROCESSES: dict[str, Process] = {process.name: process for process in _TABLE}
"""All samples by name."""


def get(name: str) -> Process:
    """The entry of ``name``; an unknown one is a `UserError` that lists the known ones."""
    if name not in PROCESSES:
        close = difflib.get_close_matches(name, PROCESSES, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise UserError(f"simulate.samples: unknown sample {name!r} (known: {', '.join(PROCESSES)}){hint}")
    return PROCESSES[name]
