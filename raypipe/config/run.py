"""A run, alone a simulation; with a background model from sidebands; a search in simulated diphotons, as of paper C."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, NonNegativeInt, TypeAdapter, model_validator

from raypipe.config.base import Resources, Section, Tracking, not_positive, refusing
from raypipe.config.inputs import Embedding, Simulate
from raypipe.config.sections import Classifier, Flow, MassFit, MassWindow, PseudoData, Selection
from raypipe.files import digest
from raypipe.kinds import BACKGROUNDS

EMBEDDINGS = Literal["id", "ip", "ep", "background", "raw"]
VARIATIONS = Literal[
    *("photon_scale", "photon_resolution", "jet_scale", "met_noise", "tag_loss"),
    *("higgs_yield", "higgs_pt", "continuum_jets"),
]


def _known_method(name: str) -> str:
    if name not in BACKGROUNDS:
        raise ValueError(f"unknown; known are {', '.join(BACKGROUNDS)}")
    return name


Method = Annotated[str, AfterValidator(_known_method)]
_POSITIVE = refusing(not_positive, "strength {} is not positive (runs without signal: background_instances)")
Strengths = Annotated[list[float], _POSITIVE]


class Grid(Section):
    """A further part of the scan; what it leaves out is as in the first part."""

    signals: list[str] | None = Field(None, min_length=1)
    """Some of `scan.signals`. [default: all]"""
    strengths: Strengths | None = Field(None, min_length=1)
    """Injected S/sqrt(B). [default: as the first part]"""
    instances: int | None = Field(None, ge=1)
    """Pseudo-data sets a signal and strength. [default: as the first part]"""
    background_instances: int = Field(0, ge=0)
    """Pseudo-data sets without any signal. [default]"""
    embeddings: list[EMBEDDINGS] | None = Field(None, min_length=1)
    """What the classifier sees. [default: as the first part]"""
    methods: list[Method] | None = Field(None, min_length=1)
    """How the background is known. [default: as the first part]"""
    variations: list[VARIATIONS] = Field([])
    """Worlds that the pseudo-data come from. [default]"""


class Scan(Section):
    """The grid over which the search is repeated."""

    signals: list[str] = Field(min_length=1)
    """Signal samples injected one at a time."""
    strengths: Strengths = Field(min_length=1)
    """Injected S/sqrt(B) in the signal region before any cut. [paper C: the axis of figures 4-7]"""
    instances: int = Field(10, ge=1)
    """Independent pseudo-data sets a signal and strength. [paper C]"""
    background_instances: int = Field(10, ge=0)
    """Pseudo-data sets without any signal. [default]"""
    embeddings: list[EMBEDDINGS] = Field(["id"], min_length=1)
    """What the classifier sees: the latent space of an encoder trained on everything (`id`), on all but the injected
    mass point (`ip`), on all but its family (`ep`), on the SM alone (`background`), or the nine features (`raw`).
    [paper C, section IV.1]"""
    methods: list[Method] = Field(["cathode"], min_length=1)
    """How the background is known: from the sidebands (`cathode`; without the simulated Higgs: `no_higgs`), from an
    independent true sample (`idealised`); beside them the `supervised` bound and the best `cut` on one feature.
    [paper C; `no_higgs` and `cut`: default]"""
    variations: list[VARIATIONS] = Field([])
    """Worlds that the pseudo-data come from beside the nominal one, which all that is trained knows alone: each is
    searched with the embedding `id` by `cathode`. See raypipe/events/worlds.py. [default]"""
    more: list[Grid] = Field([])
    """Further parts, joined to this one: comparisons that need not be made everywhere. [default]"""

    @model_validator(mode="after")
    def _known(self) -> Scan:
        for number, grid in enumerate(self.more):
            for name in grid.signals or []:
                if name not in self.signals:
                    raise ValueError(f"more[{number}].signals: {name!r} is not in scan.signals")
        return self

    def grids(self) -> list[dict[str, Any]]:
        """All parts as the arguments of `raypipe.search.diphoton.trial_grid`."""
        first = self.model_dump(exclude={"more"})
        return [first, *(first | grid.model_dump(exclude_none=True) for grid in self.more)]


class Run(Section):
    """Where a run goes and what its random numbers start from."""

    search: str
    """Which search this is."""
    output: str
    """Folder of everything this run writes."""
    seed: int = Field(1, ge=0)
    """Root of every random stream."""
    resources: Resources = Resources()
    """Ray resources; they never change a number."""
    label: str = "raypipe simulation"
    """Of the experiment, above every figure; empty: none. [default]"""

    FREE: ClassVar[frozenset[str]] = frozenset({"output", "resources", "label", "tracking", "tuned_on", "blind"})
    """Keys that cannot change a number."""

    def physics_hash(self) -> str:
        """Hash of everything that can change a number, but for the contents of files."""
        return digest(self.model_dump(mode="json", exclude=set(self.FREE)))

    def choice_hash(self) -> str:
        """Hash of what was chosen, whatever data it is tried on: `physics_hash` without the seed."""
        return digest(self.model_dump(mode="json", exclude={*self.FREE, "seed"}))


class Handed(SimpleNamespace):
    """The sections of a configuration that a key holds. Whoever is handed these can read no other."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{name!r} is not among the sections that were handed over: {', '.join(self.__dict__)}")

    @staticmethod
    def of(config: Any, sections: Sequence[str]) -> Handed:
        """Some of the sections, named with dots where of a section one key alone is read."""
        values: dict[str, Any] = {}
        for name in sections:
            head, _, key = name.partition(".")
            if key:
                values.setdefault(head, Handed()).__dict__[key] = getattr(getattr(config, head), key)
            else:
                values[head] = getattr(config, head)
        return Handed(**values)

    def model_copy(self, update: dict[str, Any]) -> Handed:
        """The same with some values replaced, as pydantic's."""
        return Handed(**(self.__dict__ | update))

    def plain(self) -> dict[str, Any]:
        """All that was handed over, JSON-ready."""
        dump = lambda value: TypeAdapter(Any).dump_python(value, mode="json")  # noqa: E731
        return {name: v.plain() if isinstance(v, Handed) else dump(v) for name, v in self.__dict__.items()}


