"""What a cut on the classifier does: to the truth, which only a simulation knows, and to what an analyst sees."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from raypipe.fit.classifier import FoldScores
from raypipe.search.case import Case, Settings, Template
from raypipe.search.counting import counting_row, score_bins
from raypipe.stats.roc import bootstrapped_efficiency, replicated_sic, sic, weighted_auc
from raypipe.stats.sculpting import sculpting_test
from raypipe.stats.workspace import ScoreBins


def true_background(case: Case, values: Callable[[str], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Values and weights of all simulated background of the signal region, drawn into the data or left over.

    ``values``: gives what is wanted of ``data`` and of ``background``, such as `FoldScores.of`.

    Weighted: rare samples are simulated far beyond their yields, which only what was drawn holds.
    """
    data, inside = case.data, case.inside
    real = ~data.is_signal[inside]
    found = np.r_[values("data")[real], values("background")]
    return found, np.r_[data.events.weight[inside][real], case.left.weight]


def evaluate(case: Case, scores: FoldScores, template: Template, point: float, config: Settings) -> dict[str, Any]:
    """Everything about one cut ``percentile <= point``.

    Truth: ``s_before, b_before, s_after, b_after`` (events in the signal region), ``truth_before = S/sqrt(B)``,
    ``truth_after``, ``signal_efficiency``, ``background_efficiency`` and ``sic`` (from events that were not injected or
    drawn together with those that were), ``auc`` of signal against background. ``<efficiency or sic>_replicas``: the
    same in each replica of the simulated events (`Case.drawn`), which tells how well finite simulation knows it.

    Analyst: see `raypipe.search.counting.counting_row`.

    ``background_pull``: ``b_after`` against ``expected_after``, in units of both errors: what an analyst who trained
    with the signal would have been wrong by, had it not been there.

    ``sculpting_chi2, sculpting_ndf, sculpting_p``: whether the cut changes the mass spectrum of the true background in
    the whole window.
    """
    data, inside = case.data, case.inside
    truth = data.is_signal[inside]
    passed = scores.passes("data", point)
    s0, b0 = int(truth.sum()), int((~truth).sum())
    s1, b1 = int((passed & truth).sum()), int((passed & ~truth).sum())
    background, weights = true_background(case, scores.of)
    kept = true_background(case, lambda name: scores.passes(name, point))[0]
    eff_b = float(weights[kept].sum() / weights.sum())
    drawn_b = bootstrapped_efficiency(kept, case.drawn["background"], weights)
    nan = float("nan")
    row: dict[str, Any] = {"working_point": point, "s_before": s0, "b_before": b0, "s_after": s1, "b_after": b1}
    row |= {"background_efficiency": eff_b, "truth_before": s0 / np.sqrt(b0) if b0 else nan}
    row |= {"truth_after": s1 / np.sqrt(b1) if b1 else nan, "signal_efficiency": nan, "sic": nan, "auc": nan}
    row |= {"background_efficiency_replicas": drawn_b.tolist(), "signal_efficiency_replicas": [], "sic_replicas": []}
    if "signal" in scores.others:
        signal = np.r_[scores.data[truth], scores.others["signal"]]
        found = np.r_[passed[truth], scores.passes("signal", point)]
        eff_s, drawn_s = float(found.mean()), bootstrapped_efficiency(found, case.drawn["signal"])
        row["signal_efficiency_replicas"] = drawn_s.tolist()
        row["sic_replicas"] = replicated_sic(drawn_s, drawn_b).tolist()
        labels = np.r_[np.ones(len(signal), bool), np.zeros(len(background), bool)]
        auc, _ = weighted_auc(-np.r_[signal, background], labels, np.r_[np.ones(len(signal)), weights])
        row |= {"signal_efficiency": eff_s, "sic": sic(eff_s, eff_b), "auc": auc}

    row |= counted(scores, template, point, config)
    expected, error = row["expected_after"], row["expected_after_error"]
    row["background_pull"] = (b1 - expected) / np.hypot(np.sqrt(expected), error) if expected > 0 else nan
    mass, real, of_all = data.events.mass, ~data.is_signal, case.passes(scores, point)
    edges = np.linspace(mass.min(), mass.max(), max(2, round((mass.max() - mass.min()) / 5)) + 1)  # of 5 GeV
    chi2, ndf, p = sculpting_test(mass[real], of_all[real], edges)
    return row | {"sculpting_chi2": chi2, "sculpting_ndf": ndf, "sculpting_p": p}


def counted(scores: FoldScores, template: Template, point: float, config: Settings) -> dict[str, Any]:
    """The `counting_row` of a cut as the configuration has it: what an analyst sees."""
    chosen = config.selection
    calibrate = chosen.sideband_calibration and template.sideband is not None
    how = {"higgs_uncertainty": chosen.higgs_uncertainty, "limits": chosen.closure}
    return counting_row(scores, template, point, calibrate=calibrate, **how)


def binned(
    scores: FoldScores, template: Template, config: Settings, signal: tuple[np.ndarray, np.ndarray] | None = None
) -> ScoreBins:
    """The `score_bins` as the configuration has them; ``signal``: bins and weights of simulated events."""
    chosen = config.selection
    how = {"higgs_uncertainty": chosen.higgs_uncertainty, "transfer_error": chosen.transfer_error, "signal": signal}
    calibrate = chosen.sideband_calibration and template.sideband is not None
    return score_bins(scores, template, calibrate=calibrate, **how)


SPREADS = ("sic", "z_after", "z_likelihood", "signal_efficiency", "fit_s_after", "fit_z_after")
"""Quantities, where a row has them, whose spread over ensembles is kept."""
NUMBERS = (int, float, np.int64, np.float64, list)  # Types of which a mean is taken; a list has one a replica


def mean_and_spread(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One row from those of several ensembles: means, and the standard deviation over ensembles of what is quoted.

    The spread is the systematic uncertainty of encoder and classifier (paper C, section III.2).
    """
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    numbers = {name: values for name, values in columns.items() if all(type(value) in NUMBERS for value in values)}
    several = len(rows) > 1
    spread = {f"{n}_spread": float(np.std(numbers[n], ddof=1)) if several else 0.0 for n in SPREADS if n in numbers}
    mean = {name: np.mean(values, axis=0).tolist() if several else values[0] for name, values in numbers.items()}
    return {name: mean[name] if name in mean else _told(values) for name, values in columns.items()} | spread


def _told(values: Sequence[Any]) -> Any:
    """What holds of all ensembles, or the first word that tells of a fault.

    A significance is withheld of all where it is of one: the others alone would be a choice.
    """
    if all(isinstance(value, bool | np.bool_) for value in values):
        return all(values)
    return next((value for value in values if value not in ("converged", "")), values[0])
