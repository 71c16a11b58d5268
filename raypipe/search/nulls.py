"""Pseudo-nulls of a contrastive search: data without a signal, drawn from what the search has learnt of its own.

A parametric bootstrap (2512.13787): masses from the sideband fit over the whole window, latents from the trained flows,
and simulated Higgs events by their yield. All that follows is the search's own: sideband fit, template, classifiers,
cuts and counts. What only a truth needs is left out.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from raypipe import seeds
from raypipe.events.latents import Events
from raypipe.events.pseudodata import PseudoData, draw
from raypipe.fit.conditional import ConditionalFlow
from raypipe.search.case import Case, Settings, Tables
from raypipe.search.cathode import background_flow, judged_by
from raypipe.search.contrastive import as_seen, draw_case, trial_seed
from raypipe.search.evaluate import counted, mean_and_spread
from raypipe.search.result import ALONE, Result, Tools, Trial
from raypipe.stats.sideband import fit_sidebands


@dataclass(frozen=True)
class Null(Trial):
    """A pseudo-null of the trial of the same fields, which has no signal."""

    number: int = 0
    retrained: bool = False  # Whether its flows learn its own sidebands, rather than those of the trial

    def label(self) -> str:
        """Short name for people."""
        return f"null {self.number}{' with flows of its own' if self.retrained else ''} of {super().label()}"


def search_null(tables: Sequence[Tables], config: Settings, trial: Null, tools: Tools = ALONE) -> Result:
    """Search one pseudo-null: `raypipe.search.contrastive.search` without truth; deterministic in its arguments.

    ``tables``: the events as each encoder sees them. The nulls take turns with the encoders: a null is made of latents,
    which are those of one of them. A search with several reports a mean over them, which varies less.
    """
    started = time.perf_counter()
    config, encoder = as_seen(config, trial), trial.number % len(tables)
    own = trial_seed(config, trial, encoder)
    case = draw_case(tables[encoder], config, trial, encoder)
    flow, _, key = background_flow(case, config, own, tools)
    seed = seeds.integer(own, "null", trial.number, bits=62)
    null = drawn_null(tables[encoder], case, flow, config, seed)
    fit = fit_sidebands(null.data.events.mass, config.window, config.massfit)
    if trial.retrained:
        flow, fold, _ = background_flow(null, config, seed, replace(tools, stage=None))  # nobody else needs them
    else:
        fold = seeds.generator(seed, "sideband-folds").integers(0, config.classifier.folds, int(null.side.sum()))
    judged = judged_by(flow, fold, null, fit, config, seed, tools)
    common = asdict(trial) | {"encoder": encoder, "massfit_chi2": fit.chi2, "massfit_ndf": fit.ndf}
    common |= ({"flow_stage": key} if key else {}) | {"seconds": time.perf_counter() - started}
    points, template = config.selection.working_points, judged.template
    rows = [[{"working_point": p} | counted(s, template, p, config) for s in judged.scores] for p in points]
    return Result([common | mean_and_spread(of) for of in rows])


def drawn_null(tables: Tables, case: Case, flow: ConditionalFlow, config: Settings, seed: int) -> Case:
    """Data that the flows and the sideband fit of ``case`` expect, with Higgs events of the search split."""
    window, luminosity, rng = config.window, config.pseudodata.luminosity, seeds.generator(seed, "data")
    fit = fit_sidebands(case.data.events.mass, window, config.massfit)
    n = int(rng.poisson(fit.integral(window.low, window.high)[0]))
    mass = fit.sample(n, window.low, window.high, rng)
    empty = case.data.events.take(np.arange(0))
    features = np.zeros((n, empty.features.shape[1]), np.float32)
    plain = {"event_id": -1 - np.arange(n), "mass": mass, "weight": np.full(n, 1 / luminosity), "features": features}
    data = replace(empty, **plain).seen_as(flow.sample(mass, rng))
    if case.higgs:
        resonant = {name: tables.search[name] for name in case.higgs}
        data = Events.concatenate([data, draw(resonant, luminosity, window, seed=seed, instance=0).events])
    none = np.empty(0)
    return Case(
        PseudoData(data, np.zeros(len(data), bool), empty, none, None),
        window.inside(data.mass),
        window.beside(data.mass),
        empty,
        none,
        None,
        case.higgs,
        seed,
    )
