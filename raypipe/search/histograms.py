"""The arrays behind the figures of one search: closure, latent and mass histograms, SIC curve, bins of the score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raypipe.fit.classifier import FoldScores, out_of_fold_scores
from raypipe.search.case import Case, Settings, Template
from raypipe.search.counting import bins_of
from raypipe.search.evaluate import binned, true_background
from raypipe.search.result import Tools
from raypipe.stats.roc import sic_curve, weighted_auc


@dataclass(frozen=True)
class Closure:
    """How well the template agrees with the true background of the signal region."""

    auc: float  # Of a classifier between the two, out of fold
    error: float  # Of the AUC, if both were alike
    efficiency: np.ndarray  # Efficiencies of the template, and
    true_efficiency: np.ndarray  # those of the true background at the same cuts


def closure(case: Case, template: Template, config: Settings, seed: int, tools: Tools) -> Closure:
    """Train a classifier between the template and the true background of the signal region (paper C, figure 3a).

    All simulated background is used, weighted to its yields: for a template that is itself the left-over background,
    only what was drawn.
    """
    drawn = case.data.events.take(case.inside & ~case.data.is_signal)
    truth, truth_weights = drawn.latent, drawn.weight
    latent, own = template.latent, template.weight
    if template.sideband is not None:
        truth, truth_weights = np.concatenate([truth, case.left.latent]), np.r_[truth_weights, case.left.weight]
        latent, own = template.thinned(config.flow.oversampling)
    how = {"seed": seed, "threads": tools.threads, "data_weights": truth_weights}
    scores = out_of_fold_scores(truth, latent, own, config.classifier, **how)
    values = -np.r_[scores.data, scores.template]
    labels = np.r_[np.ones(len(truth), bool), np.zeros(len(latent), bool)]
    weights = np.r_[truth_weights, own]
    grid = np.linspace(0, 1, 201)
    order = np.argsort(scores.data)
    passing = np.r_[0.0, np.cumsum(truth_weights[order])] / truth_weights.sum()
    true = passing[np.searchsorted(scores.data[order], grid, side="right")]
    return Closure(*weighted_auc(values, labels, weights), grid, true)


def figure_arrays(case: Case, scores: FoldScores, template: Template, config: Settings) -> dict[str, np.ndarray]:
    """Arrays for the report: latent and mass histograms, SIC curve; for `raypipe export` the bins of the likelihood.

    ``likelihood_family``: events a bin of the injected family at its simulated cross section, one fb.
    """
    data, inside, point = case.data, case.inside, config.selection.working_points[0]
    truth, window = data.is_signal[inside], config.window
    edges = np.linspace(window.low, window.high, round((window.high - window.low) / config.massfit.bin_width) + 1)
    arrays = {"mass_edges": edges, **binned(scores, template, config).arrays()}
    mass = data.events.mass
    cut = case.passes(scores, point)
    for name, mask in (("background", ~data.is_signal), ("signal", data.is_signal)):
        arrays[f"mass_before_{name}"] = np.histogram(mass[mask], edges)[0]
        arrays[f"mass_after_{name}"] = np.histogram(mass[mask & cut], edges)[0]
    centres = (edges[:-1] + edges[1:]) / 2
    arrays["mass_fit"] = template.fit.density(centres) * np.diff(edges)
    latent = data.events.latent[inside]
    for k in range(latent.shape[1]):
        low, high = np.quantile(template.latent[:, k], [0.0005, 0.9995])
        bins = np.linspace(low - 0.1 * (high - low), high + 0.1 * (high - low), 41)
        arrays[f"latent{k}_edges"] = bins
        arrays[f"latent{k}_data"] = np.histogram(latent[:, k], bins)[0]
        arrays[f"latent{k}_true"] = np.histogram(latent[~truth, k], bins)[0]
        arrays[f"latent{k}_template"] = np.histogram(template.latent[:, k], bins, weights=template.weight)[0]
        arrays[f"latent{k}_signal"] = np.histogram(latent[truth, k], bins)[0]
    if "signal" in scores.others:
        at = np.r_[bins_of(scores, "data")[truth], bins_of(scores, "signal")]
        weight = np.r_[data.events.weight[inside][truth], case.signal.weight] * config.pseudodata.luminosity
        arrays["likelihood_family"] = binned(scores, template, config, (at, weight)).signal
        grid = np.geomspace(1e-4, 1, 81)
        background, weights = true_background(case, scores.of)
        signal = np.r_[scores.data[truth], scores.others["signal"]]
        eff_s, curve = sic_curve(signal, background, weights, grid)
        arrays |= {"sic_background_efficiency": grid, "sic_signal_efficiency": eff_s, "sic": curve}
    return arrays
