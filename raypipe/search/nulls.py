"""Pseudo-nulls: what a search of diphoton events reports where there is nothing, as often as one likes."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np

from raypipe import seeds
from raypipe.events.latents import Events
from raypipe.events.pseudodata import PseudoData, draw
from raypipe.fit.classifier import FoldScores
from raypipe.fit.conditional import ConditionalFlow
from raypipe.search.case import Case, Judged, Settings, Tables, Template
from raypipe.search.cathode import background_flow, judged_by
from raypipe.search.contrastive import Rows, as_seen, draw_case, evaluated, trial_seed
from raypipe.search.counting import counting_row
from raypipe.search.evaluate import mean_and_spread
from raypipe.search.result import ALONE, RETRAINED, SIMULATED, Null, Result, Tools
from raypipe.stats.sideband import fit_sidebands


def counted(case: Case, scores: FoldScores, template: Template, point: float, config: Settings) -> dict[str, Any]:
    """What `raypipe.search.evaluate.evaluate` tells of a cut where nobody knows the truth."""
    return {"working_point": point} | counting_row(scores, template, point, config.selection)


all_counted = partial(evaluated, cut=counted)
"""`evaluated` where nobody knows the truth."""


def search_null(
    tables: Sequence[Tables],
    config: Settings,
    trial: Null,
    tools: Tools = ALONE,
    cuts: Callable[[Tables, Case, Judged, Settings], list[Rows]] = all_counted,
) -> Result:
    """Search one null: `raypipe.search.contrastive.search` without truth; deterministic in its arguments.

    ``tables``: the events as each encoder sees them, of which a null uses one, in turns.
    """
    started = time.perf_counter()
    config, encoder = as_seen(config, trial), trial.number % len(tables)
    seed = own = trial_seed(config, trial, encoder)
    null = case = draw_case(tables[encoder], config, trial, encoder, truth=False)
    flow, fold, key = background_flow(case, config, own, tools)
    if trial.kind != SIMULATED:
        seed = seeds.integer(own, "null", trial.number, bits=62)
        null = drawn_null(tables[encoder], case, flow, config, seed)
        fold = seeds.generator(seed, "sideband-folds").integers(0, config.classifier.folds, int(null.side.sum()))
    if trial.kind == RETRAINED:
        flow, fold, _ = background_flow(null, config, seed, replace(tools, stage=None))  # nobody else needs them
    fit = fit_sidebands(null.data.events.mass, config.window, config.massfit)
    judged = judged_by(flow, fold, null, fit, config, seed, tools)
    common = asdict(trial) | {"encoder": encoder, "massfit_chi2": fit.chi2, "massfit_ndf": fit.ndf}
    common |= ({"flow_stage": key} if key else {}) | {"seconds": time.perf_counter() - started}
    return Result([common | mean_and_spread(rows) for rows in cuts(tables[encoder], null, judged, config)])


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
        data = Events.concatenate([data, draw(resonant, luminosity, window, seed=seed, instance=0, truth=False).events])
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
