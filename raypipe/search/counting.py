"""What an analyst reads off one cut, or off all bins of the score: observed against expected events."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from raypipe.config.sections import Closure, Cuts
from raypipe.errors import UserError
from raypipe.fit.classifier import FoldScores
from raypipe.search.case import Template
from raypipe.stats.roc import weighted_auc
from raypipe.stats.significance import counting_significance
from raypipe.stats.workspace import Fits, ScoreBins, workspace

SIDEBANDS = ("sideband_data", "sideband_template")  # Names of the held-out sideband sets in `FoldScores.others`
BIN_EDGES = np.array([0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05])
"""Background percentiles between the bins of the likelihood."""
LEAST = 5
"""Events in a bin of data and of template, of the sidebands and of the signal region's template."""
FALL = 1 / 3
"""A signal that nobody has named is taken to have the background's efficiency to this power."""


def _systematics(scores: FoldScores, chosen: Cuts) -> tuple[bool, float, float]:
    """Whether sidebands calibrate the template; relative errors of the calibration carried over, and of the Higgs."""
    known = chosen.sideband_calibration and all(name in scores.others for name in SIDEBANDS)
    return known, chosen.transfer_uncertainty, getattr(chosen, "higgs_uncertainty", 0.0)  # a table has no Higgs


def counting_row(scores: FoldScores, template: Template, point: float, chosen: Cuts) -> dict[str, Any]:
    """The cut ``percentile <= point`` without any truth.

    ``n_before, n_after`` observed; ``expected_before, expected_after`` and their errors from the template; ``kept`` the
    share of the background that the cut keeps; ``kappa`` the sideband calibration; ``sideband_auc`` of held-out
    sideband data against template; ``z_before, z_after`` the signed significances; ``verdict`` of `verdict_of`. Where
    that is not empty ``z_after`` is NaN.
    """
    calibrate, transfer, of_higgs = _systematics(scores, chosen)
    before, before_error = template.expected_total(of_higgs)
    passed = scores.passes("template", point)
    auc = auc_error = measured = measured_error = float("nan")
    if all(name in scores.others for name in SIDEBANDS):
        measured, measured_error = sideband_calibration(*(scores.passes(name, point) for name in SIDEBANDS))
        # The classifiers of the search between sideband data and template that their fold has not seen.
        sets = [scores.others[name] for name in SIDEBANDS]
        auc, auc_error = weighted_auc(-np.concatenate(sets), np.repeat([True, False], [len(s) for s in sets]))
    kappa, kappa_error = (measured, measured_error) if calibrate else (1.0, 0.0)
    carried = float(np.hypot(kappa_error, transfer * kappa)) if calibrate else 0.0
    after, after_error = template.expected_after(passed, kappa, carried, of_higgs)
    n0, n1 = len(scores.data), int(scores.passes("data", point).sum())
    populated = bool(template.weight[passed].any())
    verdict = verdict_of(populated, (auc, auc_error), (measured, measured_error), chosen.closure)
    row = {"n_before": n0, "expected_before": before, "expected_before_error": before_error}
    row |= {"n_after": n1, "expected_after": after, "expected_after_error": after_error}
    row |= {"kept": _kept(scores, template, point), "kappa": kappa, "kappa_error": kappa_error}
    row |= {"sideband_auc": auc, "sideband_auc_error": auc_error, "verdict": verdict}
    row["z_before"] = counting_significance(n0, before, before_error)
    return row | {"z_after": float("nan") if verdict else counting_significance(n1, after, after_error)}


def cut_lines(row: Mapping[str, Any]) -> list[str]:
    """The cut of a `counting_row` for the terminal: its counts, what it keeps, and why no significance is quoted."""
    z = "withheld" if row["verdict"] else f"{row['z_after']:.2f}"
    lines = [
        f"cut {row['working_point']:.2%}: {row['n_after']:.10g} observed, {row['expected_after']:.1f} ± "
        f"{row['expected_after_error']:.1f} expected, z {row['z_before']:.2f} -> {z}"
    ]
    if abs(row["kept"] / row["working_point"] - 1) > 0.2:
        lines.append(
            f"  this cut keeps {row['kept']:.2%} of the background: events of equal score stay together, and no "
            "nearer cut divides them"
        )
    return [*lines, f"  NO SIGNIFICANCE: {row['verdict']}"] if row["verdict"] else lines


