"""Paper C's search around its trials: encoders of several representations, their tables, a model to serve."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from raypipe import seeds
from raypipe.config import Config
from raypipe.errors import UserError
from raypipe.events.diphoton import View
from raypipe.events.latents import Events
from raypipe.events.pseudodata import PseudoData, draw
from raypipe.events.table import read_table
from raypipe.files import code_of, digest
from raypipe.fit.conditional import ConditionalFlow
from raypipe.search.base import Found, Item, Made, Served
from raypipe.search.case import Case, Settings, Tables
from raypipe.search.cathode import background_flow, judged_by
from raypipe.search.contrastive import as_seen, draw_case, search, trial_seed
from raypipe.search.counting import counting_row
from raypipe.search.diphoton import EXAMPLE, LATENTS, Diphoton, prepare_tables, sample_groups
from raypipe.search.embeddings import WORLD, encoder_config, encoder_key, raw_representation, representation
from raypipe.search.evaluate import mean_and_spread
from raypipe.search.result import ALONE, NO_SIGNAL, Result, Tools, Trial
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

    ``tables``: the events as each encoder sees them, of which a null uses one, in turns.
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
    chosen, known = config.selection, judged.template
    of = {p: [counting_row(s, known, p, chosen) for s in judged.scores] for p in chosen.working_points}
    rows = [[{"working_point": p} | row for row in found] for p, found in of.items()]
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


World = tuple[str, int]  # Its name, and the seed of its random numbers: the run's, whatever the encoder's is


@dataclass(frozen=True)
class Embedded:
    """What a latent table is made of: the events of the nominal world, or of another."""

    config: Config  # Of the encoder
    encoder: str  # Its folder below that of the run
    world: World | None = None


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
        name = name.partition(WORLD)[0]
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

    def latents(self, made: Made, trials: Sequence[Trial]) -> list[Item]:
        """The latent tables, and those of the search split in other worlds."""
        nominal = super().latents(made, trials)
        worlds = dict.fromkeys(world for t in trials if (world := self.need(t).partition(WORLD)[2]))
        items = [replace(item, what=Embedded(item.what, item.folder)) for item in nominal]
        for world, item in product(worlds, (item for item in nominal if item.name.startswith("id "))):
            key = digest({"latents": item.key, "world": world, "code": code_of("raypipe.events.worlds")})
            what = Embedded(item.what, item.folder, (world, self.config.seed))
            folder = f"worlds/{world}/{item.folder}"
            items.append(replace(item, name=f"{item.name}{WORLD}{world}", key=key, folder=folder, what=what))
        return items

    def materials(self, name: str, made: Made) -> dict[str, Any] | None:
        """The digests of the latent tables."""
        names = [f"{of} {member}" for of, member in self.encoders(name)]
        names += [f"{one}{WORLD}{world}" for one in names if (world := name.partition(WORLD)[2])]
        found = [made["latents"].get(one) for one in names]
        return {"latents": [record["digest"] for record in found]} if all(found) else None

    def inputs(self, name: str, folder: Path, tools: Tools) -> Iterator[Tables]:
        """The tables of a representation, one an encoder. In another world the simulation, which the embedding split
        stands for, is nominal."""
        world = name.partition(WORLD)[2]
        for of, member in self.encoders(name):
            config, own = encoder_config(self.config, of, member, sample_groups()), encoder_folder(of, member)
            latents = self.read_latents(folder / own / LATENTS[0])
            if world:
                latents |= self.read_latents(folder / "worlds" / world / own / LATENTS[0])
            yield prepare_tables(raw_representation(latents, config.seed) if name == "raw" else latents, config)

    def run(self, inputs: Sequence[Tables], trials: Sequence[Trial], tools: Tools) -> list[Result]:
        ways = [search_null if isinstance(trial, Null) else search for trial in trials]
        return [way(inputs, self.config, trial, tools) for way, trial in zip(ways, trials, strict=True)]

    def nulls(self, count: int, retrained: int = 0) -> list[Trial]:
        """So many of every embedding, in turns of encoders and of pseudo-data without a signal, or a `UserError`."""
        of: dict[str, list[Trial]] = defaultdict(list)
        for trial in self.grid():
            if trial.signal == NO_SIGNAL and trial.method == "cathode" and WORLD not in trial.embedding:
                of[trial.embedding].append(trial)
        if not of:
            told = "a null is drawn from what the search learns without a signal"
            raise UserError(f"calibrate: {told}: scan.background_instances is 0, or scan.methods lacks cathode")
        found: list[Trial] = []
        for number, own in [*((k, False) for k in range(count)), *((k, True) for k in range(min(count, retrained)))]:
            for trials in of.values():
                trial = trials[number // len(self.encoders(self.need(trials[0]))) % len(trials)]
                found.append(Null(**asdict(trial), number=number, retrained=own))
        return found

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