class SidebandRun(Run):
    """A run whose background is learnt from the sidebands of a mass window."""

    window: MassWindow = MassWindow()
    """Signal region and sidebands."""
    massfit: MassFit = MassFit()
    """Sideband mass fit that normalises the continuum."""
    flow: Flow = Flow()
    """Background model."""
    classifier: Classifier = Classifier()
    """Data against background."""

    @model_validator(mode="after")
    def _flows_serve_the_folds(self) -> SidebandRun:
        self.flow.left_out(self.classifier.folds)
        return self


class DiphotonRun(SidebandRun):
    """A search in simulated diphoton events, with pseudo-data in place of recorded ones."""

    simulate: Simulate
    """Event samples."""
    embedding: Any
    """What the classifier sees, and how it is trained."""
    pseudodata: PseudoData
    """Pseudo-data."""
    selection: Selection
    """Working points."""
    scan: Scan
    """Grid."""
    tracking: Tracking = Tracking()
    """MLflow."""
    tuned_on: list[NonNegativeInt] = Field(default_factory=list)
    """Seeds whose pseudo-data were looked at while this was chosen; with another it is a first look. [default]"""

    @model_validator(mode="after")
    def _samples_exist(self) -> DiphotonRun:
        known = set(self.simulate.samples)
        asked = {"embedding.samples": self.embedding.samples, "pseudodata.background": self.pseudodata.background}
        for key, names in (asked | {"scan.signals": self.scan.signals}).items():
            for name in names:
                if name not in known:
                    raise ValueError(f"{key}: sample {name!r} is not in simulate.samples ({', '.join(sorted(known))})")
        return self


class Config(DiphotonRun):
    """A contrastive search (paper C), whole."""

    search: Literal["contrastive"] = "contrastive"
    """Which of the published searches this is."""
    output: str = "runs/default"
    """Folder of everything this run writes."""
    embedding: Embedding
    """Encoder and its training."""


class Simulation(Run):
    """Event samples alone, for `raypipe simulate`."""

    search: Literal["none"] = "none"
    """No search follows."""
    output: str = "runs/events"
    """Folder of everything this run writes."""
    simulate: Simulate
    """Event samples."""
