"""What the searches in simulated diphoton events (papers A and C) share: their events, their grid, their answer."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from raypipe.config.run import DiphotonRun
from raypipe.errors import UserError
from raypipe.events.latents import Events, split_latents
from raypipe.events.pseudodata import check_disjoint
from raypipe.events.schema import tensor_values
from raypipe.events.table import read_table
from raypipe.files import code_of, digest
from raypipe.fit.batches import PARTS, dealt
from raypipe.kinds import BACKGROUNDS, background_modules, background_of
from raypipe.search.base import Item, Made, Search, Served, Stage, plain, simulated
from raypipe.search.case import Tables
from raypipe.search.contrastive import CONTINUUM
from raypipe.search.counting import cut_lines
from raypipe.search.result import DRAWN, NO_SIGNAL, RETRAINED, SIMULATED, Null, Trial
from raypipe.simulate.processes import PROCESSES

WORLD = "~"  # Before the name of a world
LATENTS = ("latents.parquet",)  # Of an encoder's folder, beside ``latents.json``
EXAMPLE = 4  # Events of the input example of a registered model


def trial_grid(
    signals: list[str],
    strengths: list[float],
    instances: int,
    background_instances: int,
    embeddings: Sequence[str] = ("id",),
    methods: Sequence[str] = ("cathode",),
    variations: Sequence[str] = (),
) -> list[Trial]:
    """All trials of a scan, those without signal first: some embeddings and methods need one."""
    ways = [(e, m) for e in embeddings for m in methods] + [(f"id{WORLD}{name}", "cathode") for name in variations]
    blind = [(e, m) for e, m in ways if e not in {"ip", "ep"} and not BACKGROUNDS[m].needs_signal]
    none = [Trial(NO_SIGNAL, 0.0, i, e, m) for e, m in blind for i in range(background_instances)]
    return none + [Trial(s, x, i, e, m) for e, m in ways for s in signals for x in strengths for i in range(instances)]


def sample_groups() -> dict[str, int]:
    """Process group of every known sample; negative groups are signal families."""
    return {name: process.group for name, process in PROCESSES.items()}


def unseen(events: Events, config: DiphotonRun) -> Events:
    """The test part of events of the embedding split, which no training saw."""
    return events.take(np.flatnonzero(dealt(events.event_id, config.embedding, config.seed) == PARTS.index("test")))


def prepare_tables(latents: dict[str, dict[str, Events]], config: DiphotonRun) -> Tables:
    """Pick from ``latents[split][sample]`` what the trials share; a sample that was not embedded is a `UserError`.

    The Higgs template is the test part of the embedding split, scaled to the sample's full yield.
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
        kept = unseen(events, config)
        if not len(kept):
            raise UserError(f"sample {name!r} has no event in the test part of the embedding split: simulate more")
        scale = events.weight.sum() / kept.weight.sum()
        higgs[name] = replace(kept, weight=kept.weight * scale)
    asked, scan = config.pseudodata, config.scan
    if asked.disjoint:
        drawn = {name: latents["search"][name] for name in asked.background}
        check_disjoint(drawn, asked.luminosity, max(scan.instances, scan.background_instances))
    names = dict.fromkeys([*asked.background, *scan.signals])
    continuum = latents.get("embedding", {}).get(CONTINUUM)
    masses = None if continuum is None else continuum.mass
    return Tables({name: latents["search"][name] for name in names}, higgs, masses)


