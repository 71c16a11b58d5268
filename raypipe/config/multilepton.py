"""The YAML of a multilepton search (paper B, 2203.09601), whole."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from raypipe.config.base import Resources, Section, Tracking, not_positive, refusing
from raypipe.config.inputs import Simulate
from raypipe.config.run import Run

LAYERS = refusing(not_positive, "a layer of {} nodes is no layer")
STRENGTHS = refusing(not_positive, "strength {} is not positive (data sets without signal: calibration)")


class Networks(Section):
    """The classifiers, data against reference, all trained together."""

    hidden: Annotated[list[int], LAYERS] = Field([50, 50, 50], min_length=1)
    """Nodes of the hidden layers, ReLU. [paper B]"""
    members: int = Field(10, ge=1)
    """Networks averaged for every event of a data set. [paper B]"""
    losses: list[Literal["mlc", "bce"]] = Field(["mlc", "bce"], min_length=1)
    """Maximum-likelihood-classifier and binary cross-entropy loss. [paper B]"""
    epochs: int = Field(20, ge=1)
    """Passes over the events. [paper B]"""
    batch_size: int = Field(32, ge=2)
    """Events a step of one network. [default: Keras; the paper gives none]"""
    learning_rate: float = Field(1e-3, gt=0)
    """Of Adam. [default: Keras; the paper gives none]"""


class Comparison(Section):
    """What is compared: recorded data, or pseudo-data in their place, with the simulated background."""

    luminosity: float = Field(150.0, gt=0)
    """fb^-1. [paper B]"""
    background: list[str] = Field([])
    """Samples that make the background; not needed with `files`. [paper B: pp -> e+e-mu+mu-, Higgs included]"""
    expected: float | None = Field(None, gt=0)
    """Expected background events; weights x luminosity when not given. [default; the paper gives no number]"""
    reference_ratio: float = Field(1.0, gt=0)
    """Events of the reference an expected event of the data; their weight is the inverse. [paper B: as many]"""
    counts: Literal["poisson", "fixed"] = "poisson"
    """Whether the number of background events fluctuates from data set to data set, as in nature, or is always the
    same. Where it is fixed, an excess of events is seen without any background to it. [default]"""


class Bootstrap(Section):
    """The distribution of the statistics under the background-only hypothesis."""

    count: int = Field(100, ge=20)
    """Replicas; a 2 sigma band needs 20 at least, p is never below 1/(N+1). [default; the paper gives no number]"""
    electron_scale: float = Field(0.0, ge=0, lt=0.2)
    """Relative uncertainty of the electron momentum scale, drawn anew in every replica. [default; paper B: none]"""
    muon_scale: float = Field(0.0, ge=0, lt=0.2)
    """Likewise of the muon momentum scale. [default; paper B: none]"""
    normalisation: float = Field(0.0, ge=0, lt=1)
    """Relative uncertainty of the background's cross section, log-normal. [default; paper B: none]"""


class Strengths(Section):
    """The data sets over which the search is repeated."""

    signals: list[str] = Field([])
    """Signal samples injected one at a time."""
    strengths: Annotated[list[float], STRENGTHS, AfterValidator(sorted)] = Field([])
    """Injected signal events after the selection (their expectation where counts are poisson). [default]"""
    instances: int = Field(10, ge=2)
    """Independent injections a signal and strength. [paper B]"""
    calibration: int = Field(0, ge=0)
    """Further data sets without signal, from events that neither reference nor bootstraps have seen: the test that p
    is uniform. [default]"""
    zoom: float = Field(10.0, gt=1)
    """Factor on the horizontal axis between the two versions of a figure. [paper B]"""


class Files(Section):
    """A user's own tables: Parquet, CSV with a header, or CMS open-data four-lepton candidates as CSV."""

    data: str | list[str]
    """Recorded events, one file or several. [default]"""
    lepton_pt: float = Field(0.0, ge=0)
    """GeV, smallest pT of all four leptons of CMS open-data candidates that are used, so that recorded and simulated
    events pass the same cut. [default]"""
    reference: str | None = None
    """Simulated background; what the reference does not use is the pool of the bootstraps. Not needed with `simulate`.
    [default]"""
    signals: dict[str, str] = Field({})
    """Simulated signals by name, for injections. [default]"""
    weight: str | None = None
    """Weight column of the simulated tables, expected events per fb^-1; all equal when not given. [default]"""
    weights: Literal["file", "sign"] = "file"
    """`sign`: weights may be negative (NLO). Yields are their sums; events are drawn by averages over the nearest
    events in the features, which have the same sum. `file`: none may be negative. [default]"""
    duplicates: Literal["drop", "keep"] | None = None
    """Events of a table that repeat an earlier one in all features: `drop` uses each once, `keep` all of them. Null
    refuses more than 0.1 % of them. [default]"""
    acceptance: dict[str, float] = Field({})
    """Acceptance times efficiency of each signal, for the cross-section axis. [default]"""


class MultileptonConfig(Run):
    """One search, whole."""

    search: Literal["multilepton"] = "multilepton"
    """Which of the published searches this is."""
    output: str = "runs/multilepton"
    """Folder of everything this run writes."""
    features: list[str] = Field(["m_4l", "m_ee", "m_mumu"], min_length=1)
    """Columns that the networks see, standardised with mean and deviation of the reference. [paper B]"""
    simulate: Simulate | None = None
    """Event samples of background and signals; or `events`, or `files.reference`."""
    events: str | None = None
    """Folder of a data set that `raypipe simulate` has made already (the one with dataset.json). [default]"""
    files: Files | None = None
    """The user's own tables: recorded data, and the background unless `simulate` makes it."""
    blind: bool | None = None
    """Read nothing of recorded data (`files.data`) until `raypipe unblind`; null: the same as true. [default]"""
    compare: Comparison = Comparison()
    """Data and reference."""
    networks: Networks = Networks()
    """Classifiers."""
    bootstrap: Bootstrap = Bootstrap()
    """Bootstraps."""
    scan: Strengths = Strengths()
    """Injections."""
    chunk: int = Field(3, ge=1)
    """Data sets whose networks one worker trains together; it changes no result. [default]"""
    tracking: Tracking = Tracking()
    """MLflow."""

    FREE: ClassVar[frozenset[str]] = Run.FREE | {"events", "chunk"}

    @property
    def recorded(self) -> list[str]:
        """Files of the recorded data."""
        data = self.files.data if self.files else []
        return [data] if isinstance(data, str) else data

    @model_validator(mode="after")
    def _sources(self) -> MultileptonConfig:
        own = self.files is not None and self.files.reference is not None
        if sum((self.simulate is not None, self.events is not None, own)) != 1:
            raise ValueError("the background comes from one of `simulate`, `events` and `files.reference`")
        if not own and not self.compare.background:
            raise ValueError("compare.background: name the samples that make the background")
        if self.events is None:
            known = set(self.files.signals) if own else set(self.simulate.samples)
            where = "files.signals" if own else "simulate.samples"
            named = {"scan.signals": self.scan.signals, "compare.background": [] if own else self.compare.background}
            for key, names in named.items():
                for name in names:
                    if name not in known:
                        raise ValueError(f"{key}: {name!r} is not in {where} ({', '.join(sorted(known))})")
        if self.resources.pack_seconds != Resources().pack_seconds:
            raise ValueError("resources.pack_seconds: does not apply, `chunk` says how many data sets are packed")
        if len(set(self.features)) < len(self.features):
            raise ValueError("features: a column is named twice")
        return self
