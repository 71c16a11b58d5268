"""A trial of paper C's search: CATHODE in a contrastive latent space, with the SM Higgs in the background class.

`search`: tables, configuration and trial in, `Result` out. A scan only maps it.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from raypipe import seeds
from raypipe.errors import UserError
from raypipe.events.pseudodata import draw, expected_background, expected_overlap
from raypipe.kinds import background_of, resolve
from raypipe.search.case import Case, Judged, Settings, Tables
from raypipe.search.counting import likelihood_significance, score_bins
from raypipe.search.evaluate import Averaged, Closure, closure, evaluate, figure_arrays, mean_and_spread
from raypipe.search.identity import identify
from raypipe.search.result import ALONE, NO_SIGNAL, Result, Tools, Trial

CONTINUUM = "yy"  # The sample that the flow models; the other background samples are resonant and come from simulation

Rows = list[dict[str, Any]]


def evaluated(
    tables: Tables, case: Case, judged: Judged, config: Settings, cut: Callable[..., dict[str, Any]] = evaluate
) -> list[Rows]:
    """Of every working point the rows, one an ensemble of classifiers; ``z_likelihood`` is that of all bins of the
    score together, the same at all points but where a ``verdict`` withholds it. ``cut``: what is told of one."""
    rows, template = [], judged.template
    z = [likelihood_significance(score_bins(scores, template, config.selection)) for scores in judged.scores]
    for point in config.selection.working_points:
        found = [cut(case, scores, template, point, config) for scores in judged.scores]
        told = [float("nan") if row["verdict"] else value for row, value in zip(found, z, strict=True)]
        rows.append([row | {"z_likelihood": value} for row, value in zip(found, told, strict=True)])
    return rows


def search(
    tables: Tables | Sequence[Tables],
    config: Settings,
    trial: Trial,
    tools: Tools = ALONE,
    cuts: Callable[[Tables, Case, Judged, Settings], list[Rows]] = evaluated,
) -> Result:
    """Run the whole search once.

    Pseudo-data -> background (`raypipe.search.cathode`: sideband mass fit, flow ensemble, template in the signal
    region) and out-of-fold classifiers -> cuts -> significances. Deterministic in (tables, config, trial).

    ``tables``: the events as one encoder sees them, or as each of several does. All see the same pseudo-data; each has
    its own flows and classifiers, and the rows are means over all ensembles of classifiers, beside the cut on the
    mean of their scores (`Averaged`).
    """
    started = time.perf_counter()
    config = as_seen(config, trial)
    encoders = [tables] if isinstance(tables, Tables) else list(tables)
    every: list[list[dict[str, Any]]] = [[] for _ in config.selection.working_points]
    closures, clock, first, averaged = [], defaultdict(float), None, Averaged()
    for k, one in enumerate(encoders):
        own = trial_seed(config, trial, k)
        now = time.perf_counter()
        case = draw_case(one, config, trial, k)
        clock["seconds_data"] += time.perf_counter() - now
        judged = judge(trial.method, case, config, own, tools)
        if trial.signal == NO_SIGNAL:  # the template is then the same as with one, and as costly to judge
            now = time.perf_counter()
            closures.append(closure(case, judged.template, config, seeds.integer(own, "closure"), tools))
            clock["seconds_closure"] += time.perf_counter() - now
        for name, seconds in judged.clock.items():
            clock[f"seconds_{name}"] += seconds
        for rows, found in zip(every, cuts(one, case, judged, config), strict=True):
            rows += found
        first = first or (case, judged)
        averaged.add(case, judged, config.selection.working_points)
    case, judged = first
    common = common_columns(encoders[0], config, trial, judged, closures)
    common |= {"encoders": len(encoders), "ensembles": len(every[0]), **clock, "seconds": time.perf_counter() - started}
    arrays = figure_arrays(case, judged.scores[0], judged.template, config)
    labels, cut = encoders[0].labels, every[0][0]
    if labels and trial.method == "cathode" and not cut["verdict"]:
        arrays |= identify(case, judged.scores[0], judged.template, cut, labels)
    if closures:
        arrays |= {"closure_efficiency": closures[0].efficiency, "closure_true": closures[0].true_efficiency}
    rows = [common | mean_and_spread(found) for found in every]
    for row, point in zip(rows, config.selection.working_points, strict=True):
        row |= averaged.row(case, judged.template, point, row["verdict"], config)
    return Result(rows, arrays, judged.flow_state)


def common_columns(
    tables: Tables, config: Settings, trial: Trial, judged: Judged, closures: Sequence[Closure]
) -> dict[str, Any]:
    """What all rows of a trial share; the closure AUC is a mean over encoders, its error that of the first."""
    nan, fit = float("nan"), judged.template.fit
    auc, error = (float(np.mean([c.auc for c in closures])), closures[0].error) if closures else (nan, nan)
    background = {name: tables.search[name] for name in config.pseudodata.background}
    luminosity = config.pseudodata.luminosity
    row = asdict(trial) | {"luminosity": luminosity, "seed": config.seed}
    row["b_expected_sr"] = expected_background(background, luminosity, config.window)
    row |= {"massfit_chi2": fit.chi2, "massfit_ndf": fit.ndf}
    row["instance_overlap"] = expected_overlap(background, luminosity, config.pseudodata.disjoint)
    learns = judged.flow_state is not None or judged.flow_stage is not None
    row |= {"flow_stage": judged.flow_stage} if judged.flow_stage else {}
    row |= {"flow_share": config.flow.share} if learns else {}  # whether the flows knew what was injected
    return row | {"closure_auc": auc, "closure_auc_error": error}


def judge(method: str, case: Case, config: Settings, seed: int, tools: Tools) -> Judged:
    """Template and scores by the way to know the background of this name (`raypipe.kinds.BACKGROUNDS`)."""
    return resolve(background_of(method).make)(case, config, seed, tools)


def as_seen(config: Settings, trial: Trial) -> Settings:
    """The configuration for what the trial sees: the axes of raw features mean something, and they know the mass."""
    if trial.embedding != "raw":
        return config
    kept = {
        "classifier": config.classifier.model_copy(update={"rotate": False}),
        "flow": config.flow.model_copy(update={"mixing": "reverse", "mass_scale": 1.0}),
    }
    return config.model_copy(update=kept)


def trial_seed(config: Settings, trial: Trial, encoder: int = 0) -> int:
    """Seed of what a trial draws and trains for itself, as one ``encoder`` sees it."""
    seed = seeds.integer(config.seed, "search", trial.signal, repr(trial.strength), trial.instance, bits=62)
    return seed if encoder == 0 else seeds.integer(seed, "encoder", encoder, bits=62)


def draw_case(tables: Tables, config: Settings, trial: Trial, encoder: int = 0, *, truth: bool = True) -> Case:
    """Draw the pseudo-data of the trial, as that ``encoder`` sees them; ``truth``: with the background left over."""
    window = config.window
    background = {name: tables.search[name] for name in config.pseudodata.background}
    signal = None if trial.signal == NO_SIGNAL else (trial.signal, tables.search[trial.signal])
    how = {"seed": config.seed, "instance": trial.instance, "signal": signal, "strength": trial.strength}
    data = draw(
        background, config.pseudodata.luminosity, window, disjoint=config.pseudodata.disjoint, truth=truth, **how
    )
    finite = np.isfinite(data.events.latent).all(1)
    if not finite.all():
        row = int(data.events.event_id[np.argmin(finite)])
        raise UserError(f"the latent of event {row} is not finite: train the encoder again with a smaller rate")
    left_inside = window.inside(data.left_over.mass)
    left, rest = data.left_over.take(left_inside), data.signal_left_over
    return Case(
        data,
        window.inside(data.events.mass),
        window.beside(data.events.mass),
        left,
        left.weight * data.left_over_scale[left_inside],
        None if rest is None else rest.take(window.inside(rest.mass)),
        tables.higgs,
        seeds.integer(config.seed, "shared", trial.instance, encoder, bits=62),
    )
