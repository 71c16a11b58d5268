"""How a search knows its background: the sidebands (CATHODE), or a truth that no experiment has, for comparison.

`idealised` has a true background sample in place of the flow, `supervised` also knows the signal (which no anomaly
search can pass), `cut` is the best cut on one of the nine features.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from raypipe import seeds
from raypipe.config import Config
from raypipe.errors import UserError
from raypipe.events.latents import Events
from raypipe.events.pseudodata import PseudoData
from raypipe.fit.classifier import Background, FoldScores, ensemble_scores
from raypipe.fit.flow_stack import Sidebands
from raypipe.fit.flows import ConditionalFlow, FlowSet
from raypipe.kinds import background_of, resolve
from raypipe.search.counting import background_percentiles, check_cuts
from raypipe.search.result import Tools
from raypipe.search.template import Template, build_template
from raypipe.stats.roc import poisson_weights, tail_shares
from raypipe.stats.sideband import SidebandFit

ROW_REPLICAS = 50
"""Replicas of the simulated events in a row: the error from them is known to 10 %."""
EVENTS_SEED = 0
"""The same for all runs, so that encoders and configurations on the same events are compared as a pair."""


@dataclass(frozen=True)
class Case:
    """One pseudo-data set as one encoder sees it."""

    data: PseudoData
    inside: np.ndarray  # (n,) mask of the signal region over the data
    side: np.ndarray  # (n,) mask of the sidebands
    left: Events  # True background of the signal region that was not drawn
    left_weight: np.ndarray  # Their weights per fb^-1 at the samples' full yields
    signal: Events | None  # Signal of the signal region that was not injected
    higgs: dict[str, Events]
    fit: SidebandFit
    shared_seed: int  # Of what all injections into this pseudo-data set may share

    @cached_property
    def drawn(self) -> dict[str, np.ndarray]:
        """Poisson weights (replicas, n) of the simulated events of the signal region that truth is judged on.

        They belong to the event: all pseudo-data sets, cuts and encoders see the same fluctuation of the simulation.
        """
        ids, truth = self.data.events.event_id[self.inside], self.data.is_signal[self.inside]
        sets = {"background": np.r_[ids[~truth], self.left.event_id]}
        if self.signal is not None:
            sets["signal"] = np.r_[ids[truth], self.signal.event_id]
        return {name: poisson_weights(of, EVENTS_SEED, ROW_REPLICAS) for name, of in sets.items()}

    def passes(self, scores: FoldScores, point: float) -> np.ndarray:
        """(n,) which data pass a cut, in the signal region and in the sidebands."""
        passed = np.zeros(len(self.inside), dtype=bool)
        passed[self.inside], passed[self.side] = (scores.passes(name, point) for name in ("data", "sideband_data"))
        return passed


@dataclass
class Judged:
    """Template and scores of one method; several ensembles of the same classifiers."""

    template: Template
    scores: list[FoldScores]
    flow_state: dict[str, Any] | None = None  # The background model, unless a stage keeps it
    flow_stage: str | None = None  # Its key, if a stage keeps it
    clock: dict[str, float] = field(default_factory=dict)


def flow_set(case: Case, config: Config, seed: int, device: str = "cpu") -> FlowSet:
    """What the flows of a pseudo-data set learn: its sidebands."""
    events, window, rows = case.data.events, config.window, learnt_rows(case, config)
    sidebands = Sidebands(
        events.latent[rows],
        events.mass[rows],
        seeds.integer(case.shared_seed if config.flow.share else seed, "flow"),
        events.posterior[rows] if config.flow.redraw else None,
    )
    masses = config.flow.mass_range(window.low, window.high)
    return FlowSet(sidebands, masses, config.flow, config.classifier.folds, device)


def learnt_rows(case: Case, config: Config) -> np.ndarray:
    """The rows of the data that its flows learn from.

    With `flow.share` those of the injected signal are left out and the order is that of the event ids, so that all
    injections into one pseudo-data set ask for the very same flows.
    """
    rows = np.flatnonzero(case.side)
    if config.flow.share:
        rows = rows[~case.data.is_signal[rows]]
        rows = rows[np.argsort(case.data.events.event_id[rows], kind="stable")]
    return rows


def background_flow(
    case: Case, config: Config, seed: int, tools: Tools
) -> tuple[ConditionalFlow, np.ndarray, str | None]:
    """Train the flows on the sidebands; also the fold of every sideband event, and the key if a stage keeps them."""
    wanted, side = flow_set(case, config, seed, tools.device), np.flatnonzero(case.side)
    key = None if tools.stage is None else wanted.key
    if tools.stage is None or key is None:
        flow = wanted.fit()
    else:
        flow = ConditionalFlow.from_state(tools.stage("flow", key, lambda: wanted.fit().state()))
    # Of events that no flow knows.
    fold = seeds.generator(seed, "sideband-folds").integers(0, config.classifier.folds, len(side))
    fold[np.searchsorted(side, learnt_rows(case, config))] = flow.part
    return flow, fold, key


def _classified(
    data: np.ndarray, template: Template, others: dict[str, np.ndarray], config: Config, seed: int, tools: Tools
) -> list[FoldScores]:
    """Scores of ``data`` against a template, of every ensemble."""
    background = Background(template.latent, template.weight, template.training)
    how = {"seed": seeds.integer(seed, "classifier"), "threads": tools.threads}
    return ensemble_scores(data, background, config.classifier, others=others, homes=template.homes, **how)


def cathode(case: Case, config: Config, seed: int, tools: Tools) -> Judged:
    """Flow on the sidebands, interpolated to the signal region, plus simulated Higgs; classifiers out of fold."""
    start = time.perf_counter()
    latent, mass = case.data.events.latent, case.data.events.mass
    flow, fold, key = background_flow(case, config, seed, tools)
    fitted = time.perf_counter()
    template = build_template(flow, case.fit, mass[case.side], fold, case.higgs, config, seed)
    sampled = time.perf_counter()
    chosen = config.selection
    check_cuts(chosen.working_points, template, config.classifier.folds, by_sidebands=chosen.sideband_calibration)
    others = {"sideband_data": latent[case.side], "sideband_template": template.sideband}
    others["background"] = case.left.latent
    if case.signal is not None:
        others["signal"] = case.signal.latent
    scores = _classified(latent[case.inside], template, others, config, seed, tools)
    if chosen.sideband_calibration:
        scores = [background_percentiles(s, template) for s in scores]
    clock = {"flow": fitted - start, "sampling": sampled - fitted, "classifier": time.perf_counter() - sampled}
    return Judged(template, scores, None if key else flow.state(), key, clock)


def without_higgs(case: Case, config: Config, seed: int, tools: Tools) -> Judged:
    """`cathode` with a background of the flow's continuum alone: the Higgs itself is an anomaly then."""
    return cathode(replace(case, higgs={}), config, seed, tools)


