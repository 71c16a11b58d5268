"""What one entry of the process table says: the sample's name and label, and what Pythia 8 is told."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from raypipe.simulate.yields import Reference, reference

GROUPS = (
    {0: "non-resonant", 1: "ggF", 2: "VBF", 3: "VH", 4: "ttH"}
    | {-1: "chargino-neutralino", -2: "extended Higgs sector", -3: "RPV chargino pair", -4: "RPV chargino-neutralino"}
    | {-5: "RPC sbottom", -6: "heavy resonance", -7: "FCNC top", -8: "RPC stop"}
    | {10: "4l continuum", 11: "H -> 4l", -10: "A -> BC -> 4l"}
)
"""Labels of the contrastive loss (paper C, table 1): all mass points of a family share one. From 10: four leptons."""

DIPHOTON, FOUR_LEPTONS = "diphoton", "four_leptons"  # Final states: what a sample's events are selected and stored as

LEADING_ORDER = "leading order; further jets from the parton shower"
ISOTROPIC = "hand-set decays are isotropic (no spin correlations)"
ONE_YY = "one H -> yy, the other inclusive (its own yy 0.2 %)"


@dataclass(frozen=True)
class Process:
    """One sample: what Pythia is told and how its events are labelled.

    ``number``: high bits of its event ids; never reuse one. ``group``: label of the contrastive loss, a key of
    `GROUPS`. ``title``, ``approximations``: for people. ``settings``, ``after_init``: Pythia's, before and after
    initialisation (an SLHA DECAY block overwrites earlier ones). ``efficiency``: selected per generated event (measured
    with the atlas card). ``masses``: GeV. ``expected_fb``: Pythia's own cross section, for lists. ``slha``: text of a
    spectrum. ``matrix_element``: entry of `raypipe.simulate.generator.MATRIX_ELEMENTS`. ``final_state``:
    `DIPHOTON` or `FOUR_LEPTONS`. ``veto_hard_photons``: drop events that cannot pass before hadronising.
    ``jet_fakes_photon``: see `raypipe.simulate.fakes`.
    """

    name: str
    number: int
    group: int
    title: str
    settings: tuple[str, ...]
    efficiency: float
    masses: tuple[tuple[str, float], ...] = ()
    approximations: tuple[str, ...] = (LEADING_ORDER,)
    expected_fb: float | None = None
    slha: str | None = None
    after_init: tuple[str, ...] = ()
    matrix_element: str | None = None
    final_state: str = DIPHOTON
    veto_hard_photons: bool = False
    jet_fakes_photon: bool = False

    @property
    def reference(self) -> Reference:
        """Cross section, branching ratio and K factor (``yields.yaml``)."""
        return reference(self.name)

    @property
    def expected_yield_per_fb(self) -> float:
        """Selected events per fb^-1 as `efficiency` and the reference say; a finished data set has measured it."""
        return self.reference.value(self.expected_fb or 0.0) * self.efficiency

    def as_dict(self) -> dict[str, Any]:
        """All that determines this sample's events and yields; `efficiency` acts through the number generated."""
        for_people = dict.fromkeys(("efficiency", "title", "masses", "approximations", "expected_fb"))
        return {**asdict(self), "reference": asdict(self.reference), **for_people}

    def listing(self) -> dict[str, Any]:
        """What `raypipe simulate --list` shows of this sample, JSON-ready."""
        reference, shown = self.reference, self.expected_yield_per_fb
        who = {"sample": self.name, "group": self.group, "family": GROUPS[self.group], "title": self.title}
        much = {"masses": dict(self.masses), "expected_yield_per_fb": shown, "efficiency": self.efficiency}
        sigma = {"cross_section_fb": reference.cross_section_fb or self.expected_fb, "k_factor": reference.k_factor}
        return who | much | sigma | {"source": reference.source, "approximations": list(self.approximations)}


def pythia(text: str) -> tuple[str, ...]:
    """Pythia settings from text, one a line or parted by semicolons."""
    return tuple(filter(None, map(str.strip, text.replace("\n", ";").split(";"))))


HIGGS = pythia("25:m0=125.; 25:mWidth=0.00407; 25:doForceWidth=on; 25:onMode=off; 25:onIfMatch=22 22")
"""H(125) -> yy in every event."""
