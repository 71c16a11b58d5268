"""What a cut on the classifier does: to the truth, which only a simulation knows, and to what an analyst sees."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raypipe.fit.classifier import FoldScores, out_of_fold_scores
from raypipe.search.case import Case, Judged, Settings, Template
from raypipe.search.counting import (
    SIDEBANDS,
    background_percentiles,
    bins_of,
    counting_row,
    score_bins,
    sideband_calibration,
)
from raypipe.search.result import Tools
from raypipe.stats.bins import sculpting_test
from raypipe.stats.roc import bootstrapped_efficiency, replicated_sic, sic, sic_curve, weighted_auc
from raypipe.stats.significance import counting_significance


def true_background(case: Case, values: Callable[[str], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Values (``data``, ``background``) and weights of all simulated background of the signal region, drawn or not."""
    data, inside = case.data, case.inside
    real = ~data.is_signal[inside]
    found = np.r_[values("data")[real], values("background")]
    return found, np.r_[data.events.weight[inside][real], case.left.weight]


def evaluate(case: Case, scores: FoldScores, template: Template, point: float, config: Settings) -> dict[str, Any]:
    """Everything about one cut ``percentile <= point``.

    Truth: ``s_before, b_before, s_after, b_after`` (events in the signal region), ``truth_before = S/sqrt(B)``,
    ``truth_after``; of all simulated events ``signal_efficiency``, ``background_efficiency``, ``sic`` and ``auc``, and
    ``<name>_replicas`` of efficiencies and SIC (`Case.drawn`). Analyst: see `raypipe.search.counting.counting_row`.

    ``background_pull``: ``b_after`` less ``expected_after``, in units of both errors. ``sculpting_chi2, sculpting_ndf,
    sculpting_p``: whether the cut changes the mass spectrum of the true background in the window.
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
    row |= counting_row(scores, template, point, config.selection)
    expected, error = row["expected_after"], row["expected_after_error"]
    row["background_pull"] = (b1 - expected) / np.hypot(np.sqrt(expected), error) if expected > 0 else nan
    mass, real, of_all = data.events.mass, ~data.is_signal, case.passes(scores, point)
    edges = np.linspace(mass.min(), mass.max(), max(2, round((mass.max() - mass.min()) / 5)) + 1)  # of 5 GeV
    chi2, ndf, p = sculpting_test(mass[real], of_all[real], edges)
    return row | {"sculpting_chi2": chi2, "sculpting_ndf": ndf, "sculpting_p": p}


SPREADS = ("sic", "z_after", "z_likelihood", "signal_efficiency", "fit_s_after", "fit_z_after")
"""Quantities, where a row has them, whose spread over ensembles is kept."""
NUMBERS = (int, float, np.int64, np.float64, list)  # Types of which a mean is taken; a list has one a replica


def mean_and_spread(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One row from several ensembles: means, and deviations of what is quoted (systematic: paper C, III.2)."""
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    numbers = {name: values for name, values in columns.items() if all(type(value) in NUMBERS for value in values)}
    several = len(rows) > 1
    spread = {f"{n}_spread": float(np.std(numbers[n], ddof=1)) if several else 0.0 for n in SPREADS if n in numbers}
    mean = {name: np.mean(values, axis=0).tolist() if several else values[0] for name, values in numbers.items()}
    return {name: mean[name] if name in mean else _told(values) for name, values in columns.items()} | spread


def _told(values: Sequence[Any]) -> Any:
    """What holds of all ensembles, or the first word that tells of a fault: withheld of one is withheld of all."""
    if all(isinstance(value, bool | np.bool_) for value in values):
        return all(values)
    return next((value for value in values if value not in ("converged", "")), values[0])


@dataclass(frozen=True)
class Closure:
    """How well the template agrees with the true background of the signal region."""

    auc: float  # Of a classifier between the two, out of fold
    error: float  # Of the AUC, if both were alike
    efficiency: np.ndarray  # Efficiencies of the template, and
    true_efficiency: np.ndarray  # those of the true background at the same cuts


def closure(case: Case, template: Template, config: Settings, seed: int, tools: Tools) -> Closure:
    """A classifier between the template and all true background of the signal region, weighted (paper C, figure 3a)."""
    drawn = case.data.events.take(case.inside & ~case.data.is_signal)
    truth, truth_weights = drawn.latent, drawn.weight
    if template.sideband is not None:
        truth, truth_weights = np.concatenate([truth, case.left.latent]), np.r_[truth_weights, case.left.weight]
    how = {"seed": seed, "threads": tools.threads, "data_weights": truth_weights}
    scores = out_of_fold_scores(truth, template.latent, template.weight, config.classifier, **how)
    values = -np.r_[scores.data, scores.template]
    labels = np.r_[np.ones(len(truth), bool), np.zeros(len(template.latent), bool)]
    weights = np.r_[truth_weights, template.weight]
    grid = np.linspace(0, 1, 201)
    order = np.argsort(scores.data)
    passing = np.r_[0.0, np.cumsum(truth_weights[order])] / truth_weights.sum()
    true = passing[np.searchsorted(scores.data[order], grid, side="right")]
    return Closure(*weighted_auc(values, labels, weights), grid, true)


