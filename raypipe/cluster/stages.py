"""The makers of the stages before the trials: each gets a run, the stage and the items that are missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from raypipe.cluster import embed as embedding
from raypipe.cluster.train import load_autoencoder, train_autoencoder, train_encoder, train_encoders
from raypipe.cluster.trainer import side_by_side
from raypipe.config.haxad import HaxadConfig
from raypipe.errors import UserError
from raypipe.events.continuous import continuous_features
from raypipe.events.schema import SPLITS, tensor_values
from raypipe.events.table import read_table, sample_path
from raypipe.fit.encoder import latent_noise
from raypipe.fit.vae import embed_features
from raypipe.models.vae import FeatureVae
from raypipe.progress import progress_bar
from raypipe.search.base import Item, Stage
from raypipe.simulate.dataset import read_manifest

if TYPE_CHECKING:
    from raypipe.cluster.run import Run


def encoders(run: Run, stage: Stage, items: Sequence[Item]) -> None:
    """Train encoders (paper C), side by side where the cluster has room for more than one."""
    run.ray()
    manifest, resources = read_manifest(run.folder / "events"), run.config.resources
    jobs = [(item.what, run.folder / item.folder) for item in items]
    several = len(jobs) > 1 and not run.alone
    at_once = side_by_side(len(jobs), resources.train_workers, gpu=resources.gpu) if several else 1
    with run.timed(stage.name):
        if at_once > 1:
            title = f"train {len(jobs)} encoders, {at_once} at once"
            with progress_bar(title, sum(config.embedding.epochs for config, _ in jobs)) as bar:
                train_encoders(jobs, run.folder / "events", manifest, at_once, lambda record: bar(1, ""))
            return
        for item, (config, folder) in zip(items, jobs, strict=True):
            with progress_bar(f"train encoder {item.name}", config.embedding.epochs) as bar:

                def told(record: dict[str, float], bar: Any = bar) -> None:
                    bar(1, f"contrastive {record['contrastive']:.3f}, KL {record['kl']:.2f}")

                train_encoder(config, run.folder / "events", folder, manifest, told)


def latents(run: Run, stage: Stage, items: Sequence[Item]) -> None:
    """Map all events through each encoder with Ray Data."""
    run.ray()
    manifest = read_manifest(run.folder / "events")
    rows = sum(sample["n"] for sample in manifest["samples"].values())
    for item in items:
        with run.timed(stage.name), progress_bar(f"embed events {item.name}", rows) as bar:
            embedding.embed_events(item.what, run.folder / "events", run.folder / item.folder, item.key, bar)


def autoencoder(run: Run, stage: Stage, items: Sequence[Item]) -> None:
    """Train the autoencoder (paper A) on as many events of every background sample as the rarest has."""
    (item,) = items
    run.ray()
    with run.timed(stage.name), progress_bar("train autoencoder", item.what.embedding.epochs) as bar:

        def told(record: dict[str, float]) -> None:
            bar(1, f"error {record['error']:.2f}, KL {record['kl']:.2f}")

        train_autoencoder(item.what, run.folder / "events", run.folder / item.folder, item.key, told)


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
        parts = [_embed_sample(model, read_table(path, embedding.COLUMNS), config) for path in paths]
        embedding.write_latents(parts, folder, item.key, config.embedding.latent)


def _embed_sample(model: FeatureVae, table: pa.Table, config: HaxadConfig) -> pa.Table:
    """The latent table of one file of events."""
    latent, ids = config.embedding.latent, table["event_id"].to_numpy()
    features = continuous_features(tensor_values(table["features"]), ids, config.seed)
    values, posterior = embed_features(model, features, latent_noise(ids, latent, config.seed))
    if not np.isfinite(values).all():
        raise UserError("the autoencoder gives latents that are not finite: make embedding.learning_rate smaller")
    return embedding.latent_table(table, values, posterior)
