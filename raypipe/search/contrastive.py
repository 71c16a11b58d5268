"""Paper C's search: CATHODE in a contrastive latent space, with the SM Higgs in the background class.

One function, `search`: tables, configuration and trial in, `Result` out. A scan only maps it.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from raypipe import seeds
from raypipe.config import Config
from raypipe.errors import UserError
from raypipe.events.latents import Events
from raypipe.events.pseudodata import draw, expected_background, expected_overlap
from raypipe.events.regions import in_sidebands, in_signal_region
from raypipe.fit.batches import PARTS, parts_of
from raypipe.search.evaluate import evaluate, mean_and_spread
from raypipe.search.histograms import closure, figure_arrays
from raypipe.search.methods import METHODS, Case
from raypipe.search.result import NO_SIGNAL, PLAIN, Result, Tools, Trial
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
        higgs[name] = replace(kept, weight=kept.weight * scale)
    names = dict.fromkeys([*config.pseudodata.background, *config.scan.signals])
    return Tables({name: latents["search"][name] for name in names}, higgs)


def search(
    tables: Tables | Sequence[Tables],
    config: Config,
    trial: Trial,
    tools: Tools = PLAIN,
) -> Result:
    """Run the whole search once.

    Pseudo-data -> sideband mass fit and flow ensemble -> template in the signal region -> out-of-fold classifiers ->
    cuts -> significances. Deterministic in (tables, config, trial).

    Args:
        tables: the events as one encoder sees them, or as each of several does. All see the same pseudo-data; each
            has its own flows and classifiers, and the rows are means over all ensembles of classifiers.
    """
    started = time.perf_counter()
    if trial.embedding == "raw":  # their axes mean something, and they know the mass
        kept = {
            "classifier": config.classifier.model_copy(update={"rotate": False}),
            "flow": config.flow.model_copy(update={"mixing": "reverse", "mass_scale": 1.0}),
        }
        config = config.model_copy(update=kept)
    encoders = [tables] if isinstance(tables, Tables) else list(tables)
    here = ("search", trial.signal, repr(trial.strength), trial.instance)
    seed = seeds.integer(config.seed, *here, bits=62)
    every: list[list[dict[str, Any]]] = [[] for _ in config.selection.working_points]
    closures, clock, first = [], defaultdict(float), None
    for k, one in enumerate(encoders):
        own = seed if k == 0 else seeds.integer(seed, "encoder", k, bits=62)
        now = time.perf_counter()
        case = draw_case(one, config, trial, k)
        clock["seconds_data"] += time.perf_counter() - now
        judged = METHODS[trial.method](case, config, own, tools)
        if trial.signal == NO_SIGNAL:  # the template is then the same as with one, and as costly to judge
            now = time.perf_counter()
            closures.append(closure(case, judged.template, config, seeds.integer(own, "closure"), tools))
            clock["seconds_closure"] += time.perf_counter() - now
        for name, seconds in judged.clock.items():
            clock[f"seconds_{name}"] += seconds
        for rows, point in zip(every, config.selection.working_points, strict=True):
            rows += [evaluate(case, s, judged.template, point, config) for s in judged.scores]
        if first is None:
            first = case, judged

    case, judged = first
    background = {name: encoders[0].search[name] for name in config.pseudodata.background}
    luminosity = config.pseudodata.luminosity
    common = {
        **asdict(trial),
        "encoders": len(encoders),
        "ensembles": len(every[0]),
        "luminosity": luminosity,
        "seed": config.seed,
        "b_expected_sr": expected_background(background, luminosity, config.window),
        "closure_auc": float(np.mean([c.auc for c in closures])) if closures else float("nan"),
        "closure_auc_error": closures[0].error if closures else float("nan"),
        "massfit_chi2": case.fit.chi2,
        "massfit_ndf": case.fit.ndf,
        "instance_overlap": expected_overlap(background, luminosity),
        **({"flow_stage": judged.flow_stage} if judged.flow_stage else {}),
        **clock,
        "seconds": time.perf_counter() - started,
    }
    arrays = figure_arrays(case, judged.scores[0], judged.template, config)
    if closures:
        arrays |= {"closure_efficiency": closures[0].efficiency, "closure_true": closures[0].true_efficiency}
    return Result([common | mean_and_spread(rows) for rows in every], arrays, judged.flow_state)


def draw_case(tables: Tables, config: Config, trial: Trial, encoder: int = 0) -> Case:
    """Draw the pseudo-data of the trial, as that ``encoder`` sees them, and fit the sidebands."""
    window = config.window
    background = {name: tables.search[name] for name in config.pseudodata.background}
    signal = None if trial.signal == NO_SIGNAL else (trial.signal, tables.search[trial.signal])
    data = draw(
        background,
        config.pseudodata.luminosity,
        window,
        seed=config.seed,
        instance=trial.instance,
        signal=signal,
        strength=trial.strength,
    )
    finite = np.isfinite(data.events.latent).all(1)
    if not finite.all():
        row = int(data.events.event_id[np.argmin(finite)])
        raise UserError(f"the latent of event {row} is not finite: train the encoder again with a smaller rate")
    left_inside = in_signal_region(data.left_over.mass, window)
    left = data.left_over.take(left_inside)
    rest = data.signal_left_over
    return Case(
        data,
        in_signal_region(data.events.mass, window),
        in_sidebands(data.events.mass, window),
        left,
        left.weight * data.left_over_scale[left_inside],
        None if rest is None else rest.take(in_signal_region(rest.mass, window)),
        tables.higgs,
        fit_sidebands(data.events.mass, window, config.massfit),
        seeds.integer(config.seed, "shared", trial.instance, encoder, bits=62),
    )
