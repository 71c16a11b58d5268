"""The YAML of a contrastive search (paper C), whole."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from raypipe.config.base import Section
from raypipe.config.grid import Scan, Selection
from raypipe.config.resources import Resources, Tracking
from raypipe.config.sections import (
    Classifier,
    Embedding,
    Flow,
    MassFit,
    MassWindow,
    PseudoData,
    Simulate,
)  # fmt: skip
from raypipe.files import digest


class Config(Section):
    """One search, whole."""

    search: Literal["contrastive"] = "contrastive"
    """Which of the published searches this is."""
    output: str = "runs/default"
    """Folder of everything this run writes."""
    seed: int = Field(1, ge=0)
    """Root of every random stream."""
    simulate: Simulate
    """Event samples."""
    window: MassWindow = MassWindow()
    """Signal region and sidebands."""
    embedding: Embedding
    """Encoder and its training."""
    pseudodata: PseudoData
    """Pseudo-data."""
    massfit: MassFit = MassFit()
    """Sideband mass fit."""
    flow: Flow = Flow()
    """Background model."""
    classifier: Classifier = Classifier()
    """Data against background."""
    selection: Selection
    """Working points."""
    scan: Scan
    """Grid."""
    resources: Resources = Resources()
    """Ray resources; they never change a number."""
    tracking: Tracking = Tracking()
    """MLflow."""

    @model_validator(mode="after")
    def _samples_exist(self) -> Config:
        known = set(self.simulate.samples)
        for key, names in (
            ("embedding.samples", self.embedding.samples),
            ("pseudodata.background", self.pseudodata.background),
            ("scan.signals", self.scan.signals),
        ):
            for name in names:
                if name not in known:
                    raise ValueError(f"{key}: sample {name!r} is not in simulate.samples ({', '.join(sorted(known))})")
        return self

    @model_validator(mode="after")
    def _flows_serve_the_folds(self) -> Config:
        self.flow.left_out(self.classifier.folds)
        return self

    def physics_hash(self) -> str:
        """Hash of everything that can change a number: not the output folder, the resources or the tracking."""
        return digest(self.model_dump(mode="json", exclude={"output", "resources", "tracking"}))