def _true_template(case: Case, config: Config) -> Template:
    """The left-over background at its true yields: what a perfect flow and a perfect Higgs simulation would give."""
    if not len(case.left):
        raise UserError("no background event is left over in the signal region: simulate more (simulate.samples)")
    weight = case.left_weight * config.pseudodata.luminosity
    total, error = float(weight.sum()), float(np.sqrt((weight**2).sum()))
    template = Template(case.left.latent, weight, np.zeros(len(weight), bool), case.fit, total, error)
    check_cuts(config.selection.working_points, template, config.classifier.folds, by_sidebands=False)
    return template


def idealised(case: Case, config: Config, seed: int, tools: Tools) -> Judged:
    """A true, independent background sample in place of the flow's."""
    template = _true_template(case, config)
    latent = case.data.events.latent
    others = {"sideband_data": latent[case.side]}
    if case.signal is not None:
        others["signal"] = case.signal.latent
    every = _classified(latent[case.inside], template, others, config, seed, tools)
    # The template is the left-over background: its out-of-fold scores are the background's.
    return Judged(template, [_known(s, {"data": "data", "background": "template"}) for s in every])


def _signal(case: Case) -> Events:
    if case.signal is None or not len(case.signal):
        raise UserError("the methods supervised and cut need a signal, with events left over from the injection")
    return case.signal


def supervised(case: Case, config: Config, seed: int, tools: Tools) -> Judged:
    """Trained on signal against background, with labels: the bound for the representation at hand."""
    template, signal = _true_template(case, config), _signal(case)
    latent = case.data.events.latent
    others = {"inside": latent[case.inside], "sideband_data": latent[case.side]}
    every = _classified(signal.latent, template, others, config, seed, tools)
    names = {"data": "inside", "background": "template", "signal": "data"}
    return Judged(template, [replace(_known(s, names), margin=-s.of("inside")) for s in every])


def _known(scores: FoldScores, names: dict[str, str]) -> FoldScores:
    """The scores with some sets under another name: ``names`` gives the old one of each new one."""
    names = {name: name for name in ("template", *scores.others) if name != "inside"} | names
    found, better = ({k: get(v) for k, v in names.items()} for get in (scores.of, scores.above))
    return FoldScores(found.pop("data"), found.pop("template"), found, scores.margin, better)


def best_cut(case: Case, config: Config, seed: int, tools: Tools) -> Judged:
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


def judge(method: str, case: Case, config: Config, seed: int, tools: Tools) -> Judged:
    """Template and scores by the way to know the background of this name (`raypipe.kinds.BACKGROUNDS`)."""
    return resolve(background_of(method).make)(case, config, seed, tools)
