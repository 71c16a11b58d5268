"""The grid over which a search is repeated (origins: see `raypipe.config.sections`)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from raypipe.config.base import Section, not_positive, refusing
from raypipe.kinds import BACKGROUNDS

EMBEDDINGS = Literal["id", "ip", "ep", "background", "raw"]


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
