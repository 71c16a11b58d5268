"""CATHODE (2109.00546) on a user's own feature table: one function, tables and configuration in, `Result` out."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pyarrow as pa

from raypipe import seeds
from raypipe.config.table import TableConfig
from raypipe.events.readers.features import FeatureTable
from raypipe.fit.classifier import FoldScores, Mapper, out_of_fold_scores
from raypipe.search.case import Template
from raypipe.search.counting import background_percentiles, check_cuts, counting_row, score_bins
from raypipe.search.counting import likelihood_significance as significance
from raypipe.search.result import DATA, Result
from raypipe.search.table_background import check_events, given_background, homes_of_repeated, interpolated, varying
from raypipe.stats.roc import max_sic, sic, weighted_auc


def search_table(
    data: FeatureTable,
    config: TableConfig,
    *,
    background: FeatureTable | None = None,
    mapper: Mapper = map,
    source: str = "data",
) -> tuple[Result, pa.Table]:
    """Run the whole search once: sidebands -> template in the signal region -> out-of-fold classifiers -> cuts.

    With sidebands the flow makes the template and the mass fit its expected yield. With ``background`` its events in
    the signal region are the template (the idealised anomaly detector); its yield comes from the mass fit, or, where
    the data have no sidebands, from the data themselves: then only the excess in shape, after the cut, says something.
    Deterministic in (data, background, config), whatever the mapper. Returns `scored_events`, too. What cannot be
    searched is a `UserError` naming ``source`` and the remedy.
    """
    started = time.perf_counter()
    window, selection = config.window, config.selection
    data, repeated = data.distinct(config.data.duplicates, source, "data.duplicates")
    if background is not None:
        background, _ = background.distinct(config.background.duplicates, "background", "background.duplicates")
        background = background.take(background.weight != 0)  # the others say nothing
    inside, side = window.inside(data.mass), window.beside(data.mass)
    check_events(data, config, inside, side, source, learns=background is None)
    data, background, constant = varying(data, inside, side, background, source)
    seed = seeds.integer(config.seed, "search", "table", bits=62)
    if background is None:
        made = interpolated(data, side, config, seed)
    else:
        made = given_background(data, inside, side, background, config)
    template = made.template
    calibrate = selection.sideband_calibration and bool(made.others)
    check_cuts(selection.working_points, template, config.classifier.folds, by_sidebands=calibrate)
    homes, shared = homes_of_repeated(data, background, config, seed)
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
    common |= {"features": features, "repeated": repeated, "shared": shared}
    common |= _columns(scores, template, config) | _best_cut(scores, truth) | clock
    bins = score_bins(scores, template, calibrate=calibrate, transfer_error=selection.transfer_error)
    z = significance(bins)
    common["seconds"] = time.perf_counter() - started
    rows = [common | _row(scores, template, point, calibrate, truth, config) for point in selection.working_points]
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
    scores: FoldScores, template: Template, point: float, calibrate: bool, truth: np.ndarray | None, config: TableConfig
) -> dict[str, Any]:
    """One cut: `counting_row`, and with labels S and B before and after, efficiencies, SIC."""
    counted = counting_row(scores, template, point, calibrate=calibrate, limits=config.selection.closure)
    row = {"working_point": point} | counted
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
