"""CATHODE (2109.00546) on a user's own feature table: one function, tables and configuration in, `Result` out."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from raypipe import seeds
from raypipe.config.sections import MassWindow
from raypipe.config.table import TableConfig
from raypipe.errors import UserError
from raypipe.events.readers.features import FeatureTable
from raypipe.events.signed import positive_weights
from raypipe.events.twins import first_twin
from raypipe.fit.classifier import FoldScores, Mapper, deal_folds, out_of_fold_scores
from raypipe.fit.smooth import Scaler, fit_scaler
from raypipe.search.case import Template
from raypipe.search.counting import background_percentiles, check_cuts, counting_row, score_bins
from raypipe.search.counting import likelihood_significance as significance
from raypipe.search.result import DATA, Result, Stage
from raypipe.stats.roc import max_sic, sic, weighted_auc
from raypipe.stats.sideband import fit_sidebands


@dataclass(frozen=True)
class TableBackground:
    """The background class, in feature space, and what calibrates it."""

    template: Template
    others: dict[str, np.ndarray]  # ``sideband_data`` and ``sideband_template``, or nothing
    scaler: Scaler | None = None
    clock: dict[str, float] = field(default_factory=dict)
    flow_state: dict[str, Any] | None = None
    flow_stage: str | None = None

    def bounded(self, features: np.ndarray) -> np.ndarray:
        """What the classifier may see of real events: not that they lie where the flow cannot sample."""
        return features if self.scaler is None else self.scaler.bounded(features)


@dataclass(frozen=True)
class SharedFlows:
    """Flows of several windows, which know none of them."""

    windows: Sequence[MassWindow]
    seed: int
    stage: Stage | None  # Where they are kept

    def unknown(self, mass: np.ndarray) -> np.ndarray:
        """Mask (n,) of the events in one of the windows."""
        return np.logical_or.reduce([window.inside(mass) for window in self.windows])


def _learnt(data: FeatureTable, side: np.ndarray, shared: SharedFlows | None) -> np.ndarray:
    """Mask (n,) of the sideband events that flows learn from."""
    return side if shared is None else side & ~shared.unknown(data.mass)


def interpolated(
    data: FeatureTable, side: np.ndarray, config: TableConfig, seed: int, shared: SharedFlows | None
) -> TableBackground:
    """From flows on the sidebands, at the masses of their fit."""
    from raypipe.fit.flows import FlowSet, Sidebands  # PyTorch, which a given background does not need
    from raypipe.search.cathode import build_template

    started = time.perf_counter()
    window, folds = config.window, config.classifier.folds
    fit = fit_sidebands(data.mass, window, config.massfit)
    learnt = _learnt(data, side, shared)
    own = seed if shared is None else shared.seed
    scaler = fit_scaler(data.features[learnt], data.names, config.preprocess)
    latent = scaler.forward(data.features[learnt], own).astype(np.float32)
    sidebands = Sidebands(latent, data.mass[learnt], seeds.integer(own, "flow"))
    wanted = FlowSet(sidebands, config.flow.mass_range(window.low, window.high), config.flow, folds)
    flow, key = wanted.kept(None if shared is None else shared.stage)
    trained = time.perf_counter()
    fold = seeds.generator(seed, "sideband-folds").integers(0, folds, len(data))  # of events that no flow knows
    fold[learnt] = flow.part
    template = build_template(flow, fit, data.mass[side], fold[side], {}, config, seed)
    template = replace(
        template,
        latent=scaler.inverse(template.latent),
        sideband=scaler.inverse(template.sideband),
        training=tuple((scaler.inverse(values), weights) for values, weights in template.training),
    )
    others = {"sideband_data": data.features[side], "sideband_template": template.sideband}
    clock = {"seconds_flow": trained - started, "seconds_sampling": time.perf_counter() - trained}
    return TableBackground(template, others, scaler, clock, None if key else flow.state(), key)


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


def search_table(
    data: FeatureTable,
    config: TableConfig,
    *,
    background: FeatureTable | None = None,
    mapper: Mapper = map,
    source: str = "data",
    shared: SharedFlows | None = None,
) -> tuple[Result, pa.Table]:
    """Run the whole search once: sidebands -> template in the signal region -> out-of-fold classifiers -> cuts.

    With sidebands the flow makes the template and the mass fit its expected yield. With ``background`` its events in
    the signal region are the template (the idealised anomaly detector); its yield comes from the mass fit, or, where
    the data have no sidebands, from the data themselves: then only the excess in shape, after the cut, says something.
    ``shared``: flows of several windows in place of its own.
    Deterministic in (data, background, config), whatever the mapper. Returns `scored_events`, too. What cannot be
    searched, and a blind search, is a `UserError` naming ``source`` and the remedy.
    """
    if config.blind or (config.blind is None and config.data.columns.label is None):
        raise UserError(f"{source}: blind until `raypipe unblind RUN`; before, see raypipe.search.blinding")
    started = time.perf_counter()
    window, selection = config.window, config.selection
    data, repeated = data.distinct(config.data.duplicates, source, "data.duplicates")
    if background is not None:
        background, _ = background.distinct(config.background.duplicates, "background", "background.duplicates")
        background = background.take(background.weight != 0)  # the others say nothing
    inside, side = window.inside(data.mass), window.beside(data.mass)
    check_events(data, config, inside, _learnt(data, side, shared), source, learns=background is None)
    data, background, constant = varying(data, inside, side, background, source)
    seed = seeds.integer(config.seed, "search", "table", bits=62)
    if background is None:
        made = interpolated(data, side, config, seed, shared)
    else:
        made = given_background(data, inside, side, background, config)
    template = made.template
    calibrate = selection.sideband_calibration and bool(made.others)
    check_cuts(selection.working_points, template, config.classifier.folds, by_sidebands=calibrate)
    homes, both = homes_of_repeated(data, background, config, seed)
    now = time.perf_counter()
    events, others = made.bounded(data.features[inside]), {k: made.bounded(v) for k, v in made.others.items()}
    how = {"homes": template.homes | homes, "background": template.training or None, "mapper": mapper}
    how |= {"seed": seeds.integer(seed, "classifier"), "others": others}
    scores = out_of_fold_scores(events, template.latent, template.weight, config.classifier, **how)
    clock = made.clock | {"seconds_classifier": time.perf_counter() - now}
    if calibrate and template.sideband is not None:
        scores = background_percentiles(scores, template)
    truth = None if data.label is None else data.label[inside]
    common = {"background_model": "flow" if background is None else "table"}
    common |= {"normalisation": "sidebands" if side.any() else "data"}
    features = "; ".join(filter(None, (made.scaler and made.scaler.said, constant)))
    common |= {"features": features, "repeated": repeated, "shared": both}
    common |= {"flow_stage": made.flow_stage} if made.flow_stage else {}
    common |= _columns(scores, template, config) | _best_cut(scores, truth) | clock
    bins = score_bins(scores, template, selection)
    z = significance(bins)
    common["seconds"] = time.perf_counter() - started
    rows = [common | _row(scores, template, point, truth, config) for point in selection.working_points]
    rows = [row | {"z_likelihood": float("nan") if row["verdict"] else z} for row in rows]
    arrays = _figures(data, inside, scores, template, config) | bins.arrays()
    return Result(rows, arrays, made.flow_state), scored_events(data.take(inside), scores)


def scored_events(inside: FeatureTable, scores: FoldScores) -> pa.Table:
    """Every event of the signal region: ``event_id``, ``mass``, ``score`` (mean out-of-fold log-odds of data against
    background), ``background_percentile`` (share of the background that looks at least as data-like; for events of
    equal score see `FoldScores.passes`), and ``label`` where the data have one."""
    events = {"event_id": inside.event_id, "mass": inside.mass, "score": scores.margin}
    events["background_percentile"] = scores.data
    return pa.table(events if inside.label is None else events | {"label": inside.label})


def _columns(scores: FoldScores, template: Template, config: TableConfig) -> dict[str, Any]:
    """What all cuts share."""
    labels = np.repeat([True, False], [len(scores.data), len(scores.template)])
    weights = np.r_[np.ones(len(scores.data)), template.weight]
    auc, error = weighted_auc(-np.r_[scores.data, scores.template], labels, weights)
    chi2, ndf = (template.fit.chi2, template.fit.ndf) if template.fit else (float("nan"), 0)
    row = {"signal": DATA, "strength": 0.0, "instance": 0, "seed": config.seed}
    row |= {"auc_data_template": auc, "auc_error": error, "massfit_chi2": chi2, "massfit_ndf": ndf}
    row["negative_weights"] = float((template.weight < 0).mean())
    return row | {"duplicates": config.data.duplicates or "keep"}


def _row(
    scores: FoldScores, template: Template, point: float, truth: np.ndarray | None, config: TableConfig
) -> dict[str, Any]:
    """One cut: `counting_row`, and with labels S and B before and after, efficiencies, SIC."""
    row = {"working_point": point} | counting_row(scores, template, point, config.selection)
    if truth is None:
        return row | dict.fromkeys(("signal_efficiency", "background_efficiency", "sic"), float("nan"))
    passed = scores.passes("data", point)
    eff = [float(passed[mask].mean()) if mask.any() else float("nan") for mask in (truth, ~truth)]
    for when, cut in (("before", np.ones_like(passed)), ("after", passed)):
        row |= {f"s_{when}": int((truth & cut).sum()), f"b_{when}": int((~truth & cut).sum())}
    return row | {"signal_efficiency": eff[0], "background_efficiency": eff[1], "sic": sic(*eff)}


def _best_cut(scores: FoldScores, truth: np.ndarray | None) -> dict[str, float]:
    """AUC and the largest SIC of signal against background among the data, NaN without labels of both kinds."""
    names = ("auc", "max_sic", "max_sic_error", "max_sic_background_efficiency")
    found = dict.fromkeys(names, float("nan"))
    if truth is None or not truth.any() or truth.all():
        return found
    order = np.argsort(np.lexsort((scores.margin, -scores.data)))  # beyond the template the log-odds decide
    found["auc"] = weighted_auc(order, truth)[0]
    if (best := max_sic(order[truth], order[~truth])) is not None:
        found |= zip(names[1:], (best.sic, best.error, best.background_efficiency), strict=True)
    return found


def _figures(
    data: FeatureTable, inside: np.ndarray, scores: FoldScores, template: Template, config: TableConfig
) -> dict[str, np.ndarray]:
    """Histograms of mass and features, before and after the first cut."""
    low, high = config.window.low, config.window.high
    edges = np.linspace(low, high, max(2, round((high - low) / config.massfit.bin_width)) + 1)
    arrays = {"mass_edges": edges, "mass_data": np.histogram(data.mass, edges)[0]}
    if template.fit:
        arrays["mass_fit"] = template.fit.density((edges[:-1] + edges[1:]) / 2) * np.diff(edges)
    passed = scores.passes("data", config.selection.working_points[0])
    for k, name in enumerate(data.names):
        values = data.features[inside, k]
        bins = np.linspace(*np.quantile(np.r_[values, template.latent[:, k]], [0.0005, 0.9995]), 41)
        arrays[f"{name}_edges"] = bins
        arrays[f"{name}_data"] = np.histogram(values, bins)[0]
        arrays[f"{name}_after"] = np.histogram(values[passed], bins)[0]
        arrays[f"{name}_template"] = np.histogram(template.latent[:, k], bins, weights=template.weight)[0]
    return arrays
