"""What a trial is handed, and what a way to know the background makes of it: see `raypipe.kinds.BACKGROUNDS`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, Self

import numpy as np

from raypipe import seeds
from raypipe.config import sections
from raypipe.events.latents import Events
from raypipe.events.pseudodata import PseudoData
from raypipe.fit.classifier import Background, FoldScores, ensemble_scores
from raypipe.search.result import Tools
from raypipe.stats.continuum import SidebandFit
from raypipe.stats.roc import poisson_weights


class Settings(Protocol):
    """The sections of a configuration that a trial reads."""

    seed: int
    window: sections.MassWindow
    pseudodata: sections.PseudoData
    massfit: sections.MassFit
    flow: sections.Flow
    classifier: sections.Classifier
    selection: sections.Selection

    def model_copy(self, *, update: Mapping[str, Any]) -> Self:
        """The same with other sections in the place of some."""


@dataclass(frozen=True)
class Tables:
    """The inputs of every trial, shared between them."""

    search: dict[str, Events]  # The search split by sample: stands for recorded data
    higgs: dict[str, Events]  # Simulated resonant background by sample, which no training saw
    continuum: np.ndarray | None = None  # (n,) GeV: masses of the simulated continuum that never plays data
    labels: dict[int, np.ndarray] = field(default_factory=dict)  # See `raypipe.search.identity.Labels`; none: not asked


ROW_REPLICAS = 50  # Replicas of the simulated events in a row: the error from them is known to 10 %
EVENTS_SEED = 0  # The same for all runs, so that encoders and configurations on the same events are compared as a pair


@dataclass(frozen=True)
class Case:
    """One pseudo-data set as one encoder sees it."""

    data: PseudoData
    inside: np.ndarray  # (n,) mask of the signal region over the data
    side: np.ndarray  # (n,) mask of the sidebands
    left: Events  # True background of the signal region that was not drawn
    left_weight: np.ndarray  # Their weights per fb^-1 at the samples' full yields
    signal: Events | None  # Signal of the signal region that was not injected
    higgs: dict[str, Events]
    shared_seed: int  # Of what all injections into this pseudo-data set may share

    @cached_property
    def drawn(self) -> dict[str, np.ndarray]:
        """Poisson weights (replicas, n) of the simulated events of the signal region that truth is judged on.

        They belong to the event: all pseudo-data sets, cuts and encoders see the same fluctuation of the simulation.
        """
        ids, truth = self.data.events.event_id[self.inside], self.data.is_signal[self.inside]
        sets = {"background": np.r_[ids[~truth], self.left.event_id]}
        if self.signal is not None:
            sets["signal"] = np.r_[ids[truth], self.signal.event_id]
        return {name: poisson_weights(of, EVENTS_SEED, ROW_REPLICAS) for name, of in sets.items()}

    def passes(self, scores: FoldScores, point: float) -> np.ndarray:
        """(n,) which data pass a cut, in the signal region and in the sidebands."""
        passed = np.zeros(len(self.inside), dtype=bool)
        passed[self.inside], passed[self.side] = (scores.passes(name, point) for name in ("data", "sideband_data"))
        return passed


@dataclass(frozen=True)
class Template:
    """Weighted background events of the signal region; the weights sum to the expected number of events.

    With a flow, every fold has a background of its own, from members that do not know the fold's part of the sidebands:
    what chance left out of the data that a flow has learned is missing in its samples too, just where a classifier
    selects.
    """

    latent: np.ndarray  # (n, d) what is judged: continuum first, then Higgs
    weight: np.ndarray  # (n,) expected events
    is_higgs: np.ndarray
    fit: SidebandFit | None  # None where there are no sidebands
    continuum: float  # Expected continuum events in the signal region, from the sideband fit
    continuum_error: float
    home: np.ndarray | None = None  # (n,) fold that judges each event; None where any may
    training: tuple[tuple[np.ndarray, np.ndarray], ...] = ()  # (latents, weights) that each fold trains against
    sideband: np.ndarray | None = None  # (m, d) generated at the mass of each sideband event, which no member knows
    sideband_home: np.ndarray | None = None  # (m,) fold of each sideband event, recorded or generated

    @property
    def homes(self) -> dict[str, np.ndarray]:
        """Folds by the names that `raypipe.fit.classifier.ensemble_scores` takes."""
        sides = {"sideband_data": self.sideband_home, "sideband_template": self.sideband_home}
        return {name: home for name, home in ({"template": self.home} | sides).items() if home is not None}

    def expected_total(self, higgs_uncertainty: float) -> tuple[float, float]:
        """Expected events before any cut, and their error (sideband fit, Higgs yield)."""
        higgs = float(self.weight[self.is_higgs].sum())
        return self.continuum + higgs, float(np.hypot(self.continuum_error, higgs_uncertainty * higgs))

    def expected_after(
        self, passed: np.ndarray, kappa: float, kappa_error: float, higgs_uncertainty: float
    ) -> tuple[float, float]:
        """Expected events that pass a cut, and their error; ``kappa`` is the sideband calibration of the continuum.

        Errors, in quadrature: normalisation, template statistics, calibration, Higgs yield, Higgs statistics.
        """
        continuum, higgs = (self.weight[passed & mask] for mask in (~self.is_higgs, self.is_higgs))
        c, h = float(continuum.sum()) * kappa, float(higgs.sum())
        variance = (
            (c * self.continuum_error / self.continuum) ** 2
            # One event more: an empty tail is not known to be empty.
            + kappa**2 * float((continuum**2).sum() + self.weight[~self.is_higgs].max(initial=0.0) ** 2)
            + (c / kappa * kappa_error) ** 2
            + (higgs_uncertainty * h) ** 2
            + float((higgs**2).sum())
        )
        # The count in the tail may be zero; the significance needs a positive expectation.
        return max(c + h, float(np.abs(self.weight[self.weight != 0]).min())), float(np.sqrt(variance))


@dataclass
class Judged:
    """Template and scores of one method; several ensembles of the same classifiers."""

    template: Template
    scores: list[FoldScores]
    flow_state: dict[str, Any] | None = None  # The background model, unless a stage keeps it
    flow_stage: str | None = None  # Its key, if a stage keeps it
    clock: dict[str, float] = field(default_factory=dict)


def classified(
    data: np.ndarray, template: Template, others: dict[str, np.ndarray], config: Settings, seed: int, tools: Tools
) -> list[FoldScores]:
    """Scores of ``data`` against a template, of every ensemble."""
    background = Background(template.latent, template.weight, template.training)
    how = {"seed": seeds.integer(seed, "classifier"), "threads": tools.threads}
    how |= {"train": tools.train} if tools.train else {}
    return ensemble_scores(data, background, config.classifier, others=others, homes=template.homes, **how)
