"""The background class of the classifier: generated continuum plus simulated SM Higgs, at expected yields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from raypipe import seeds
from raypipe.config import Config
from raypipe.config.table import TableConfig
from raypipe.events.latents import Events
from raypipe.events.regions import in_signal_region
from raypipe.stats.continuum import SidebandFit

if TYPE_CHECKING:  # its import takes a core second; searches against a given background need none
    from raypipe.fit.flows import ConditionalFlow


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


def build_template(
    flow: ConditionalFlow,
    fit: SidebandFit,
    sideband_masses: np.ndarray,
    sideband_home: np.ndarray,
    higgs: dict[str, Events],
    config: Config | TableConfig,
    seed: int,
) -> Template:
    """Sample the flow in the signal region at masses of the fitted spectrum, and add the simulated Higgs (paper A),
    which a flow of the sidebands cannot know.
    ``sideband_masses``: (m,) GeV, of the data; ``sideband_home``: (m,) the fold whose flows do not know each event.
    """
    window, folds = config.window, config.classifier.folds
    continuum, error = fit.integral(window.sr_low, window.sr_high)
    rng = seeds.generator(seed, "template")
    share = max(1, round(continuum * config.flow.oversampling / folds))
    each = continuum / (share * folds)
    luminosity = 0.0 if not higgs else config.pseudodata.luminosity
    inside = [higgs[name].take(in_signal_region(higgs[name].mass, window)) for name in sorted(higgs)]
    resonant = [(events.latent, events.weight * luminosity, rng.integers(0, folds, len(events))) for events in inside]
    judged, training = [], []
    sideband = np.empty((len(sideband_masses), flow.ensemble.features), np.float32)
    for fold in range(folds):
        one = flow.without(fold)
        drawn = one.sample(fit.sample(share * folds, window.sr_low, window.sr_high, rng), rng)
        judged.append(drawn[:share])
        others = [(latent[home != fold], weight[home != fold]) for latent, weight, home in resonant]
        parts = [(drawn[share:], np.full(share * (folds - 1), each)), *others]
        training.append((np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])))
        rows = sideband_home == fold
        sideband[rows] = one.sample(sideband_masses[rows], rng)
    latent = np.concatenate([*judged, *(r[0] for r in resonant)])
    weight = np.concatenate([np.full(share * folds, each), *(r[1] for r in resonant)])
    home = np.concatenate([np.repeat(np.arange(folds), share), *(r[2] for r in resonant)])
    is_higgs, side_home = np.arange(len(latent)) >= share * folds, np.asarray(sideband_home, np.int64)
    known = latent, weight, is_higgs, fit, continuum, error
    return Template(*known, home, tuple(training), sideband, side_home)
