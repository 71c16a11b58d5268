"""A background that no experiment knows, for comparison: the truth of the simulation.

`idealised` has a true background sample in place of the flow, `supervised` also knows the signal (which no anomaly
search can pass), `cut` is the best cut on one of the nine features.
"""

from dataclasses import replace

import numpy as np

from raypipe.errors import UserError
from raypipe.events.latents import Events
from raypipe.fit.classifier import FoldScores
from raypipe.search.case import Case, Judged, Settings, Template, classified
from raypipe.search.counting import check_cuts
from raypipe.search.result import Tools
from raypipe.stats.roc import tail_shares
from raypipe.stats.sideband import fit_sidebands


def _true_template(case: Case, config: Settings) -> Template:
    """The left-over background at its true yields: what a perfect flow and a perfect Higgs simulation would give."""
    if not len(case.left):
        raise UserError("no background event is left over in the signal region: simulate more (simulate.samples)")
    weight = case.left_weight * config.pseudodata.luminosity
    total, error = float(weight.sum()), float(np.sqrt((weight**2).sum()))
    fit = fit_sidebands(case.data.events.mass, config.window, config.massfit)
    template = Template(case.left.latent, weight, np.zeros(len(weight), bool), fit, total, error)
    check_cuts(config.selection.working_points, template, config.classifier.folds, by_sidebands=False)
    return template


def idealised(case: Case, config: Settings, seed: int, tools: Tools) -> Judged:
    """A true, independent background sample in place of the flow's."""
    template = _true_template(case, config)
    latent = case.data.events.latent
    others = {"sideband_data": latent[case.side]}
    if case.signal is not None:
        others["signal"] = case.signal.latent
    every = classified(latent[case.inside], template, others, config, seed, tools)
    # The template is the left-over background: its out-of-fold scores are the background's.
    return Judged(template, [_known(s, {"data": "data", "background": "template"}) for s in every])


def _signal(case: Case) -> Events:
    if case.signal is None or not len(case.signal):
        raise UserError("the methods supervised and cut need a signal, with events left over from the injection")
    return case.signal


def supervised(case: Case, config: Settings, seed: int, tools: Tools) -> Judged:
    """Trained on signal against background, with labels: the bound for the representation at hand."""
    template, signal = _true_template(case, config), _signal(case)
    latent = case.data.events.latent
    others = {"inside": latent[case.inside], "sideband_data": latent[case.side]}
    every = classified(signal.latent, template, others, config, seed, tools)
    names = {"data": "inside", "background": "template", "signal": "data"}
    return Judged(template, [replace(_known(s, names), margin=-s.of("inside")) for s in every])


def _known(scores: FoldScores, names: dict[str, str]) -> FoldScores:
    """The scores with some sets under another name: ``names`` gives the old one of each new one."""
    names = {name: name for name in ("template", *scores.others) if name != "inside"} | names
    found, better = ({k: get(v) for k, v in names.items()} for get in (scores.of, scores.above))
    return FoldScores(found.pop("data"), found.pop("template"), found, scores.margin, better)


def best_cut(case: Case, config: Settings, seed: int, tools: Tools) -> Judged:
    """The best one-sided cut on one of the nine features at the first working point, chosen knowing the signal."""
    template, signal = _true_template(case, config), _signal(case)
    features = case.data.events.features
    sets = {"data": features[case.inside], "sideband_data": features[case.side]}
    sets |= {"background": case.left.features, "signal": signal.features}
    best, most, point = None, -1.0, config.selection.working_points[0]
    for column in range(features.shape[1]):
        for sign in (1, -1):
            reference = sign * case.left.features[:, column]
            shares = {
                k: tail_shares(sign * v[:, column], reference, template.weight, own=k == "background")
                for k, v in sets.items()
            }
            better, score = ({k: v[i] for k, v in shares.items()} for i in (0, 1))
            better["template"] = better["background"]
            data = score.pop("data")
            found = FoldScores(data, score["background"], score, -data, better)
            passed = (found.of("signal") <= point).mean()  # nothing that passes only because it cannot be divided
            if passed > most:
                best, most = found, passed
    return Judged(template, [best])
