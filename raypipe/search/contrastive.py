"""Paper C's search: CATHODE in a contrastive latent space, with the SM Higgs in the background class.

One function, `search`: tables, configuration and trial in, `Result` out. A scan only maps it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from raypipe import seeds
from raypipe.config import Config
from raypipe.errors import UserError
from raypipe.events.latents import Events
from raypipe.events.pseudodata import PseudoData, draw, expected_background, expected_overlap
from raypipe.events.regions import in_sidebands, in_signal_region
from raypipe.fit.batches import PARTS, parts_of
from raypipe.fit.classifier import FoldScores, out_of_fold_scores
from raypipe.fit.flows import fit_flows_once
from raypipe.search.counting import counting_row
from raypipe.search.result import NO_SIGNAL, Result, Stage, Trial
from raypipe.search.template import Template, build_template
from raypipe.stats.roc import sic, sic_curve, weighted_auc
from raypipe.stats.sideband import fit_sidebands

CONTINUUM = "yy"
"""The sample that the flow models; the other background samples are resonant and come from simulation."""


@dataclass(frozen=True)
class Tables:
    """The inputs of every trial, shared between them."""

    search: dict[str, Events]
    """The search split by sample: stands for recorded data."""
    higgs: dict[str, Events]
    """Simulated resonant background by sample, from the part of the embedding split that no training saw."""


def prepare_tables(latents: dict[str, dict[str, Events]], config: Config) -> Tables:
    """Pick from ``latents[split][sample]`` what the trials share.

    The Higgs template comes from the test part of the embedding split: never from the events that play the data, and
    never from events on which the encoder was trained. Its weights are scaled back to the sample's full yield.

    Raises:
        UserError: a sample of the configuration that was not embedded.
    """
    resonant = [name for name in config.pseudodata.background if name != CONTINUUM]
    for split, names in (
        ("search", [*config.pseudodata.background, *config.scan.signals]),
        ("embedding", resonant if config.selection.include_higgs else []),
    ):
        for name in names:
            if name not in latents.get(split, {}):
                there = ", ".join(sorted(latents.get(split, {}))) or "none"
                raise UserError(f"sample {name!r} has no embedded {split} events (embedded: {there})")
    higgs = {}
    for name in resonant if config.selection.include_higgs else []:
        events = latents["embedding"][name]
        parts = parts_of(
            events.event_id, config.seed, config.embedding.train_fraction, config.embedding.validation_fraction
        )
        kept = events.take(np.flatnonzero(parts == PARTS.index("test")))
        if not len(kept):
            raise UserError(f"sample {name!r} has no event in the test part of the embedding split: simulate more")
        scale = events.weight.sum() / kept.weight.sum()
        higgs[name] = Events(kept.event_id, kept.mass, kept.weight * scale, kept.latent, kept.features)
    names = dict.fromkeys([*config.pseudodata.background, *config.scan.signals])
    return Tables({name: latents["search"][name] for name in names}, higgs)


def search(
    tables: Tables, config: Config, trial: Trial, *, threads: int = 1, device: str = "cpu", stage: Stage | None = None
) -> Result:
    """Run the whole search once.

    Pseudo-data -> sideband mass fit and flow ensemble -> template in the signal region -> out-of-fold classifiers ->
    cuts -> significances. Deterministic in (tables, config, trial).

    Args:
        device: where the flows are trained.
        stage: keeps the background model by the hash of its inputs (`raypipe.search.result.Stage`), so that a trial
            that differs only in what comes after it need not train it again.
    """
    started = time.perf_counter()
    clock: dict[str, float] = {}

    def lap(stage: str, since: float) -> float:
        now = time.perf_counter()
        clock[f"seconds_{stage}"] = now - since
        return now

    window, luminosity = config.window, config.pseudodata.luminosity
    background = {name: tables.search[name] for name in config.pseudodata.background}
    signal = None if trial.signal == NO_SIGNAL else (trial.signal, tables.search[trial.signal])
    data = draw(
        background, luminosity, window, seed=config.seed, instance=trial.instance, signal=signal,
        strength=trial.strength,
    )  # fmt: skip
    inside = in_signal_region(data.events.mass, window)
    left = data.left_over.take(in_signal_region(data.left_over.mass, window))
    here = ("search", trial.signal, repr(trial.strength), trial.instance)
    seed = seeds.integer(config.seed, *here, bits=62)

    side = in_sidebands(data.events.mass, window)
    fit = fit_sidebands(data.events.mass, window, config.massfit)
    now = lap("data", started)
    flow, flow_key = fit_flows_once(
        data.events.latent[side], data.events.mass[side], (window.low, window.high), config.flow,
        seed=seeds.integer(seed, "flow"), device=device, stage=stage,
    )  # fmt: skip
    now = lap("flow", now)
    template = build_template(flow, fit, data.events.mass[side], tables.higgs, config, seed)
    now = lap("sampling", now)

    others = {
        "sideband_data": data.events.latent[side],
        "sideband_template": template.sideband,
        "background": left.latent,
    }
    if data.signal_left_over is not None:
        rest = data.signal_left_over
        others["signal"] = rest.take(in_signal_region(rest.mass, window)).latent
    scores = out_of_fold_scores(
        data.events.latent[inside], template.latent, template.weight, config.classifier,
        seed=seeds.integer(seed, "classifier"), threads=threads, others=others,
    )  # fmt: skip
    now = lap("classifier", now)
    closure = _closure(data, inside, left, template, config, seeds.integer(seed, "closure"), threads)
    lap("closure", now)

    expected = expected_background(background, luminosity, window)
    common = {
        "signal": trial.signal, "strength": trial.strength, "instance": trial.instance,
        "embedding": config.embedding.name, "luminosity": luminosity,
        "seed": config.seed, "b_expected_sr": expected, "closure_auc": closure[0], "closure_auc_error": closure[1],
        "massfit_chi2": fit.chi2, "massfit_ndf": fit.ndf,
        "instance_overlap": expected_overlap(background, luminosity),
        **({"flow_stage": flow_key} if flow_key else {}), **clock, "seconds": time.perf_counter() - started,
    }  # fmt: skip
    rows = [
        common | evaluate(data, inside, left, scores, template, point, config)
        for point in config.selection.working_points
    ]
    arrays = _figures(data, inside, left, scores, template, config)
    arrays |= {"closure_labels": closure[2], "closure_scores": closure[3]}
    return Result(rows, arrays, None if stage else flow.state())


def true_background(
    data: PseudoData, inside: np.ndarray, left: Events, scores: FoldScores
) -> tuple[np.ndarray, np.ndarray]:
    """Scores and weights of all simulated background of the signal region, drawn into the data or left over.

    Weighted: what was drawn holds the samples at their yields, what is left over does not (the rare ones are
    simulated far beyond theirs).
    """
    real = ~data.is_signal[inside]
    values = np.r_[scores.data[real], scores.others["background"]]
    return values, np.r_[data.events.weight[inside][real], left.weight]


def evaluate(
    data: PseudoData, inside: np.ndarray, left: Events, scores: FoldScores, template: Template, point: float,
    config: Config,
) -> dict[str, Any]:  # fmt: skip
    """Everything about one cut ``percentile <= point``.

    Truth: ``s_before, b_before, s_after, b_after`` (events in the signal region), ``truth_before = S/sqrt(B)``,
    ``truth_after``, ``signal_efficiency``, ``background_efficiency`` and ``sic`` (from events that were not injected or
    drawn together with those that were), ``auc`` of signal against background.

    Analyst: see `raypipe.search.counting.counting_row`.
    """
    truth = data.is_signal[inside]
    passed = scores.data <= point
    s0, b0 = int(truth.sum()), int((~truth).sum())
    s1, b1 = int((passed & truth).sum()), int((passed & ~truth).sum())
    background, weights = true_background(data, inside, left, scores)
    eff_b = float(weights[background <= point].sum() / weights.sum())
    row: dict[str, Any] = {
        "working_point": point, "s_before": s0, "b_before": b0, "s_after": s1, "b_after": b1,
        "background_efficiency": eff_b, "truth_before": s0 / np.sqrt(b0) if b0 else float("nan"),
        "truth_after": s1 / np.sqrt(b1) if b1 else float("nan"), "signal_efficiency": float("nan"),
        "sic": float("nan"), "auc": float("nan"),
    }  # fmt: skip
    if "signal" in scores.others:
        signal = np.r_[scores.data[truth], scores.others["signal"]]
        eff_s = float((signal <= point).mean())
        labels = np.r_[np.ones(len(signal), bool), np.zeros(len(background), bool)]
        auc, _ = weighted_auc(-np.r_[signal, background], labels, np.r_[np.ones(len(signal)), weights])
        row |= {"signal_efficiency": eff_s, "sic": sic(eff_s, eff_b), "auc": auc}

    return row | counting_row(
        scores, template, point, calibrate=config.selection.sideband_calibration,
        higgs_uncertainty=config.selection.higgs_uncertainty,
    )  # fmt: skip


def _closure(
    data: PseudoData, inside: np.ndarray, left: Events, template: Template, config: Config, seed: int, threads: int
) -> tuple[float, float, np.ndarray, np.ndarray]:
    """AUC of a classifier between the template and the true background of the signal region, with its null error.

    Also the ROC curve, for the report. All simulated background is used, weighted to its yields.
    """
    drawn = data.events.take(inside & ~data.is_signal)
    truth, truth_weights = np.concatenate([drawn.latent, left.latent]), np.r_[drawn.weight, left.weight]
    scores = out_of_fold_scores(
        truth, template.latent, template.weight, config.classifier, seed=seed, threads=threads,
        data_weights=truth_weights,
    )  # fmt: skip
    values = -np.r_[scores.data, scores.template]
    labels = np.r_[np.ones(len(truth), bool), np.zeros(len(template.latent), bool)]
    weights = np.r_[truth_weights, template.weight]
    auc, error = weighted_auc(values, labels, weights)
    grid = np.linspace(0, 1, 201)
    order = np.argsort(scores.data)
    passing = np.r_[0.0, np.cumsum(truth_weights[order])] / truth_weights.sum()
    return auc, error, grid, passing[np.searchsorted(scores.data[order], grid, side="right")]


def _figures(
    data: PseudoData, inside: np.ndarray, left: Events, scores: FoldScores, template: Template, config: Config
) -> dict[str, np.ndarray]:
    """Arrays for the report: latent and mass histograms, SIC curve."""
    truth = data.is_signal[inside]
    window = config.window
    edges = np.linspace(window.low, window.high, round((window.high - window.low) / config.massfit.bin_width) + 1)
    point = config.selection.working_points[0]
    arrays: dict[str, np.ndarray] = {"mass_edges": edges}
    mass = data.events.mass
    side = in_sidebands(mass, window)
    cut = np.zeros(len(mass), dtype=bool)
    cut[inside], cut[side] = scores.data <= point, scores.others["sideband_data"] <= point
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
        grid = np.geomspace(1e-4, 1, 81)
        background, weights = true_background(data, inside, left, scores)
        signal = np.r_[scores.data[truth], scores.others["signal"]]
        eff_s, curve = sic_curve(signal, background, weights, grid)
        arrays |= {"sic_background_efficiency": grid, "sic_signal_efficiency": eff_s, "sic": curve}
    return arrays
