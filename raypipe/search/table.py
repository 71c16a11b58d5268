"""CATHODE (2109.00546) on a user's own feature table: one function, tables and configuration in, `Result` out."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from raypipe import seeds
from raypipe.config.table import TableConfig
from raypipe.errors import UserError
from raypipe.events.readers.base import check_file
from raypipe.events.readers.features import FeatureTable
from raypipe.events.regions import in_sidebands, in_signal_region
from raypipe.events.twins import first_twin
from raypipe.files import file_digest
from raypipe.fit.classifier import FoldScores, Mapper, out_of_fold_scores
from raypipe.fit.folds import deal_folds
from raypipe.search.base import Made, Search
from raypipe.search.counting import background_percentiles, check_cuts, counting_row
from raypipe.search.reading import check_columns, collect
from raypipe.search.result import DATA, Result, Tools, Trial
from raypipe.search.table_background import TableBackground, given_background, interpolated
from raypipe.search.template import Template
from raypipe.stats.roc import max_sic, sic, weighted_auc


@dataclass(frozen=True)
class EventScores:
    """Every event of the signal region."""

    event_id: np.ndarray
    mass: np.ndarray
    score: np.ndarray
    """Mean out-of-fold log-odds of data against background."""
    percentile: np.ndarray
    """Share of the background that looks at least as data-like, the event itself counted; of events of equal score the
    same, so that a cut which a block of them straddles may keep events above it (`FoldScores.passes`)."""
    label: np.ndarray | None


def search_table(
    data: FeatureTable,
    config: TableConfig,
    *,
    background: FeatureTable | None = None,
    mapper: Mapper = map,
    source: str = "data",
) -> tuple[Result, EventScores]:
    """Run the whole search once: sidebands -> template in the signal region -> out-of-fold classifiers -> cuts.

    With sidebands the flow makes the template and the mass fit its expected yield. With ``background`` its events in
    the signal region are the template (the idealised anomaly detector); its yield comes from the mass fit, or, where
    the data have no sidebands, from the data themselves: then the count before the cut says nothing, and the one after
    it is the excess in shape. Deterministic in (data, background, config), whatever the mapper.

    Raises:
        UserError: no events in a region, weighted data, NaN; one line naming ``source`` and the remedy.
    """
    started = time.perf_counter()
    window, selection = config.window, config.selection
    data, repeated = data.distinct(config.data.duplicates, source, "data.duplicates")
    if background is not None:
        background, _ = background.distinct(config.background.duplicates, "background", "background.duplicates")
        background = background.take(background.weight != 0)  # the others say nothing
    inside, side = in_signal_region(data.mass, window), in_sidebands(data.mass, window)
    _check(data, config, inside, side, background, source)
    data, background, constant = _varying(data, inside, side, background, source)
    seed = seeds.integer(config.seed, "search", "table", bits=62)
    if background is None:
        made = interpolated(data, side, config, seed)
    else:
        made = given_background(data, inside, side, background, config)
    template = made.template
    calibrate = selection.sideband_calibration and bool(made.others)
    check_cuts(selection.working_points, template, config.classifier.folds, by_sidebands=calibrate)
    homes, shared = _homes_of_repeated(data, background, config, seed)
    now = time.perf_counter()
    scores = _scores(data.features[inside], made, homes, config, seed, mapper)
    clock = made.clock | {"seconds_classifier": time.perf_counter() - now}
    if calibrate and template.sideband is not None:
        scores = background_percentiles(scores, template)
    truth = None if data.label is None else data.label[inside]
    common = {
        "background_model": "flow" if background is None else "table",
        "normalisation": "sidebands" if side.any() else "data",
        "features": "; ".join(filter(None, (made.said, constant))),
        "repeated": repeated,
        "shared": shared,
    }
    common |= _columns(scores, template, config) | _best_cut(scores, truth) | clock
    common["seconds"] = time.perf_counter() - started
    rows = [common | _row(scores, template, point, calibrate, truth, config) for point in selection.working_points]
    arrays = _figures(data, inside, scores, template, config)
    found = EventScores(data.event_id[inside], data.mass[inside], scores.margin, scores.data, truth)
    return Result(rows, arrays, made.flow_state), found


def _scores(
    features: np.ndarray,
    made: TableBackground,
    homes: dict[str, np.ndarray],
    config: TableConfig,
    seed: int,
    mapper: Mapper,
) -> FoldScores:
    """Out-of-fold scores of the events of the signal region against the background."""
    template = made.template
    return out_of_fold_scores(
        made.bounded(features),
        template.latent,
        template.weight,
        config.classifier,
        seed=seeds.integer(seed, "classifier"),
        others={name: made.bounded(values) for name, values in made.others.items()},
        homes=template.homes | homes,
        background=template.training or None,
        mapper=mapper,
    )


def _columns(scores: FoldScores, template: Template, config: TableConfig) -> dict[str, Any]:
    """What all cuts share."""
    ones = np.ones(len(scores.data))
    labels = np.r_[ones, np.zeros(len(template.latent))].astype(bool)
    weights = np.r_[ones, template.weight]
    auc, error = weighted_auc(-np.r_[scores.data, scores.template], labels, weights)
    return {
        "signal": DATA,
        "strength": 0.0,
        "instance": 0,
        "seed": config.seed,
        "auc_data_template": auc,
        "auc_error": error,
        "massfit_chi2": template.fit.chi2 if template.fit else float("nan"),
        "massfit_ndf": template.fit.ndf if template.fit else 0,
        "negative_weights": float((template.weight < 0).mean()),
        "duplicates": config.data.duplicates or "keep",
    }


def _homes_of_repeated(
    data: FeatureTable, background: FeatureTable | None, config: TableConfig, seed: int
) -> tuple[dict[str, np.ndarray], int]:
    """One fold for all occurrences of an event among the data and a given background, nothing where none repeats; and
    the number of background events that are in the data too."""
    tables = {"data": data} if background is None else {"data": data, "template": background}
    chosen = [table.take(in_signal_region(table.mass, config.window)) for table in tables.values()]
    rows = [np.c_[table.mass, table.features] for table in chosen]
    first = first_twin(np.concatenate(rows))
    if (first == np.arange(len(first))).all():
        return {}, 0
    homes = deal_folds(rows, [], config.classifier.folds, seed)[0]
    return dict(zip(tables, homes, strict=True)), int((first[len(rows[0]) :] < len(rows[0])).sum())


def _check(
    data: FeatureTable,
    config: TableConfig,
    inside: np.ndarray,
    side: np.ndarray,
    background: FeatureTable | None,
    source: str,
) -> None:
    """Refuse what cannot be searched, with the remedy."""
    w = config.window
    span = f"masses {data.mass.min():g} to {data.mass.max():g}"
    if len(data.weight) and np.ptp(data.weight) > 0:
        raise UserError(f"{source}: recorded events count one each, these have weights (drop data.columns.weight)")
    if inside.sum() < config.classifier.folds * 20:
        raise UserError(
            f"{source}: {int(inside.sum())} events in the signal region {w.sr_low:g}-{w.sr_high:g} ({span}): "
            "at least 20 a fold are needed; set window.sr_low and window.sr_high in the unit of the mass column"
        )
    if background is not None:
        return
    from raypipe.fit.flows import MIN_EVENTS  # PyTorch, which a search against a given background does not need

    lower, upper = (int((side & mask).sum()) for mask in (data.mass < w.sr_low, data.mass >= w.sr_high))
    if min(lower, upper) < MIN_EVENTS:
        raise UserError(
            f"{source}: {lower} events in the lower sideband {w.low:g}-{w.sr_low:g} and {upper} in the upper "
            f"{w.sr_high:g}-{w.high:g} ({span}), at least {MIN_EVENTS} each are needed to learn a background: give a "
            "table with sidebands, set window, or give a background sample with background.path=FILE"
        )


def _varying(
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
    return row | {
        "s_before": int(truth.sum()),
        "b_before": int((~truth).sum()),
        "s_after": int((truth & passed).sum()),
        "b_after": int((~truth & passed).sum()),
        "signal_efficiency": eff[0],
        "background_efficiency": eff[1],
        "sic": sic(*eff),
    }


def _best_cut(scores: FoldScores, truth: np.ndarray | None) -> dict[str, float]:
    """AUC and the largest SIC of signal against background among the data, NaN without labels of both kinds."""
    if truth is None or not truth.any() or truth.all():
        return dict.fromkeys(("auc", "max_sic", "max_sic_error", "max_sic_background_efficiency"), float("nan"))
    order = np.argsort(np.lexsort((scores.margin, -scores.data)))  # beyond the template the log-odds decide
    best = max_sic(order[truth], order[~truth])
    nan = float("nan")
    found = (best.sic, best.error, best.background_efficiency) if best else (nan, nan, nan)
    names = ("max_sic", "max_sic_error", "max_sic_background_efficiency")
    return {"auc": weighted_auc(order, truth)[0], **dict(zip(names, found, strict=True))}


def _figures(
    data: FeatureTable, inside: np.ndarray, scores: FoldScores, template: Template, config: TableConfig
) -> dict[str, np.ndarray]:
    """Histograms of mass and features, before and after the first cut."""
    window, point = config.window, config.selection.working_points[0]
    edges = np.linspace(
        window.low, window.high, max(2, round((window.high - window.low) / config.massfit.bin_width)) + 1
    )
    arrays = {"mass_edges": edges, "mass_data": np.histogram(data.mass, edges)[0]}
    if template.fit:
        arrays["mass_fit"] = template.fit.density((edges[:-1] + edges[1:]) / 2) * np.diff(edges)
    passed = scores.passes("data", point)
    for k, name in enumerate(data.names):
        values = data.features[inside, k]
        bins = np.linspace(*np.quantile(np.r_[values, template.latent[:, k]], [0.0005, 0.9995]), 41)
        arrays[f"{name}_edges"] = bins
        arrays[f"{name}_data"] = np.histogram(values, bins)[0]
        arrays[f"{name}_after"] = np.histogram(values[passed], bins)[0]
        arrays[f"{name}_template"] = np.histogram(template.latent[:, k], bins, weights=template.weight)[0]
    return arrays


class TableSearch(Search):
    """The search on a user's own feature table: one trial, in this process or spread over cores where that pays."""

    sections: ClassVar[tuple[str, ...]] = (
        *("seed", "window", "massfit", "flow", "classifier", "selection", "preprocess", "data", "background"),
    )
    options: ClassVar[tuple[str, ...]] = ()
    no_effect: ClassVar[str] = "{} has no effect: a search on a table takes what is in the table, as it is"
    report: ClassVar[str] = "raypipe.report.table:table_report"
    here: ClassVar[bool] = True

    @property
    def parts(self) -> int:
        """Fits of the classifier."""
        return self.config.classifier.folds * self.config.classifier.ensemble

    def grid(self) -> list[Trial]:
        """The one trial."""
        return [Trial(DATA, 0.0, 0)]

    def materials(self, name: str, made: Made) -> dict[str, Any]:
        """Digests of the files.

        Raises:
            UserError: a file that is not there, or data as their own background.
        """
        digests = self.digests()
        _refuse_data_as_background(self.config, digests)
        return {"files": list(digests.values())}

    def digests(self) -> dict[str, str]:
        """Of every file, by its path."""
        paths = [*self.config.data.paths, *self.config.background.paths]
        return {path: file_digest(check_file(path)) for path in paths}

    def inputs(self, name: str, folder: Path, tools: Tools) -> Iterator[Any]:
        """The recorded events, and the independent background sample or None."""
        data, given = self.config.data, self.config.background
        label = data.columns.label if given.only_label_zero else None
        if given.only_label_zero and given.paths and label is None:
            raise UserError("background.only_label_zero needs data.columns.label")
        of_background = data.columns.model_copy(update={"label": label, "weight": given.weight, "event_id": None})
        check_columns(data.paths, data, data.columns)
        check_columns(given.paths, given, of_background)
        yield collect(data.paths, data, data.columns, tools.mapper)
        background = collect(given.paths, given, of_background, tools.mapper) if given.paths else None
        yield background if background is None or background.label is None else background.take(~background.label)

    def run(self, inputs: Sequence[Any], trials: Sequence[Trial], tools: Tools) -> list[Result]:
        """`search_table`, with the scores of all events of the signal region as a table."""
        data, background = inputs
        source = ", ".join(self.config.data.paths)
        result, found = search_table(data, self.config, background=background, source=source, mapper=tools.mapper)
        columns = {"event_id": found.event_id, "mass": found.mass, "score": found.score}
        columns["background_percentile"] = found.percentile
        scores = pa.table(columns if found.label is None else columns | {"label": found.label})
        return [replace(result, tables={"scores": scores})]


def _refuse_data_as_background(config: TableConfig, digests: dict[str, str]) -> None:
    """Data compared with themselves hold nothing."""
    if config.background.only_label_zero or config.background.key != config.data.key:
        return
    of_data = {digests[path]: path for path in config.data.paths}
    for path in config.background.paths:
        if digests[path] in of_data:
            raise UserError(
                f"background.path: {path} holds the data ({of_data[digests[path]]}): name another file, another table "
                "of it (background.key), or keep its labelled background (background.only_label_zero=true)"
            )
