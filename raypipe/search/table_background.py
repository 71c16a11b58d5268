"""The background class of a search on a table: interpolated from the sidebands, or a given sample."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from raypipe import seeds
from raypipe.config.table import TableConfig
from raypipe.errors import UserError
from raypipe.events.readers.features import FeatureTable
from raypipe.events.regions import in_sidebands, in_signal_region
from raypipe.events.signed import positive_weights
from raypipe.fit.smooth import Scaler, fit_scaler
from raypipe.search.template import Template, build_template
from raypipe.stats.sideband import fit_sidebands


@dataclass(frozen=True)
class TableBackground:
    """The background class, in feature space, and what calibrates it."""

    template: Template
    others: dict[str, np.ndarray]
    """``sideband_data`` and ``sideband_template``, or nothing."""
    scaler: Scaler | None = None
    clock: dict[str, float] = field(default_factory=dict)
    flow_state: dict[str, Any] | None = None

    def bounded(self, features: np.ndarray) -> np.ndarray:
        """What the classifier may see of real events: not that they lie where the flow cannot sample."""
        return features if self.scaler is None else self.scaler.bounded(features)

    @property
    def said(self) -> str:
        """Which features were made smooth for the flow."""
        return "" if self.scaler is None else self.scaler.said


def interpolated(data: FeatureTable, side: np.ndarray, config: TableConfig, seed: int) -> TableBackground:
    """From a flow on the sidebands, at the masses of their fit."""
    from raypipe.fit.flows import fit_flows

    started = time.perf_counter()
    window = config.window
    fit = fit_sidebands(data.mass, window, config.massfit)
    scaler = fit_scaler(data.features[side], data.names, config.preprocess)
    latent = scaler.forward(data.features[side], seed).astype(np.float32)
    flow = fit_flows(
        latent,
        data.mass[side],
        config.flow.mass_range(window.low, window.high),
        config.flow,
        seed=seeds.integer(seed, "flow"),
        folds=config.classifier.folds,
    )
    trained = time.perf_counter()
    template = build_template(flow, fit, data.mass[side], flow.part, {}, config, seed)
    template = replace(
        template,
        latent=scaler.inverse(template.latent),
        sideband=scaler.inverse(template.sideband),
        training=tuple((scaler.inverse(values), weights) for values, weights in template.training),
    )
    others = {"sideband_data": data.features[side], "sideband_template": template.sideband}
    clock = {"seconds_flow": trained - started, "seconds_sampling": time.perf_counter() - trained}
    return TableBackground(template, others, scaler, clock, flow.state())


def given_background(
    data: FeatureTable, inside: np.ndarray, side: np.ndarray, background: FeatureTable, config: TableConfig
) -> TableBackground:
    """From an independent sample: its events in the signal region, and its sidebands where both tables have them."""
    window = config.window
    chosen = background.take(in_signal_region(background.mass, window))
    if not chosen.weight.sum() > 0:
        region = f"{window.sr_low:g}-{window.sr_high:g}"
        raise UserError(
            f"the background sample has no event (no positive sum of weights) in the signal region {region}"
        )
    fit = fit_sidebands(data.mass, window, config.massfit) if side.any() else None
    # Scaled to the data, the background has no normalisation of its own whose error could count.
    expected = fit.integral(window.sr_low, window.sr_high) if fit else (float(inside.sum()), 0.0)
    here = _unweighted(background.take(in_sidebands(background.mass, window)), seeds.integer(config.seed, "sidebands"))
    others = {"sideband_data": data.features[side], "sideband_template": here.features} if fit and len(here) else {}
    weight = chosen.weight * expected[0] / chosen.weight.sum()
    return TableBackground(Template(chosen.features, weight, np.zeros(len(chosen), bool), fit, *expected), others)


def _unweighted(table: FeatureTable, seed: int) -> FeatureTable:
    """Events that can be counted: of unequal weights, each is kept in proportion to its own."""
    if not len(table) or (table.weight == table.weight[0]).all():
        return table
    weight = positive_weights(np.c_[table.mass, table.features], table.weight)
    return table.take(seeds.generator(seed, "unweighted").random(len(table)) * weight.max() < weight)
