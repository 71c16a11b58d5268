"""The background class of the classifier: generated continuum plus simulated SM Higgs, at expected yields."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raypipe import seeds
from raypipe.config import Config
from raypipe.config.table import TableConfig
from raypipe.events.latents import Events
from raypipe.events.regions import in_signal_region
from raypipe.fit.flows import ConditionalFlow
from raypipe.stats.sideband import SidebandFit


@dataclass(frozen=True)
class Template:
    """Weighted background events of the signal region; the weights sum to the expected number of events."""

    latent: np.ndarray
    """(n, d): continuum first, then Higgs."""
    weight: np.ndarray
    """(n,) expected events."""
    is_higgs: np.ndarray
    sideband: np.ndarray
    """(m, d) generated continuum at the masses of ``sideband_rows``, each by the member that did not see that event."""
    sideband_rows: np.ndarray
    """(m,) rows of the sideband data that at least one flow member was not trained on."""
    fit: SidebandFit | None
    """None where there are no sidebands."""
    continuum: float
    """Expected continuum events in the signal region, from the sideband fit."""
    continuum_error: float

    def expected_total(self, higgs_uncertainty: float) -> tuple[float, float]:
        """Expected events before any cut, and their error (sideband fit, Higgs yield)."""
        higgs = float(self.weight[self.is_higgs].sum())
        return self.continuum + higgs, float(np.hypot(self.continuum_error, higgs_uncertainty * higgs))

    def expected_after(
        self, passed: np.ndarray, kappa: float, kappa_error: float, higgs_uncertainty: float
    ) -> tuple[float, float]:
        """Expected events that pass a cut, and their error.

        Continuum: fit normalisation x passing share of the template x ``kappa``, the sideband calibration. Errors, in
        quadrature: normalisation, template statistics, calibration, Higgs yield, Higgs statistics.
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
        return max(c + h, float(self.weight.min())), float(np.sqrt(variance))


def build_template(
    flow: ConditionalFlow,
    fit: SidebandFit,
    sideband_masses: np.ndarray,
    higgs: dict[str, Events],
    config: Config | TableConfig,
    seed: int,
) -> Template:
    """Sample the flow in the signal region at masses of the fitted spectrum, and add the simulated Higgs.

    The flow interpolates the sidebands and cannot know a resonance: without its simulation the Higgs itself would be
    the anomaly. Only SM processes enter, so the search stays signal-agnostic (paper A).
    """
    window = config.window
    continuum, error = fit.integral(window.sr_low, window.sr_high)
    rng = seeds.generator(seed, "template")
    n = max(1, round(continuum * config.flow.oversampling))
    latents = [flow.sample(fit.sample(n, window.sr_low, window.sr_high, rng), rng)]
    weights = [np.full(n, continuum / n)]
    for name in sorted(higgs):
        inside = higgs[name].take(in_signal_region(higgs[name].mass, window))
        latents.append(inside.latent)
        weights.append(inside.weight * config.pseudodata.luminosity)
    # A member agrees too well with the events it was trained on: only those it never saw can calibrate it.
    blocks = {tuple(rows[:1]): (m, rows) for m, rows in reversed(list(enumerate(flow.held_out)))}
    held_out = sorted(blocks.values(), key=lambda pair: pair[0])
    sideband = np.concatenate([flow.member(m).sample(sideband_masses[rows], rng) for m, rows in held_out])
    sideband_rows = np.concatenate([rows for _, rows in held_out])
    weight = np.concatenate(weights)
    return Template(
        np.concatenate(latents), weight, np.arange(len(weight)) >= n, sideband, sideband_rows, fit, continuum, error
    )  # fmt: skip
