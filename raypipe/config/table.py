"""The YAML of a search on a user's own feature table (CATHODE, 2109.00546), with no simulation at all."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator

from raypipe.config.base import Section, Tracking
from raypipe.config.read import Column, Columns, Source
from raypipe.config.run import SidebandRun
from raypipe.config.sections import TABLE_TREES, Classifier, Cuts, MassWindow


class Files(Source):
    """Input files by name."""

    @property
    def paths(self) -> list[str]:
        """The files, as a list."""
        return [] if self.path is None else [self.path] if isinstance(self.path, str) else list(self.path)


class TableData(Files):
    """The recorded events."""

    path: str | list[str]
    """One file or several of the same columns; `data.path=FILE` on the command line. [default]"""
    columns: Columns
    """Which column is what."""


class TableBackground(Files):
    """An independent background sample that replaces the flow: the idealised anomaly detector."""

    path: str | list[str] | None = None
    """Files of the same columns as the data; null: the flow's interpolation from the sidebands. [default]"""
    weight: Column | None = None
    """Event weights; one where not given. [default]"""
    only_label_zero: bool = False
    """Keep only the rows labelled 0, where the files hold signal too. [default]"""


class Preprocess(Section):
    """What the flow sees of the features."""

    kind: Literal["logit", "standard"] = "logit"
    """`logit`: bounds from the sidebands, then logit and standardisation, as CATHODE for features that end at hard
    edges; `standard`: standardisation alone. [code]"""
    margin: float = Field(1e-3, gt=0)
    """Share of the range added beyond the outermost sideband event on either side. [default]"""


class Windows(Section):
    """A signal region that slides: windows of one width, each searched by itself."""

    width: float = Field(gt=0)
    """Of every window, in the unit of the mass."""
    step: float | None = Field(None, gt=0)
    """From the beginning of a window to that of the next; null: half the width. [default]"""
    flows: Literal["own", "shared"] = "own"
    """`own`: flows of every window, on all its sidebands; `shared`: windows that lie two widths apart have flows
    together, which know none of them: three sets of flows serve any number of windows side by side. [default]"""

    def regions(self, window: MassWindow) -> list[MassWindow]:
        """The windows from ``window.sr_low`` to ``window.sr_high`` at most, none if one is wider than that."""
        step = self.step or self.width / 2
        steps = math.floor((window.sr_high - window.sr_low - self.width) / step + 1e-9)  # a sum of steps may just miss
        lows = [window.sr_low + k * step for k in range(steps + 1)]
        edges = [{"sr_low": low, "sr_high": min(low + self.width, window.sr_high)} for low in lows]
        return [window.model_copy(update=one) for one in edges]

    def together(self, regions: list[MassWindow], number: int) -> list[MassWindow]:
        """The windows that share the flows of one, itself included."""
        apart = math.ceil(3 * self.width / (self.step or self.width / 2) - 1e-9) if self.flows == "shared" else 0
        return regions[number % apart :: apart] if apart else [regions[number]]


class TableConfig(SidebandRun):
    """A search on a feature table, whole."""

    search: Literal["table"] = "table"
    """Which search this is."""
    output: str = "runs/table"
    """Folder of everything this run writes."""
    label: str = ""
    """Of the experiment, above every figure. [default: none]"""
    data: TableData
    """The recorded events."""
    blind: bool | None = None
    """Count, score and draw nothing of the signal region until `raypipe unblind`; null: yes, unless the data have a
    column of true labels (`data.columns.label`), which only a simulation has, as the LHC Olympics. [default]"""
    background: TableBackground = TableBackground()
    """An independent background sample."""
    window: MassWindow
    """Signal region and sidebands, in the unit of the mass column."""
    windows: Windows | None = None
    """Windows that slide over the signal region in its place: what lies outside of one, also in the region, is its
    sidebands. Blind is the whole region. Null: the signal region is searched as it is. [default]"""
    preprocess: Preprocess = Preprocess()
    """Features of the flow."""
    classifier: Classifier = TABLE_TREES
    """Data against background."""
    selection: Cuts
    """Working points."""
    tracking: Tracking = Tracking(enabled=False)
    """MLflow. Off, since its database takes longer than a small search; a `tracking.uri` turns it on. [default]"""

    @property
    def recorded(self) -> list[str]:
        """Files that can be searched blind: all of the data, unless labels say that they are a simulation."""
        return self.data.paths if self.blind or self.data.columns.label is None else []

    @model_validator(mode="after")
    def _fits_together(self) -> TableConfig:
        columns = self.data.columns
        for name, value in (("mass", columns.mass), ("label", columns.label), ("weight", columns.weight)):
            if value is not None and value in columns.features:
                raise ValueError(f"data.columns.features holds the {name} column {value!r}")
        if self.windows and not self.windows.regions(self.window):
            region = f"the signal region {self.window.sr_low:g}-{self.window.sr_high:g} (window.sr_low, window.sr_high)"
            raise ValueError(f"windows.width = {self.windows.width:g}: wider than {region}, over which windows slide")
        if self.resources.artefacts is not None:
            raise ValueError("resources.artefacts: does not apply, a search on a table makes nothing that others share")
        return self
