"""Paper A's search around its trials: one autoencoder, its latent table, a model to serve."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from raypipe.config.haxad import EMBEDDING
from raypipe.errors import UserError
from raypipe.events.continuous import continuous_features
from raypipe.events.schema import tensor_values
from raypipe.events.table import read_table
from raypipe.files import code_of, digest
from raypipe.search.base import Found, Item, Made, Served
from raypipe.search.case import Tables
from raypipe.search.diphoton import EXAMPLE, LATENTS, Diphoton, prepare_tables
from raypipe.search.haxad import null_hunted, search
from raypipe.search.nulls import search_null
from raypipe.search.result import Null, Result, Tools, Trial

FOLDER = "encoder"


class Haxad(Diphoton):
    """The search of paper A: one autoencoder, and a bump hunt after the cut."""

    sections: ClassVar[tuple[str, ...]] = (*Diphoton.sections, "hunt")
    options: ClassVar[tuple[str, ...]] = ("signal", "strength", "instance", "method")
    no_effect: ClassVar[str] = "{} has no effect: a haxad search has one embedding, its autoencoder"
    report: ClassVar[str] = "raypipe.report.haxad:haxad_report"
    costing: ClassVar[str] = "raypipe.search.costs:haxad_costs"
    train: ClassVar[tuple[str, str]] = ("train", "raypipe.cluster.stages:autoencoder")
    embed: ClassVar[tuple[str, str]] = ("tasks", "raypipe.cluster.stages:autoencoder_latents")
    metric: ClassVar[str] = "fit_z_after"

    def need(self, trial: Trial) -> str:
        """The one embedding there is; a trial that asks for another is a `UserError`."""
        if trial.embedding != EMBEDDING:
            found = f"embedding {trial.embedding!r}: a haxad search has one embedding, {EMBEDDING!r}"
            raise UserError(f"{found}, the space of its autoencoder")
        return EMBEDDING

    def trained(self, made: Made, trials: Sequence[Trial]) -> list[Item]:
        for trial in trials:
            self.need(trial)  # what cannot be searched is told before anything is made
        if not (events := made["simulate"].get("events")):
            return []
        code = code_of("raypipe.fit.vae", "raypipe.events.continuous", "raypipe.events.latents")
        embedding = self.config.embedding.model_dump(mode="json")
        key = digest({"events": events["key"], "embedding": embedding, "seed": self.config.seed, "code": code})
        return [Item(EMBEDDING, key, FOLDER, "encoder.json", ("vae.pt",), self.config)]

    def materials(self, name: str, made: Made) -> dict[str, Any] | None:
        found = made["latents"].get(EMBEDDING)
        return {"latents": [found["digest"]]} if found else None

    def inputs(self, name: str, folder: Path, tools: Tools) -> Iterator[Tables]:
        yield prepare_tables(self.read_latents(folder / FOLDER / LATENTS[0]), self.config)

    def run(self, inputs: Sequence[Tables], trials: Sequence[Trial], tools: Tools) -> list[Result]:
        null = partial(search_null, cuts=null_hunted)
        ways = [null if isinstance(trial, Null) else search for trial in trials]
        return [way(inputs, self.config, trial, tools) for way, trial in zip(ways, trials, strict=True)]

    def served(self, found: Found, flow: Path | None) -> dict[str, Served]:
        """The autoencoder, and a background model."""
        folder, name = found.folder / FOLDER, self.config.pseudodata.background[0]
        path = found.folder / "events" / "search" / f"{name}.parquet"
        events = read_table(path, ["event_id", "features"]).slice(0, EXAMPLE)
        ids = events["event_id"].to_numpy()
        features = continuous_features(tensor_values(events["features"]), ids, self.config.seed)
        autoencoder = Served(folder, {"features": features.astype(np.float32)}, (self.config.embedding.latent,))
        return {"autoencoder": autoencoder} | self.served_flow(flow, folder / LATENTS[0])
