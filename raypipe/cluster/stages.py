"""The makers of the stages before the trials: each gets a run, the stage and the items that are missing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch

from raypipe.cluster.inputs import piece_tables
from raypipe.cluster.runtime import limit_threads, places, ray_runs, total_cpus
from raypipe.cluster.train import load_autoencoder, load_encoder, train_autoencoder, train_encoders
from raypipe.cluster.trainer import side_by_side
from raypipe.config import Embedding
from raypipe.config.haxad import HaxadConfig
from raypipe.errors import UserError
from raypipe.events import worlds
from raypipe.events.continuous import continuous_features
from raypipe.events.diphoton import View
from raypipe.events.latents import latent_schema
from raypipe.events.schema import SPLITS, tensor_column, tensor_values
from raypipe.events.table import read_rows, read_table, sample_path, write_table
from raypipe.files import file_digest, write_json
from raypipe.fit.encoder import embed, latent_noise
from raypipe.progress import progress_bar
from raypipe.search.base import Item, Stage
from raypipe.search.contrastive_search import Embedded, World
from raypipe.simulate.dataset import read_manifest

if TYPE_CHECKING:
    from raypipe.cluster.run import Run

COLUMNS = ["event_id", "sample", "group", "split", "weight", "m_yy", "features"]
BATCH = 4096  # Events that are embedded together, fixed by file and row: the last bits of a latent depend on its batch
CPUS = 0.5  # Cores of a piece: it also waits for files


class Embedder:
    """Pieces of `BATCH` rows (`piece_tables`) -> latent tables, of another ``world`` than the nominal one if given."""

    def __init__(self, folder: str, seed: int, world: World | None = None, gpu: bool = False) -> None:
        limit_threads(1)
        loaded = load_encoder(Path(folder))
        if loaded is None:
            raise UserError(f"{folder}: no encoder here; all machines must share this folder")
        self.encoder, record = loaded
        if gpu and torch.cuda.is_available():
            self.encoder.to("cuda")
        self.config, self.seed, self.world = Embedding.model_validate(record["embedding"]), seed, world
        self.view = View.of(self.config)
        self.columns = list(dict.fromkeys([*COLUMNS, *self.view.columns, *(worlds.COLUMNS if world else ())]))

    def __call__(self, chunks: pa.Table) -> pa.Table:
        return pa.concat_tables(
            self.chunk(read_rows(row["path"], self.columns, row["start"], row["stop"])) for row in chunks.to_pylist()
        )

    def chunk(self, batch: pa.Table) -> pa.Table:
        """The latent table of one chunk of events."""
        batch = worlds.varied(batch, *self.world) if self.world else batch
        noise = None
        if self.config.sample_latents:
            noise = latent_noise(batch["event_id"].to_numpy(), self.config.encoder.latent, self.seed)
        return latent_table(batch, *embed(self.encoder, (self.view.objects(batch), self.view.event(batch)), noise))


def latent_table(events: pa.Table, latent: np.ndarray, posterior: np.ndarray) -> pa.Table:
    """The latent table of events (`COLUMNS`): latents (n, d), posteriors (n, 2, d)."""
    for name, values in (("latent", latent), ("posterior", posterior)):
        events = events.append_column(name, tensor_column(values))
    return events.select(latent_schema(latent.shape[1]).names)


def embed_stream(paths: list[str], folder: Path, seed: int, world: World | None = None, *, gpu: bool = False) -> Any:
    """The Ray dataset of latent tables of event files, by the encoder in ``folder``: an actor a GPU, a task a core."""
    import ray

    pieces, where = ray.data.from_arrow(piece_tables(paths, BATCH)), (str(folder.resolve()), seed, world)
    how = {"batch_size": 1, "batch_format": "pyarrow", "num_cpus": CPUS}
    if gpu:
        pool = ray.data.ActorPoolStrategy(size=workers(gpu))
        return pieces.map_batches(Embedder, fn_constructor_args=(*where, gpu), num_gpus=1, compute=pool, **how)
    state = folder / "encoder.pt"  # another one may have stood here while the workers that are left began
    given = (*where, file_digest(state) if state.exists() else "")
    return pieces.map_batches(_embedded, fn_args=given, compute=ray.data.TaskPoolStrategy(size=workers(gpu)), **how)


def _embedded(chunks: pa.Table, folder: str, seed: int, world: World | None, digest: str) -> pa.Table:
    return _embedder(folder, seed, world, digest)(chunks)


@lru_cache(maxsize=1)
def _embedder(folder: str, seed: int, world: World | None, digest: str) -> Embedder:
    """Kept by its process for the next pieces; ``digest``: of the encoder's file."""
    return Embedder(folder, seed, world)


def workers(gpu: bool) -> int:
    """Pieces that are embedded at once: as many as cores, or as GPUs; none that could never start."""
    return max(1, places(CPUS, 1) if gpu else int(total_cpus()))


