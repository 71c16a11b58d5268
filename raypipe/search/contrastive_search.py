"""Paper C's search around its trials: encoders of several representations, their tables, a model to serve.

A representation is what a classifier sees (paper C, section IV.1): `id`, `background`, `raw` (the nine features),
`ip:<sample>` (an encoder that never saw this mass point), `ep:<group>` (this family), or `id~<world>`: `id` of events
from another world (`raypipe.events.worlds`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from raypipe import seeds
from raypipe.config import Config
from raypipe.errors import UserError
from raypipe.events.continuous import continuous_features
from raypipe.events.diphoton import View
from raypipe.events.latents import Events
from raypipe.events.table import read_table
from raypipe.files import code_of, digest
from raypipe.search.base import Found, Item, Made, Served
from raypipe.search.case import Tables
from raypipe.search.contrastive import search
from raypipe.search.diphoton import EXAMPLE, LATENTS, WORLD, Diphoton, prepare_tables, sample_groups, unseen
from raypipe.search.identity import labelled
from raypipe.search.result import NO_SIGNAL, Null, Result, Tools, Trial

World = tuple[str, int]  # Its name, and the seed of its random numbers: the run's, whatever the encoder's is


@dataclass(frozen=True)
class Embedded:
    """What a latent table is made of: the events of the nominal world, or of another."""

    config: Config  # Of the encoder
    encoder: str  # Its folder below that of the run
    world: World | None = None


class Contrastive(Diphoton):
    """The search of paper C: encoders of several representations, each several times."""

    report: ClassVar[str] = "raypipe.report.contrastive:contrastive_report"
    costing: ClassVar[str] = "raypipe.search.costs:contrastive_costs"
    train: ClassVar[tuple[str, str]] = ("train", "raypipe.cluster.stages:encoders")
    embed: ClassVar[tuple[str, str]] = ("data", "raypipe.cluster.stages:latents")

    def need(self, trial: Trial) -> str:
        """The representation that a trial sees."""
        return representation(trial)

    def encoders(self, name: str) -> list[tuple[str, int]]:
        """The encoders of a representation. The raw features need none; they are in the table that one has written."""
        name = name.partition(WORLD)[0]
        return [("id", 0)] if name == "raw" else [(name, member) for member in range(self.config.embedding.encoders)]

    def trained(self, made: Made, trials: Sequence[Trial]) -> list[Item]:
        if not (events := made["simulate"].get("events")):
            return []
        items = []
        for of, member in dict.fromkeys(e for name in map(self.need, trials) for e in self.encoders(name)):
            own = encoder_config(self.config, of, member)
            key = encoder_key(own, events["key"])
            items.append(Item(f"{of} {member}", key, encoder_folder(of, member), "encoder.json", ("encoder.pt",), own))
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
        world, config = name.partition(WORLD)[2], self.config
        for of, member in self.encoders(name):
            own = encoder_folder(of, member)
            latents = self.read_latents(folder / own / LATENTS[0])
            if world:
                latents |= self.read_latents(folder / "worlds" / world / own / LATENTS[0])
            tables = prepare_tables(raw_representation(latents, config.seed) if name == "raw" else latents, config)
            if (name, member) == ("id", 0):  # the one that reports show
                simulated = {sample: unseen(events, config) for sample, events in latents["embedding"].items()}
                tables = replace(tables, labels=labelled(simulated, sample_groups()))
            yield tables

    def run(self, inputs: Sequence[Tables], trials: Sequence[Trial], tools: Tools) -> list[Result]:
        from raypipe.search.nulls import search_null  # and PyTorch with it, for which no command is to wait

        ways = [search_null if isinstance(trial, Null) else search for trial in trials]
        return [way(inputs, self.config, trial, tools) for way, trial in zip(ways, trials, strict=True)]

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


def representation(trial: Trial) -> str:
    """The representation that a trial uses."""
    if trial.embedding in {"id", "background", "raw"} or WORLD in trial.embedding:
        return trial.embedding
    if trial.signal == NO_SIGNAL:
        raise UserError(f"embedding {trial.embedding!r} holds out the injected signal: it needs one")
    return f"ip:{trial.signal}" if trial.embedding == "ip" else f"ep:{sample_groups()[trial.signal]}"


def training_samples(name: str, samples: Sequence[str]) -> list[str]:
    """Which of ``samples`` the encoder of representation ``name`` may see; a hold-out must take something away."""
    (kind, _, held), groups = name.partition(":"), sample_groups()
    sees = {"id": lambda s: True, "background": lambda s: groups[s] >= 0, "ip": lambda s: s != held}
    kept = [s for s in samples if sees.get(kind, lambda s: groups[s] != int(held))(s)]
    if ":" in name and len(kept) == len(samples):
        raise UserError(f"hold-out {name!r}: no such sample or family in embedding.samples ({', '.join(samples)})")
    return kept


def encoder_config(config: Config, name: str, member: int) -> Config:
    """The configuration of one encoder of representation ``name``: its samples and beta, and a seed of its own."""
    samples = training_samples(name, config.embedding.samples)
    seed = config.seed if member == 0 else seeds.integer(config.seed, "encoder", member)
    given = config.embedding
    beta = given.betas.get(name.partition(":")[0], given.beta)
    own = {"samples": samples, "beta": beta, "betas": {}}
    # All are trained on the same part: what one has not seen, such as the simulated Higgs, none has.
    own |= {"parts_seed": config.seed if given.parts_seed is None else given.parts_seed} if member else {}
    embedding = given.model_copy(update=own)
    return config.model_copy(update={"embedding": embedding, "seed": seed})


def encoder_key(config: Config, events: str) -> str:
    """Hash of what determines an encoder: its configuration, the key of the events, and the code."""
    embedding = config.embedding.model_dump(mode="json")
    code = code_of("raypipe.fit.encoder", "raypipe.events.diphoton")
    return digest({"embedding": embedding, "seed": config.seed, "events": events, "code": code})


def raw_representation(latents: Mapping[str, Mapping[str, Events]], seed: int) -> dict[str, dict[str, Events]]:
    """The same events with the nine features, made continuous and scaled by the SM events of the embedding split, in
    place of the latents."""

    def smooth(events: Events) -> np.ndarray:
        return continuous_features(events.features, events.event_id, seed)

    pool = np.concatenate([smooth(e) for e in latents["embedding"].values()])
    centre, width = pool.mean(0), pool.std(0) + 1e-9
    return {
        split: {name: e.seen_as((smooth(e) - centre) / width) for name, e in samples.items()}
        for split, samples in latents.items()
    }