def verdict_of(populated: bool, auc: tuple[float, float], kappa: tuple[float, float], limits: Closure) -> str:
    """Why no significance may be quoted for a cut, in words; empty where one may.

    ``populated``: whether any event of the template passes. ``auc`` and ``kappa`` have errors, NaN without sidebands.
    """
    if not populated:
        return "no event of the background template passes the cut"
    if abs(auc[0] - 0.5) - 2 * auc[1] > limits.auc - 0.5:
        return (
            f"the template does not close: AUC {auc[0]:.3f} ± {auc[1]:.3f} between it and held-out sidebands "
            f"(selection.closure.auc = {limits.auc:g})"
        )
    if kappa[0] - kappa[1] > limits.kappa or kappa[0] + kappa[1] < 1 / limits.kappa:
        return (
            f"the template does not close: κ = {kappa[0]:.2g} ± {kappa[1]:.2g} sideband data over template after the "
            f"cut (selection.closure.kappa = {limits.kappa:g})"
        )
    return ""


def _kept(scores: FoldScores, template: Template, point: float) -> float:
    """Share of the background that passes, counted among what the percentiles are shares of."""
    passed = scores.passes("template", point)
    if not scores.by_sidebands:
        return float(template.weight[passed].sum() / template.weight.sum())
    peak = float(template.weight[template.is_higgs & passed].sum())
    total = template.continuum + float(template.weight[template.is_higgs].sum())
    return (template.continuum * float(scores.passes("sideband_data", point).mean()) + peak) / total


def check_cuts(points: Sequence[float], template: Template, folds: int, *, by_sidebands: bool) -> None:
    """Refuse cuts that the background is too small to know: no percentile is below 1/(n+1) with n events."""
    w = template.weight
    events, where = int(w.sum() ** 2 / (w**2).sum() / folds + 1e-9), "a fold of the background template"
    remedy = "give more background (background.path, or flow.judged), fewer classifier.folds"
    if by_sidebands and template.sideband_home is not None:
        events, where, remedy = len(template.sideband_home), "the sidebands", "widen the window"
    if min(points) < 1 / (events + 1):
        raise UserError(
            f"selection.working_points: a cut at {min(points):.2%} cannot be made with {events} events in {where}, the "
            f"smallest is {1 / (events + 1):.2%}: {remedy}, or cut at more"
        )