def figure_arrays(case: Case, scores: FoldScores, template: Template, config: Settings) -> dict[str, np.ndarray]:
    """Arrays for report and `raypipe export`; ``likelihood_family``: events a bin of the injected family at one fb."""
    data, inside, point = case.data, case.inside, config.selection.working_points[0]
    truth, window = data.is_signal[inside], config.window
    edges = np.linspace(window.low, window.high, round((window.high - window.low) / config.massfit.bin_width) + 1)
    arrays = {"mass_edges": edges, **score_bins(scores, template, config.selection).arrays()}
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
        arrays["likelihood_family"] = score_bins(scores, template, config.selection, (at, weight)).signal
        grid = np.geomspace(1e-4, 1, 81)
        background, weights = true_background(case, scores.of)
        signal = np.r_[scores.data[truth], scores.others["signal"]]
        eff_s, curve = sic_curve(signal, background, weights, grid)
        arrays |= {"sic_background_efficiency": grid, "sic_signal_efficiency": eff_s, "sic": curve}
    return arrays


AVERAGED = (
    *("n_after", "expected_after", "expected_after_error", "z_after", "s_after", "b_after", "background_pull"),
    *("signal_efficiency", "background_efficiency", "sic", "sic_replicas"),
)
"""Of the averaged cut, in the rows as ``averaged_<name>``."""


class Averaged:
    """The mean logarithm of each event's percentiles, over the ensembles of all encoders as they come.

    The mean of their significances is none: they look at the same events. Generated events have no common score, as
    each encoder's flows draw their own. The held-out sideband data have: they say which share of the continuum passes
    there. From there to the signal region it changes as it does for each encoder's template, by the mean of these
    ratios, with the larger of the errors that their counts and their spread give.
    """

    def __init__(self) -> None:
        self.count, self.ids = 0, None
        self.sums: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(1))
        self.ratios: dict[float, list[tuple[float, float]]] = defaultdict(list)  # Of each encoder, with its variance

    def add(self, case: Case, judged: Judged, points: list[float]) -> None:
        """The ensembles of one more encoder; nothing where no held-out sidebands calibrate the cut."""
        seen = (case.data.events, case.left, case.signal, *case.higgs.values())
        ids = np.concatenate([events.event_id for events in seen if events is not None])
        if self.ids is not None and not np.array_equal(ids, self.ids):
            raise ValueError("the encoders see other events, or another order")
        self.ids = ids
        flat = ~judged.template.is_higgs
        every = [scores for scores in judged.scores if scores.by_sidebands]
        for scores in every:
            self.count += 1
            sets = {name: scores.of(name) for name in ("data", *scores.others) if name != SIDEBANDS[1]}
            for name, values in (sets | {"higgs": scores.template[~flat]}).items():
                self.sums[name] = self.sums[name] + np.log(values)
        for point in points if every else ():
            pairs = [(s.passes("template", point)[flat], s.passes(SIDEBANDS[1], point)) for s in every]
            found = [sideband_calibration(*pair) for pair in pairs]  # they share the template
            self.ratios[point].append(tuple(np.mean([(ratio, error**2) for ratio, error in found], axis=0)))

    def row(self, case: Case, template: Template, point: float, verdict: str, config: Settings) -> dict[str, Any]:
        """`AVERAGED` of the averaged cut; of one ensemble nothing.

        ``template``: of any of the encoders, for its expected yields; ``verdict``: why one of them withholds z, if so.
        """
        if self.count < 2:
            return {}
        mean = {name: values / self.count for name, values in self.sums.items()}
        side, higgs = mean[SIDEBANDS[0]], mean.pop("higgs")
        ratios, variances = np.array(self.ratios[point]).T
        ratio, known = ratios.mean(), variances.mean()
        carried = np.sqrt(max(known, ratios.var(ddof=1) if len(ratios) > 1 else 0.0) / len(ratios)) / ratio
        weight = np.full(len(side), template.continuum * ratio / len(side))
        none, fit = np.empty((len(side), 0)), (template.fit, template.continuum, template.continuum_error)
        is_higgs = np.repeat([False, True], [len(side), len(higgs)])
        weights = np.r_[weight, template.weight[template.is_higgs]]
        own = Template(np.empty((len(weights), 0)), weights, is_higgs, *fit, sideband=none)
        data = mean.pop("data")
        scores = background_percentiles(FoldScores(data, np.r_[side, higgs], mean, -data), own)
        chosen, passed = config.selection, scores.passes("template", point)
        # A further event ranks equally anywhere among the sideband events: it passes as k or k + 1 of m + 1 do.
        kept = passed[: len(side)].sum()
        kappa = float((kept + 0.5) / (len(side) + 1) / (max(kept, 1) / len(side)))  # none: the Higgs takes it all
        carried = float(np.hypot(carried, chosen.transfer_uncertainty)) * kappa
        expected, error = own.expected_after(passed, kappa, carried, chosen.higgs_uncertainty)
        found = evaluate(case, scores, own, point, config) | {"expected_after": expected, "expected_after_error": error}
        found["z_after"] = counting_significance(found["n_after"], expected, error)
        found |= {"z_after": float("nan")} if verdict else {}
        found["background_pull"] = (found["b_after"] - expected) / np.hypot(np.sqrt(expected), error)
        return {f"averaged_{name}": found[name] for name in AVERAGED}