def embed_events(
    what: Embedded, run: Path, folder: Path, key: str, on_rows: Callable[[int], None] | None = None
) -> None:
    """Write the latent table of all events of a ``run`` into ``folder``, with its key: with Ray if it runs.

    Of another world those of the search split alone, which plays the data. ``on_rows`` is called with the number of
    rows of each finished batch. A sample that was not simulated, and latents that are not finite, are `UserError`.
    """
    config, encoder, splits = what.config, run / what.encoder, ("search",) if what.world else SPLITS
    paths = [str(sample_path(run / "events", split, name)) for split in splits for name in config.simulate.samples]
    if ray_runs():
        dataset = embed_stream(paths, encoder, config.seed, what.world, gpu=config.resources.gpu)
        batches = dataset.iter_batches(batch_format="pyarrow", batch_size=None)
    else:
        batches = map(Embedder(str(encoder), config.seed, what.world), piece_tables(paths, BATCH))
    parts = []
    for batch in batches:
        parts.append(batch)
        if on_rows:
            on_rows(batch.num_rows)
    write_latents(parts, folder, key, config.embedding.encoder.latent)


def write_latents(parts: list[pa.Table], folder: Path, key: str, latent: int) -> None:
    """Write ``latents.parquet`` (all events by id) and its record; latents that are not finite are a `UserError`."""
    table = pa.concat_tables(part.cast(latent_schema(latent)) for part in parts).unify_dictionaries()
    table = table.take(np.argsort(table["event_id"].to_numpy(), kind="stable")).combine_chunks()
    finite = np.isfinite(tensor_values(table["latent"])).all(1)
    path = folder / "latents.parquet"
    if not finite.all():
        raise UserError(f"{path}: column 'latent', row {int(np.argmin(finite))} is not finite")
    write_table(table, path)
    write_json(folder / "latents.json", {"key": key, "rows": table.num_rows, "digest": file_digest(path)})


def encoders(run: Run, stage: Stage, items: Sequence[Item]) -> None:
    """Train encoders (paper C), side by side where the cluster has room for more than one."""
    run.ray()
    manifest, resources = read_manifest(run.folder / "events"), run.config.resources
    jobs = [(item.what, run.folder / item.folder) for item in items]
    several = len(jobs) > 1 and not run.alone
    at_once = side_by_side(len(jobs), resources.train_workers, gpu=resources.gpu) if several else 1
    title = f"train encoder {items[0].name}" if len(jobs) == 1 else f"train {len(jobs)} encoders, {at_once} at once"
    epochs = sum(config.embedding.epochs for config, _ in jobs)
    told = "contrastive {contrastive:.3f}, KL {kl:.2f}"
    with run.timed(stage.name), progress_bar(title, epochs) as bar:
        train_encoders(jobs, run.folder / "events", manifest, at_once, lambda record: bar(1, told.format(**record)))


def latents(run: Run, stage: Stage, items: Sequence[Item]) -> None:
    """Map all events through each encoder with Ray Data."""
    run.ray()
    manifest = read_manifest(run.folder / "events")
    rows = sum(sample["n"] for sample in manifest["samples"].values())
    for item in items:
        with run.timed(stage.name), progress_bar(f"embed events {item.name}", rows) as bar:
            embed_events(item.what, run.folder, run.folder / item.folder, item.key, bar)


def autoencoder(run: Run, stage: Stage, items: Sequence[Item]) -> None:
    """Train the autoencoder (paper A) on as many events of every background sample as the rarest has."""
    (item,) = items
    run.ray()
    told, where = "error {error:.2f}, KL {kl:.2f}", (run.folder / "events", run.folder / item.folder)
    with run.timed(stage.name), progress_bar("train autoencoder", item.what.embedding.epochs) as bar:
        train_autoencoder(item.what, *where, item.key, lambda record: bar(1, told.format(**record)))


def autoencoder_latents(run: Run, stage: Stage, items: Sequence[Item]) -> None:
    """Map all events through the autoencoder, file by file in this process: it takes seconds."""
    (item,) = items
    config: HaxadConfig = item.what
    folder = run.folder / item.folder
    with run.timed(stage.name):
        model = load_autoencoder(folder)
        paths = [
            sample_path(run.folder / "events", split, name) for split in SPLITS for name in config.simulate.samples
        ]
        parts, latent = [], config.embedding.latent
        for path in paths:
            table = read_table(path, COLUMNS)
            ids = table["event_id"].to_numpy()
            features = continuous_features(tensor_values(table["features"]), ids, config.seed)
            values, posterior = embed(model, [features], latent_noise(ids, latent, config.seed))
            if not np.isfinite(values).all():
                told = "the autoencoder gives latents that are not finite: make embedding.learning_rate smaller"
                raise UserError(told)
            parts.append(latent_table(table, values, posterior))
        write_latents(parts, folder, item.key, latent)