def background_percentiles(scores: FoldScores, template: Template) -> FoldScores:
    """The same scores as shares of the background that the sidebands expect, instead of shares of the template.

    A cut at a share of the template keeps more of the background the worse the flow is. Here the share of the continuum
    that looks at least as data-like is counted in the sidebands, among data that flow and classifiers of their fold
    have not seen (ties by their mean rank), and the Higgs comes from its simulation. The order of the events stays.
    """
    if template.sideband is None:
        raise ValueError("background percentiles need scored sideband data")
    # What lies strictly above an event orders the folds: blocks of equal score must not be ranked by their own size.
    place = {name: scores.better.get(name, scores.of(name)) for name in ("data", "template", *scores.others)}
    side = np.sort(place["sideband_data"])
    order = np.argsort(place["template"][template.is_higgs])
    peak = place["template"][template.is_higgs][order]
    yields = np.r_[0.0, np.cumsum(template.weight[template.is_higgs][order])]
    total = template.continuum + yields[-1]

    def share(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        below, upto = (np.searchsorted(side, values, where) for where in ("left", "right"))
        above, with_ties = (yields[np.searchsorted(peak, values, where)] for where in ("left", "right"))
        rank = template.continuum / (len(side) + 1)
        return (rank * below + above) / total, (rank * (below + upto + 1) / 2 + with_ties) / total

    shares = {name: share(values) for name, values in place.items()}
    percentiles = {name: values[1] for name, values in shares.items()}
    data, own = percentiles.pop("data"), percentiles.pop("template")
    better = {name: values[0] for name, values in shares.items()}
    return replace(scores, data=data, template=own, others=percentiles, better=better, by_sidebands=True)


def sideband_calibration(data: np.ndarray, template: np.ndarray) -> tuple[float, float]:
    """Ratio of passing shares, sideband data over sideband template, with its binomial error.

    It measures the mismodelling where the classifier selects, without bias only with data that neither flow nor
    classifier of their fold was trained on. One count is added to each side: an empty tail has a finite error.
    """
    k, n, j, m = data.sum() + 1, len(data) + 1, template.sum() + 1, len(template) + 1
    ratio = (k / n) / (j / m)
    return float(ratio), float(ratio * np.sqrt(1 / k - 1 / n + 1 / j - 1 / m))


def score_bins(
    scores: FoldScores, template: Template, chosen: Cuts, signal: tuple[np.ndarray, np.ndarray] | None = None
) -> ScoreBins:
    """All bins of the background percentile, merged from the top until each has `LEAST` events.

    ``signal``: bins (n,) of `bins_of` and weights (n,) of simulated events at mu = 1. Without one the signal has the
    background's efficiency to the power `FALL`, an excess that grows towards small percentiles, and mu is in units of
    the square root of the expected background.
    """
    k, of = len(BIN_EDGES) + 1, bins_of(scores, "template")
    squared, flat = template.weight**2, ~template.is_higgs
    sums = [(bins_of(scores, "data"), None)]
    sums += [(of[m], w[m]) for m in (flat, template.is_higgs) for w in (template.weight, squared)]
    sums += [signal] if signal else []
    calibrated, transfer, of_higgs = _systematics(scores, chosen)
    sums += [(bins_of(scores, name), None) for name in SIDEBANDS if calibrated]
    known = np.array([np.bincount(*one, minlength=k) for one in sums], float)
    enough = [np.divide(known[1] ** 2, known[2], out=np.zeros(k), where=known[2] > 0)]
    first = _merged(np.array([*enough, *known[-2 * calibrated :]] if calibrated else enough))
    n, c, c2, h, h2, *others = np.add.reduceat(known, first, axis=1)
    edges = np.r_[0.0, BIN_EDGES, 1.0][np.r_[first, k]]
    shape = others[0] if signal else np.diff(edges**FALL) * np.sqrt((c + h).sum())
    side, generated = others[-2:] if calibrated else (np.empty(0), np.full(len(n), np.inf))
    draws = generated.sum() / side.sum() if calibrated else 1.0
    error = np.sqrt(c2 / np.maximum(c, 1e-300) ** 2 + 1 / generated + transfer**2)
    # Scaled to the data, the template has no normalisation of its own.
    relative = np.array([template.continuum_error / template.continuum if template.fit else np.inf])
    beside = (side, (generated if calibrated else side) / draws, relative, np.array([of_higgs]))
    return ScoreBins(edges, n, c, error, h, np.sqrt(h2), shape, *beside)


def bins_of(scores: FoldScores, name: str) -> np.ndarray:
    """(n,) bin of every event of a set; events of equal score stay together."""
    return np.sum([~scores.passes(name, edge) for edge in BIN_EDGES], axis=0)


def _merged(counts: np.ndarray) -> np.ndarray:
    """First bins of runs of bins with at least `LEAST` in each row of ``counts`` (rows, k)."""
    first = [0]
    for k in range(1, counts.shape[1]):
        if (counts[:, first[-1] : k].sum(1) >= LEAST).all() and (counts[:, k:].sum(1) >= LEAST).all():
            first.append(k)
    return np.array(first)


def likelihood_significance(bins: ScoreBins) -> float:
    """Discovery significance of all bins together, NaN where the fit does not converge."""
    try:
        return Fits(workspace(bins)).z
    except UserError:
        return float("nan")
