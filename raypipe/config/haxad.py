"""The YAML of a HAXAD search (paper A, 2508.13566, of which only the abstract is at hand), whole."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from raypipe.config.base import Section, refusing, twice
from raypipe.config.inputs import Parted
from raypipe.config.run import DiphotonRun

EMBEDDING = "id"
"""What the representation of the one autoencoder is called in trials and rows."""


class Vae(Parted):
    """Variational autoencoder of the nine event features, trained on simulated background alone."""

    samples: list[str] = Field(min_length=1)
    """Samples trained on, the same number of events of each. [paper A: signal-agnostic, so SM only]"""
    latent: int = Field(6, ge=1)
    """Latent dimension. [default]"""
    hidden: list[PositiveInt] = Field([64, 64], min_length=1)
    """Widths of the hidden layers of encoder and decoder. [default]"""
    beta: float = Field(0.05, ge=0)
    """Weight of the KL term against the reconstruction error in units of the features' variances. [default]"""
    epochs: int = Field(30, ge=1)
    """Passes over the events. [default]"""
    batch_size: int = Field(512, ge=2)
    """Events a step. [default]"""
    learning_rate: float = Field(1e-3, gt=0)
    """Of Adam. [default]"""


DISTINCT = refusing(twice, "a family is named twice")


class BumpHunt(Section):
    """The fit of the mass spectrum after the cut: continuum, simulated Higgs peak, signal peak on top of it."""

    families: Annotated[list[str], DISTINCT] = Field(["exp", "exppoly:2", "exppoly:3"], min_length=1)
    """Continuum families in rising flexibility, as in `raypipe fit --background`. [default]"""
    choice: Literal["f-test", "first"] = "f-test"
    """How the family is chosen on the simulated continuum: the first that the next does not improve by an F-test, or
    simply the first. [default]"""
    significance: float = Field(0.05, gt=0, lt=1)
    """p-value below which the F-test takes the more flexible family. [default]"""
    bin_width: float = Field(1.0, gt=0)
    """GeV, of the binned likelihood. [default]"""


class HaxadConfig(DiphotonRun):
    """One search, whole."""

    search: Literal["haxad"] = "haxad"
    """Which of the published searches this is."""
    output: str = "runs/haxad"
    """Folder of everything this run writes."""
    embedding: Vae
    """The autoencoder."""
    hunt: BumpHunt = BumpHunt()
    """Fit of the mass spectrum."""

    @model_validator(mode="after")
    def _one_embedding(self) -> HaxadConfig:
        for number, grid in enumerate((self.scan, *self.scan.more)):
            if grid.embeddings not in (None, [EMBEDDING]):
                where = f"scan.more[{number - 1}].embeddings" if number else "scan.embeddings"
                given = ", ".join(name for name in grid.embeddings if name != EMBEDDING) or "the same twice"
                raise ValueError(f"{where}: {given}: a haxad search has one embedding, `{EMBEDDING}`")
            if grid.variations:
                raise ValueError(f"scan.variations: {grid.variations[0]}: a haxad search has the nominal world alone")
        return self
