"""A run, alone a simulation; with a background model from sidebands; a search in simulated diphotons, as of paper C."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field, NonNegativeInt, TypeAdapter, model_validator

from raypipe.config.base import Section
from raypipe.config.grid import Scan
from raypipe.config.inputs import Embedding, Simulate
from raypipe.config.resources import Resources, Tracking
from raypipe.config.sections import Classifier, Flow, MassFit, MassWindow, PseudoData, Selection
from raypipe.files import digest


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

    FREE: ClassVar[frozenset[str]] = frozenset({"output", "resources", "label", "tracking", "tuned_on"})
    """Keys that cannot change a number."""

    def physics_hash(self) -> str:
        """Hash of everything that can change a number, but for the contents of files."""
        return digest(self.model_dump(mode="json", exclude=set(self.FREE)))

    def choice_hash(self) -> str:
        """Hash of what was chosen, whatever data it is tried on: `physics_hash` without the seed."""
        return digest(self.model_dump(mode="json", exclude={*self.FREE, "seed"}))


class Handed:
    """The sections of a configuration that a key holds. Whoever is handed these can read no other."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.__dict__.update(values)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{name!r} is not among the sections that were handed over: {', '.join(self.__dict__)}")

    @staticmethod
    def of(config: Any, sections: Sequence[str]) -> Handed:
        """Some of the sections, named with dots where of a section one key alone is read."""
        values: dict[str, Any] = {}
        for name in sections:
            head, _, key = name.partition(".")
            if key:
                values.setdefault(head, Handed({})).__dict__[key] = getattr(getattr(config, head), key)
            else:
                values[head] = getattr(config, head)
        return Handed(values)

    def model_copy(self, update: dict[str, Any]) -> Handed:
        """The same with some values replaced, as pydantic's."""
        return Handed(self.__dict__ | update)

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
