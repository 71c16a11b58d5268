"""Map all events into the latent space with Ray Data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from raypipe.cluster.runtime import limit_threads, places, ray_runs, total_cpus
from raypipe.cluster.stream import piece_tables
from raypipe.cluster.train import load_encoder
from raypipe.config import Config, Embedding
from raypipe.errors import UserError
from raypipe.events.diphoton import View
from raypipe.events.latents import latent_schema
from raypipe.events.schema import SPLITS, tensor_column, tensor_values
from raypipe.events.table import read_rows, sample_path, write_table
from raypipe.files import file_digest, write_json
from raypipe.fit.encoder import embed, latent_noise

COLUMNS = ["event_id", "sample", "group", "split", "weight", "m_yy", "features"]
BATCH = 4096
"""Events that are embedded together, fixed by file and row: the last bits of a latent depend on its batch."""
CPUS = 0.5
"""Cores of an actor: it also waits for files."""


class Embedder:
    """Ray Data actor: pieces of `BATCH` rows (`piece_tables`) -> latent tables. Reads the encoder once and keeps it."""

    def __init__(self, folder: str, seed: int, gpu: bool = False) -> None:
        limit_threads(1)
        loaded = load_encoder(Path(folder))
        if loaded is None:
            raise UserError(f"{folder}: no encoder here; all machines must share this folder")
        self.encoder, record = loaded
        if gpu and torch.cuda.is_available():
            self.encoder.to("cuda")
        self.config, self.seed = Embedding.model_validate(record["embedding"]), seed
        self.view = View.of(self.config)
        self.columns = list(dict.fromkeys([*COLUMNS, *self.view.columns]))

    def __call__(self, chunks: pa.Table) -> pa.Table:
        return pa.concat_tables(
            self.chunk(read_rows(row["path"], self.columns, row["start"], row["stop"])) for row in chunks.to_pylist()
        )

    def chunk(self, batch: pa.Table) -> pa.Table:
        """The latent table of one chunk of events."""
        noise = None
        if self.config.sample_latents:
            noise = latent_noise(batch["event_id"].to_numpy(), self.config.encoder.latent, self.seed)
        return latent_table(batch, *embed(self.encoder, self.view.objects(batch), self.view.event(batch), noise))


def latent_table(events: pa.Table, latent: np.ndarray, posterior: np.ndarray) -> pa.Table:
    """The latent table of events (`COLUMNS`): latents (n, d), posteriors (n, 2, d)."""
    for name, values in (("latent", latent), ("posterior", posterior)):
        events = events.append_column(name, tensor_column(values))
    return events.select(latent_schema(latent.shape[1]).names)


def embed_stream(paths: list[str], folder: Path, seed: int, *, gpu: bool = False) -> Any:
    """The Ray dataset of latent tables of event files, by the encoder in ``folder``: an actor a core, or a GPU."""
    import ray

    return ray.data.from_arrow(piece_tables(paths, BATCH)).map_batches(
        Embedder,
        fn_constructor_args=(str(folder.resolve()), seed, gpu),
        batch_size=1,
        batch_format="pyarrow",
        num_cpus=CPUS,
        num_gpus=int(gpu),
        compute=ray.data.ActorPoolStrategy(size=actors(gpu)),
    )


def actors(gpu: bool) -> int:
    """Actors that embed at once: as many as cores, or as GPUs; none that could never start."""
    return max(1, places(CPUS, 1) if gpu else int(total_cpus()))


def embed_events(
    config: Config, events: Path, folder: Path, key: str, on_rows: Callable[[int], None] | None = None
) -> None:
    """Write the latent table of all events, with its key, by the finished encoder of ``folder``: with Ray if it runs.

    ``on_rows`` is called with the number of rows of each finished batch. A sample that was not simulated, and latents
    that are not finite, are `UserError`.
    """
    paths = [str(sample_path(events, split, name)) for split in SPLITS for name in config.simulate.samples]
    if ray_runs():
        dataset = embed_stream(paths, folder, config.seed, gpu=config.resources.gpu)
        batches = dataset.iter_batches(batch_format="pyarrow", batch_size=None)
    else:
        batches = map(Embedder(str(folder), config.seed), piece_tables(paths, BATCH))
    parts = []
    for batch in batches:
        parts.append(batch)
        if on_rows:
            on_rows(batch.num_rows)
    write_latents(parts, folder, key, config.embedding.encoder.latent)


def write_latents(parts: list[pa.Table], folder: Path, key: str, latent: int) -> None:
    """Write ``latents.parquet`` (both splits of all samples, sorted by id) and its record.

    Latents (``latent`` dimensions) that are not finite are a `UserError`.
    """
    table = pa.concat_tables(part.cast(latent_schema(latent)) for part in parts).unify_dictionaries()
    table = table.take(np.argsort(table["event_id"].to_numpy(), kind="stable")).combine_chunks()
    finite = np.isfinite(tensor_values(table["latent"])).all(1)
    path = folder / "latents.parquet"
    if not finite.all():
        raise UserError(f"{path}: column 'latent', row {int(np.argmin(finite))} is not finite")
    write_table(table, path)
    write_json(folder / "latents.json", {"key": key, "rows": table.num_rows, "digest": file_digest(path)})