class Diphoton(Search):
    """A search whose trials see simulated events through an encoder's latent table, and draw pseudo-data from it."""

    sections: ClassVar[tuple[str, ...]] = (
        *("seed", "window", "pseudodata", "massfit", "flow", "classifier", "selection"),
        *("embedding.train_fraction", "embedding.validation_fraction", "embedding.parts_seed"),
    )
    options: ClassVar[tuple[str, ...]] = ("signal", "strength", "instance", "embedding", "method")
    train: ClassVar[tuple[str, str]]  # `Stage.on` and `Stage.make` of the encoders
    embed: ClassVar[tuple[str, str]]  # Those of the latent tables

    def grid(self) -> list[Trial]:
        return list(dict.fromkeys(trial for grid in self.config.scan.grids() for trial in trial_grid(**grid)))

    def stages(self) -> tuple[Stage, ...]:
        encoders, latents = Stage("encoder", *self.train, self.trained), Stage("latents", *self.embed, self.latents)
        return (simulated(self.config), encoders, latents)

    def learns(self, trial: Trial) -> bool:
        return BACKGROUNDS[trial.method].learns

    @classmethod
    def code(cls) -> str:
        return code_of(cls.__module__, *background_modules())

    def large(self, trial: Trial) -> bool:
        return background_of(trial.method).large and self.config.classifier.engine != "xgboost"

    def own_key(self, trial: Trial) -> dict[str, Any]:
        """The code of a background of the user's own; of large trees what trains them, on which last digits depend."""
        make = background_of(trial.method).make
        own = {} if isinstance(make, str) else {"background": code_of(make.__module__)}
        trees = [self.config.classifier.engine, self.resources.train_workers]
        return own | ({"trees": trees} if self.large(trial) else {})

    def trained(self, made: Made, trials: Sequence[Trial]) -> list[Item]:
        """The encoders that the trials need, once the events are there."""
        raise NotImplementedError

    def encoders(self, name: str) -> list[tuple[str, int]]:
        """Representation and number of the encoders of a representation."""
        return [(name, 0)]

    def nulls(self, count: int, retrained: int = 0, simulated: int = 0) -> list[Trial]:
        """So many of every embedding, in turns of encoders and of pseudo-data without a signal, or a `UserError`."""
        of: dict[str, list[Trial]] = defaultdict(list)
        for trial in self.grid():
            if trial.signal == NO_SIGNAL and trial.method == "cathode" and WORLD not in trial.embedding:
                of[trial.embedding].append(trial)
        if not of:
            told = "a null is drawn from what the search learns without a signal"
            raise UserError(f"calibrate: {told}: scan.background_instances is 0, or scan.methods lacks cathode")
        if simulated and not (self.config.pseudodata.disjoint and simulated <= min(map(len, of.values()))):
            told = f"scan.background_instances = {simulated} or more and pseudodata.disjoint = true"
            raise UserError(f"calibrate: {simulated} simulated nulls (--simulated) that share no event need {told}")
        found: list[Trial] = []
        for kind, upto in ((DRAWN, count), (RETRAINED, min(count, retrained)), (SIMULATED, simulated)):
            for number, trials in product(range(upto), of.values()):
                turn = number if kind == SIMULATED else number // len(self.encoders(self.need(trials[0])))
                found.append(Null(**asdict(trials[turn % len(trials)]), number=number, kind=kind))
        return found

    def latents(self, made: Made, trials: Sequence[Trial]) -> list[Item]:
        """The latent tables of those encoders."""
        code = code_of("raypipe.fit.encoder", "raypipe.fit.vae", "raypipe.events.diphoton", "raypipe.events.latents")
        items = []
        for encoder in self.trained(made, trials):
            key = digest({"events": made["simulate"]["events"]["key"], "encoder": encoder.key, "code": code})
            items.append(replace(encoder, key=key, record="latents.json", files=LATENTS))
        return items

    def read_latents(self, path: Path) -> dict[str, dict[str, Events]]:
        """A latent table by split and sample."""
        return split_latents(read_table(path), str(path))

    def answer(self, rows: list[dict[str, Any]], trials: Sequence[Trial]) -> tuple[list[str], Any]:
        """The cuts of one search, and its rows."""
        lines = []
        for row in rows:
            first, *rest = cut_lines(row)
            lines += [f"{first}, SIC {row['sic']:.2f}", *rest]
            if row.get("fit_z_after") is not None and not row["verdict"]:
                lines.append(
                    f"  bump hunt ({row['family']}): {row['fit_s_after']:.1f} ± {row['fit_s_err_after']:.1f} events, "
                    f"z {row['fit_z_before']:.2f} -> {row['fit_z_after']:.2f} ({row['fit_status_after']})"
                )
        z = next((row["z_likelihood"] for row in rows if np.isfinite(row.get("z_likelihood", np.nan))), None)
        lines += [] if z is None else [f"all bins of the score together: z {z:.2f}"]
        return lines, [plain(row) for row in rows]

    def served_flow(self, flow: Path | None, latents: Path) -> dict[str, Served]:
        """The background model of a trial, with the first events of a latent table as its example."""
        if flow is None:
            return {}
        first = read_table(latents).slice(0, EXAMPLE)
        example = {
            "latent": tensor_values(first["latent"]).astype(np.float32),
            "mass": first["m_yy"].to_numpy().astype(np.float64),
        }
        return {"flow": Served(flow, example, (), np.float64)}
