"""Paper C's search: CATHODE in a contrastive latent space, with the SM Higgs in the background class.

`search`: tables, configuration and trial in, `Result` out. A scan only maps it.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from raypipe import seeds
from raypipe.config import Config
from raypipe.errors import UserError
from raypipe.events.diphoton import View
from raypipe.events.latents import Events
from raypipe.events.pseudodata import check_disjoint, draw, expected_background, expected_overlap
from raypipe.events.regions import in_sidebands, in_signal_region
from raypipe.events.table import read_table
from raypipe.fit.batches import PARTS, parts_of
from raypipe.search.base import Found, Item, Made, Served
from raypipe.search.diphoton import EXAMPLE, LATENTS, Diphoton, sample_groups
from raypipe.search.embeddings import encoder_config, encoder_key, raw_representation, representation
from raypipe.search.evaluate import evaluate, mean_and_spread
from raypipe.search.histograms import Closure, closure, figure_arrays
from raypipe.search.methods import Case, Judged, judge
from raypipe.search.result import ALONE, NO_SIGNAL, Result, Tools, Trial
from raypipe.stats.sideband import fit_sidebands

CONTINUUM = "yy"  # The sample that the flow models; the other background samples are resonant and come from simulation


@dataclass(frozen=True)
class Tables:
    """The inputs of every trial, shared between them."""

    search: dict[str, Events]  # The search split by sample: stands for recorded data
    higgs: dict[str, Events]  # Simulated resonant background by sample, which no training saw


def prepare_tables(latents: dict[str, dict[str, Events]], config: Config) -> Tables:
    """Pick from ``latents[split][sample]`` what the trials share; a sample that was not embedded is a `UserError`.

    The Higgs template comes from the test part of the embedding split: neither from the events that play the data nor
    from those on which the encoder was trained. Its weights are scaled back to the sample's full yield.
    """
    given, scan = config.pseudodata, config.scan
    resonant = [name for name in given.background if name != CONTINUUM]
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
    if given.disjoint:
        drawn = {name: latents["search"][name] for name in given.background}
        check_disjoint(drawn, given.luminosity, max(scan.instances, scan.background_instances))
    names = dict.fromkeys([*given.background, *scan.signals])
    return Tables({name: latents["search"][name] for name in names}, higgs)


Rows = list[dict[str, Any]]


def evaluated(tables: Tables, case: Case, judged: Judged, config: Config) -> list[Rows]:
    """Of every working point the rows, one an ensemble of classifiers."""
    points = config.selection.working_points
    return [[evaluate(case, scores, judged.template, point, config) for scores in judged.scores] for point in points]


def search(
    tables: Tables | Sequence[Tables],
    config: Config,
    trial: Trial,
    tools: Tools = ALONE,
    cuts: Callable[[Tables, Case, Judged, Config], list[Rows]] = evaluated,
    mean: Callable[[Rows], dict[str, Any]] = mean_and_spread,
) -> Result:
    """Run the whole search once.

    Pseudo-data -> sideband mass fit and flow ensemble -> template in the signal region -> out-of-fold classifiers ->
    cuts -> significances. Deterministic in (tables, config, trial).

    ``tables``: the events as one encoder sees them, or as each of several does. All see the same pseudo-data; each has
    its own flows and classifiers, and the rows are the ``mean`` over all ensembles of classifiers.
    """
    started = time.perf_counter()
    config = as_seen(config, trial)
    encoders = [tables] if isinstance(tables, Tables) else list(tables)
    every: list[list[dict[str, Any]]] = [[] for _ in config.selection.working_points]
    closures, clock, first = [], defaultdict(float), None
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
    case, judged = first
    common = common_columns(encoders[0], config, trial, case, judged, closures)
    common |= {"encoders": len(encoders), "ensembles": len(every[0]), **clock, "seconds": time.perf_counter() - started}
    arrays = figure_arrays(case, judged.scores[0], judged.template, config)
    if closures:
        arrays |= {"closure_efficiency": closures[0].efficiency, "closure_true": closures[0].true_efficiency}
    return Result([common | mean(rows) for rows in every], arrays, judged.flow_state)


def common_columns(
    tables: Tables, config: Config, trial: Trial, case: Case, judged: Judged, closures: Sequence[Closure]
) -> dict[str, Any]:
    """What all rows of a trial share; the closure AUC is a mean over encoders, its error that of the first."""
    nan = float("nan")
    auc, error = (float(np.mean([c.auc for c in closures])), closures[0].error) if closures else (nan, nan)
    background = {name: tables.search[name] for name in config.pseudodata.background}
    luminosity = config.pseudodata.luminosity
    row = asdict(trial) | {"luminosity": luminosity, "seed": config.seed}
    row["b_expected_sr"] = expected_background(background, luminosity, config.window)
    row |= {"massfit_chi2": case.fit.chi2, "massfit_ndf": case.fit.ndf}
    row["instance_overlap"] = expected_overlap(background, luminosity, config.pseudodata.disjoint)
    row |= {"flow_stage": judged.flow_stage} if judged.flow_stage else {}
    return row | {"closure_auc": auc, "closure_auc_error": error}


def as_seen(config: Config, trial: Trial) -> Config:
    """The configuration for what the trial sees: the axes of raw features mean something, and they know the mass."""
    if trial.embedding != "raw":
        return config
    kept = {
        "classifier": config.classifier.model_copy(update={"rotate": False}),
        "flow": config.flow.model_copy(update={"mixing": "reverse", "mass_scale": 1.0}),
    }
    return config.model_copy(update=kept)


def trial_seed(config: Config, trial: Trial, encoder: int = 0) -> int:
    """Seed of what a trial draws and trains for itself, as one ``encoder`` sees it."""
    seed = seeds.integer(config.seed, "search", trial.signal, repr(trial.strength), trial.instance, bits=62)
    return seed if encoder == 0 else seeds.integer(seed, "encoder", encoder, bits=62)


def draw_case(tables: Tables, config: Config, trial: Trial, encoder: int = 0) -> Case:
    """Draw the pseudo-data of the trial, as that ``encoder`` sees them, and fit the sidebands."""
    window = config.window
    background = {name: tables.search[name] for name in config.pseudodata.background}
    signal = None if trial.signal == NO_SIGNAL else (trial.signal, tables.search[trial.signal])
    how = {"seed": config.seed, "instance": trial.instance, "signal": signal, "strength": trial.strength}
    data = draw(background, config.pseudodata.luminosity, window, disjoint=config.pseudodata.disjoint, **how)
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


ENCODER = ("encoder.pt",)  # Of an encoder's folder, beside ``encoder.json``


class Contrastive(Diphoton):
    """The search of paper C: encoders of several representations, each several times."""

    report: ClassVar[str] = "raypipe.report.contrastive:contrastive_report"
    costing: ClassVar[str] = "raypipe.search.costs:contrastive_costs"
    train: ClassVar[tuple[str, str]] = ("train", "raypipe.cluster.stages:encoders")
    embed: ClassVar[tuple[str, str]] = ("data", "raypipe.cluster.stages:latents")

    def need(self, trial: Trial) -> str:
        """The representation that a trial sees."""
        return representation(trial, sample_groups())

    def encoders(self, name: str) -> list[tuple[str, int]]:
        """The encoders of a representation. The raw features need none; they are in the table that one has written."""
        return [("id", 0)] if name == "raw" else [(name, member) for member in range(self.config.embedding.encoders)]

    def trained(self, made: Made, trials: Sequence[Trial]) -> list[Item]:
        if not (events := made["simulate"].get("events")):
            return []
        items = []
        for of, member in dict.fromkeys(e for name in map(self.need, trials) for e in self.encoders(name)):
            own = encoder_config(self.config, of, member, sample_groups())
            key = encoder_key(own, events["key"])
            items.append(Item(f"{of} {member}", key, encoder_folder(of, member), "encoder.json", ENCODER, own))
        return items

    def materials(self, name: str, made: Made) -> dict[str, Any] | None:
        """The digests of the latent tables, one an encoder."""
        found = [made["latents"].get(f"{of} {member}") for of, member in self.encoders(name)]
        return {"latents": [record["digest"] for record in found]} if all(found) else None

    def inputs(self, name: str, folder: Path, tools: Tools) -> Iterator[Tables]:
        """The tables of a representation, one an encoder."""
        for of, member in self.encoders(name):
            config = encoder_config(self.config, of, member, sample_groups())
            latents = self.read_latents(folder / encoder_folder(of, member) / LATENTS[0])
            yield prepare_tables(raw_representation(latents, config.seed) if name == "raw" else latents, config)

    def run(self, inputs: Sequence[Tables], trials: Sequence[Trial], tools: Tools) -> list[Result]:
        return [search(inputs, self.config, trial, tools) for trial in trials]

    def served(self, found: Found, flow: Path | None) -> dict[str, Served]:
        """The encoder that the report shows, and a background model."""
        folder, view = found.folder / shown_encoder(found, self.need), View.of(self.config.embedding)
        name = self.config.pseudodata.background[0]
        table = read_table(found.folder / "events" / "search" / f"{name}.parquet", view.columns).slice(0, EXAMPLE)
        example = {"objects": view.objects(table).astype(np.float32), "event": view.event(table)}
        encoder = Served(folder, example, (self.config.embedding.encoder.latent,))
        return {"encoder": encoder} | self.served_flow(flow, folder / LATENTS[0])


def encoder_folder(of: str, member: int) -> str:
    """Where an encoder and its latents are; the first of `id` is the one that reports show."""
    return "encoder" if (of, member) == ("id", 0) else f"encoders/{of.replace(':', '-')}-{member}"


def shown_encoder(found: Found, need: Callable[[Trial], str]) -> str:
    """Folder of the encoder of a report: without `id` (whose table the raw features share) the first of the grid."""
    names = dict.fromkeys(map(need, found.trials.values()))
    return encoder_folder("id" if {"id", "raw"} & set(names) else next(iter(names)), 0)
