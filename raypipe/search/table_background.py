"""What a search on a table compares: which events and features, and a background learned or given."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from raypipe import seeds
from raypipe.config.table import TableConfig
from raypipe.errors import UserError
from raypipe.events.readers.features import FeatureTable
from raypipe.events.signed import positive_weights
from raypipe.events.twins import first_twin
from raypipe.fit.folds import deal_folds
from raypipe.fit.smooth import Scaler, fit_scaler
from raypipe.search.case import Template
from raypipe.stats.sideband import fit_sidebands


@dataclass(frozen=True)
class TableBackground:
    """The background class, in feature space, and what calibrates it."""

    template: Template
    others: dict[str, np.ndarray]  # ``sideband_data`` and ``sideband_template``, or nothing
    scaler: Scaler | None = None
    clock: dict[str, float] = field(default_factory=dict)
    flow_state: dict[str, Any] | None = None

    def bounded(self, features: np.ndarray) -> np.ndarray:
        """What the classifier may see of real events: not that they lie where the flow cannot sample."""
        return features if self.scaler is None else self.scaler.bounded(features)


def interpolated(data: FeatureTable, side: np.ndarray, config: TableConfig, seed: int) -> TableBackground:
    """From a flow on the sidebands, at the masses of their fit."""
    from raypipe.fit.flows import fit_flows  # PyTorch, which a search against a given background does not need
    from raypipe.search.cathode import build_template

    started = time.perf_counter()
    window = config.window
    fit = fit_sidebands(data.mass, window, config.massfit)
    scaler = fit_scaler(data.features[side], data.names, config.preprocess)
    latent = scaler.forward(data.features[side], seed).astype(np.float32)
    masses, how = config.flow.mass_range(window.low, window.high), {"folds": config.classifier.folds}
    flow = fit_flows(latent, data.mass[side], masses, config.flow, seed=seeds.integer(seed, "flow"), **how)
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
    chosen = background.take(window.inside(background.mass))
    if not chosen.weight.sum() > 0:
        where = f"in the signal region {window.sr_low:g}-{window.sr_high:g}"
        raise UserError(f"the background sample has no event (no positive sum of weights) {where}")
    fit = fit_sidebands(data.mass, window, config.massfit) if side.any() else None
    # Scaled to the data, the background has no normalisation of its own whose error could count.
    expected = fit.integral(window.sr_low, window.sr_high) if fit else (float(inside.sum()), 0.0)
    here = _unweighted(background.take(window.beside(background.mass)), seeds.integer(config.seed, "sidebands"))
    others = {"sideband_data": data.features[side], "sideband_template": here.features} if fit and len(here) else {}
    weight = chosen.weight * expected[0] / chosen.weight.sum()
    return TableBackground(Template(chosen.features, weight, np.zeros(len(chosen), bool), fit, *expected), others)


def _unweighted(table: FeatureTable, seed: int) -> FeatureTable:
    """Events that can be counted: of unequal weights, each is kept in proportion to its own."""
    if not len(table) or (table.weight == table.weight[0]).all():
        return table
    weight = positive_weights(np.c_[table.mass, table.features], table.weight)
    return table.take(seeds.generator(seed, "unweighted").random(len(table)) * weight.max() < weight)


def check_events(
    data: FeatureTable, config: TableConfig, inside: np.ndarray, side: np.ndarray, source: str, *, learns: bool
) -> None:
    """Refuse what cannot be searched, with the remedy; ``learns``: the sidebands make the background."""
    w = config.window
    span = f"masses {data.mass.min():g} to {data.mass.max():g}"
    if len(data.weight) and np.ptp(data.weight) > 0:
        raise UserError(f"{source}: recorded events count one each, these have weights (drop data.columns.weight)")
    if inside.sum() < config.classifier.folds * 20:
        raise UserError(
            f"{source}: {int(inside.sum())} events in the signal region {w.sr_low:g}-{w.sr_high:g} ({span}): "
            "at least 20 a fold are needed; set window.sr_low and window.sr_high in the unit of the mass column"
        )
    if not learns:
        return
    from raypipe.fit.flows import MIN_EVENTS

    lower, upper = (int((side & mask).sum()) for mask in (data.mass < w.sr_low, data.mass >= w.sr_high))
    if min(lower, upper) < MIN_EVENTS:
        raise UserError(
            f"{source}: {lower} events in the lower sideband {w.low:g}-{w.sr_low:g} and {upper} in the upper "
            f"{w.sr_high:g}-{w.high:g} ({span}), at least {MIN_EVENTS} each are needed to learn a background: give a "
            "table with sidebands, set window, or give a background sample with background.path=FILE"
        )


def varying(
    data: FeatureTable, inside: np.ndarray, side: np.ndarray, background: FeatureTable | None, source: str
) -> tuple[FeatureTable, FeatureTable | None, str]:
    """The tables without features that are the same for every event, and which they are, in words."""
    window = inside | side
    same = np.ptp(data.features[window], axis=0) == 0
    if background is None:
        for k in np.flatnonzero((np.ptp(data.features[side], axis=0) == 0) & ~same):
            raise UserError(
                f"{source}: feature {data.names[k]!r} is {data.features[side][0, k]:g} in every sideband event, not "
                "in the signal region: no background can be learned for it, leave it out"
            )
    elif len(background):
        same = np.ptp(np.concatenate([data.features[window], background.features]), axis=0) == 0
    if same.all():
        raise UserError(f"{source}: no feature varies ({', '.join(data.names)})")
    said = "; ".join(f"{data.names[k]}: always {data.features[window][0, k]:g}, left out" for k in np.flatnonzero(same))
    return data.only(~same), None if background is None else background.only(~same), said


def homes_of_repeated(
    data: FeatureTable, background: FeatureTable | None, config: TableConfig, seed: int
) -> tuple[dict[str, np.ndarray], int]:
    """One fold for all occurrences of an event among the data and a given background, nothing where none repeats; and
    the number of background events that are in the data too."""
    tables = {"data": data} if background is None else {"data": data, "template": background}
    chosen = [table.take(config.window.inside(table.mass)) for table in tables.values()]
    rows = [np.c_[table.mass, table.features] for table in chosen]
    first = first_twin(np.concatenate(rows))
    if (first == np.arange(len(first))).all():
        return {}, 0
    homes = deal_folds(rows, [], config.classifier.folds, seed)[0]
    return dict(zip(tables, homes, strict=True)), int((first[len(rows[0]) :] < len(rows[0])).sum())
