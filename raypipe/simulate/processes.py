"""The process table (``processes.yaml``): every sample that can be simulated, its label, and what Pythia 8 is told."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from math import sqrt
from pathlib import Path
from typing import Any

import yaml

from raypipe.errors import UserError

FB_PER_PB = 1000.0
BEAM_ENERGY = 13_000.0  # GeV, of both beams together: what ``cross_section_pb`` stands for


@dataclass(frozen=True)
class Reference:
    """Cross section x branching ratio of one sample (None: the generator's own), a factor on it, its source."""

    cross_section_fb: float | None
    k_factor: float
    source: str

    def value(self, generator_fb: float) -> float:
        """Cross section [fb] including branching ratio and K factor, before the event selection."""
        return (generator_fb if self.cross_section_fb is None else self.cross_section_fb) * self.k_factor


@cache
def _table(name: str) -> dict[str, Any]:
    return yaml.safe_load(Path(__file__).with_name(name).read_text(encoding="utf-8"))


def reference(sample: str, beam_energy: float = BEAM_ENERGY) -> Reference:
    """The normalisation of ``sample`` at ``beam_energy`` [GeV]: its entry of ``yields.yaml``, else one fb (signals)."""
    values = _table("yields.yaml")
    entry = values["samples"].get(sample, values["signal"])
    cross_section = entry["cross_section_pb"]
    source = entry["source"]
    if beam_energy != BEAM_ENERGY and sample in values["samples"] and cross_section != "generator":
        others = entry.get("cross_section_pb_at", {})
        if beam_energy not in others:
            known = ", ".join(f"{energy:g}" for energy in (*others, BEAM_ENERGY))
            raise UserError(
                f"sample {sample}: yields.yaml has no cross section at {beam_energy:g} GeV (there is one at {known})"
            )
        cross_section = others[beam_energy]
    if cross_section == "generator":
        return Reference(None, float(entry.get("k_factor", 1.0)), source)
    branching = 1.0
    if "branching_ratio" in entry:
        ratio = values["branching_ratios"][entry["branching_ratio"]]
        branching = float(ratio["value"])
        source = f"{source}; BR {branching:g}: {ratio['source']}"
    return Reference(float(cross_section) * FB_PER_PB * branching, float(entry.get("k_factor", 1.0)), source)


GROUPS = (
    {0: "non-resonant", 1: "ggF", 2: "VBF", 3: "VH", 4: "ttH"}
    | {-1: "chargino-neutralino", -2: "extended Higgs sector", -3: "RPV chargino pair", -4: "RPV chargino-neutralino"}
    | {-5: "RPC sbottom", -6: "heavy resonance", -7: "FCNC top", -8: "RPC stop"}
    | {10: "4l continuum", 11: "H -> 4l", -10: "A -> BC -> 4l"}
)
"""Labels of the contrastive loss (paper C, table 1): all mass points of a family share one. From 10: four leptons."""
DIPHOTON, FOUR_LEPTONS = "diphoton", "four_leptons"
"""Final states: what a sample's events are selected and stored as."""
LES_HOUCHES = "Beams:frameType=4"
"""Pythia setting of a sample whose hard process is raypipe's own matrix element, read as a Les Houches file."""
DECOUPLED = 4000.0  # GeV, mass of every superpartner that a sample does not use
UNUSED = (
    *(*range(1000001, 1000007), *range(1000011, 1000017), *range(2000001, 2000007), 2000011, 2000013, 2000015),
    *(1000021, 1000022, 1000023, 1000024, 1000025, 1000035, 1000037, 35, 36, 37),
)


@dataclass(frozen=True)
class Process:
    """One sample: what Pythia is told and how its events are labelled.

    ``number``: high bits of its event ids; never reuse one. ``group``: label of the contrastive loss, a key of
    `GROUPS`. ``title``, ``approximations``: for people. ``settings``, ``after_init``: Pythia's, before and after
    initialisation (an SLHA DECAY block overwrites earlier ones). ``efficiency``: selected per generated event (measured
    with the atlas card). ``masses``: GeV. ``expected_fb``: Pythia's own cross section, for lists. ``slha``: text of a
    spectrum. ``matrix_element``: entry of `raypipe.simulate.generator.MATRIX_ELEMENTS`. ``final_state``:
    `DIPHOTON` or `FOUR_LEPTONS`. ``veto_hard_photons``: drop events that cannot pass before hadronising.
    ``jet_fakes_photon``: see `raypipe.simulate.jets`.
    """

    name: str
    number: int
    group: int
    title: str
    settings: tuple[str, ...]
    efficiency: float
    masses: tuple[tuple[str, float], ...] = ()
    approximations: tuple[str, ...] = ()
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


def _samples() -> Iterator[Process]:
    """The samples of ``processes.yaml``, whose head says how they are written."""
    table = _table("processes.yaml")
    for family in table["families"]:
        common = {name: value for name, value in family.items() if name not in ("columns", "points")}
        for row in family.get("points", [()]):
            own = dict(zip(family.get("columns", ()), row, strict=True))
            sample = common | {name: own[name] for name in ("number", "efficiency") if name in own}
            yield _entry(sample, table["words"] | own, table["approximations"])


def _entry(sample: Mapping[str, Any], given: Mapping[str, Any], known: Mapping[str, str]) -> Process:
    """One sample; ``given``: what stands for names and in braces, ``known``: approximations by name."""
    fields = {name: value.format_map(given) if isinstance(value, str) else value for name, value in sample.items()}
    for name in ("settings", "after_init"):
        parts = fields.get(name, "").replace("\n", ";").split(";")
        fields[name] = tuple(filter(None, map(str.strip, parts)))
    fields["group"] = given.get(sample["group"], sample["group"])
    fields["masses"] = tuple((name, given.get(mass, mass)) for name, mass in sample.get("masses", {}).items())
    fields["approximations"] = tuple(known.get(name, name) for name in sample.get("approximations", ["leading_order"]))
    if "slha" in sample:
        fields["slha"] = spectrum(**_numbers(sample["slha"], given))
    return Process(**fields)


def _numbers(value: Any, given: Mapping[str, Any]) -> Any:
    """``value`` with numbers in the place of the names in it."""
    if isinstance(value, dict):
        return {given.get(key, key): _numbers(part, given) for key, part in value.items()}
    return [_numbers(part, given) for part in value] if isinstance(value, list) else given.get(value, value)


def spectrum(masses: Mapping[int, float], decays: Mapping[int, Sequence[Any]]) -> str:
    """The text of an SLHA file with ``masses`` [GeV] by PDG id and ``decays``: width [GeV], then [ratio, products ...].

    Unlisted superpartners are decoupled. The lightest neutralino is the bino, the second the wino (full W coupling),
    the two heaviest are higgsinos.
    """
    half, table = 1 / sqrt(2), {25: 125.0, **dict.fromkeys(UNUSED, DECOUPLED), **masses}
    blocks = {
        "SPINFO": ["1 raypipe", "2 1"],
        "MODSEL": ["1 0"],
        "SMINPUTS": ["1 1.27934e2", "2 1.16637e-5", "3 0.1184", "4 91.1876", "5 4.18", "6 172.5", "7 1.777"],
        "MINPAR": ["3 10."],
        "MASS": [f"{pdg} {mass:.6e}" for pdg, mass in table.items()],
        "NMIX": _matrix([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, half, half], [0, 0, -half, half]]),
        **{name: _matrix([[1, 0], [0, 1]]) for name in ("UMIX", "VMIX", "STOPMIX", "SBOTMIX", "STAUMIX")},
        "ALPHA": ["-0.1"],
        "HMIX Q= 1000.": ["1 1000.", "2 10.", "3 246.", "4 1.6e7"],
        "GAUGE Q= 1000.": ["1 0.36", "2 0.65", "3 1.06"],
        **{f"{name} Q= 1000.": ["3 3 0."] for name in ("AU", "AD", "AE")},
        **{f"{name} Q= 1000.": [f"3 3 {value}"] for name, value in (("YU", 0.86), ("YD", 0.13), ("YE", 0.1))},
    }
    text = "".join(f"BLOCK {name}\n" + "".join(f"  {line}\n" for line in lines) for name, lines in blocks.items())
    for pdg, (width, *channels) in decays.items():
        lines = (f"  {ratio:.6e} {len(ids)} {' '.join(map(str, ids))}\n" for ratio, *ids in channels)
        text += f"DECAY {pdg} {width:.6e}\n" + "".join(lines)
    return text


def _matrix(rows: Sequence[Sequence[float]]) -> list[str]:
    return [f"{i} {j} {value:.8e}" for i, row in enumerate(rows, 1) for j, value in enumerate(row, 1)]


PROCESSES: dict[str, Process] = {process.name: process for process in _samples()}


def get(name: str) -> Process:
    """The entry of ``name``; an unknown one is a `UserError` that lists the known ones."""
    if name not in PROCESSES:
        close = difflib.get_close_matches(name, PROCESSES, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise UserError(f"simulate.samples: unknown sample {name!r} (known: {', '.join(PROCESSES)}){hint}")
    return PROCESSES[name]
