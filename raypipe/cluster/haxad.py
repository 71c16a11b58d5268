"""The HAXAD search (paper A) on Ray: the autoencoder in the driver, the trials in the scan engine, its own report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from raypipe.cluster.embed import load_latents
from raypipe.cluster.ledger import CODE, Ledger
from raypipe.cluster.live import run_trials
from raypipe.cluster.pipeline import Run, one_flow
from raypipe.cluster.record import record_haxad
from raypipe.cluster.registry import EXAMPLE, flow_example
from raypipe.cluster.scan import grid_of, trial_inputs
from raypipe.cluster.simulate import is_complete
from raypipe.cluster.watch import other_versions
from raypipe.config.haxad import EMBEDDING, HaxadConfig
from raypipe.errors import UserError
from raypipe.events.continuous import continuous_features
from raypipe.events.latents import latent_schema, split_latents
from raypipe.events.schema import SPLITS, tensor_column, tensor_values
from raypipe.events.table import read_table, sample_path, write_table
from raypipe.files import atomic_path, code_digest, digest, file_digest, read_json, write_json
from raypipe.fit.batches import PARTS, parts_of
from raypipe.fit.encoder import latent_noise
from raypipe.fit.vae import embed_features, fit_vae
from raypipe.models.vae import FeatureVae
from raypipe.progress import console, progress_bar
from raypipe.report import haxad as pages
from raypipe.search.contrastive import Tables, prepare_tables
from raypipe.search.haxad import search
from raypipe.search.result import Result, Tools, Trial
from raypipe.simulate.dataset import read_manifest

FILES = ("vae.pt", "latents.parquet", "encoder.json", "latents.json")
"""Files of the autoencoder's folder that runs share; records last."""
COLUMNS = ["event_id", "sample", "group", "split", "weight", "m_yy", "features"]


def run_haxad(inputs: tuple[Tables, HaxadConfig], trial: Trial, tools: Tools) -> Result:
    """One search of `raypipe.search.haxad` as the scan engine calls it."""
    tables, config = inputs
    return search(tables, config, trial, tools)


class HaxadRun(Run):
    """One run folder of a HAXAD search; simulation and ledger are those of `Run`."""

    config: HaxadConfig

    def _continuous(self, table: pa.Table) -> np.ndarray:
        return continuous_features(tensor_values(table["features"]), table["event_id"].to_numpy(), self.config.seed)

    def embed(self, name: str = "id", member: int = 0) -> tuple[pa.Table, dict[str, Any]]:
        """The autoencoder and the latent table of all events; read when they are there already."""
        manifest = self.simulate()
        vae, folder = self.config.embedding, self.folder / "encoder"
        key = self._key(manifest)
        files = {name: folder / name for name in FILES}
        if (done := load_latents(folder, key)) is not None:
            self.artefacts.give("encoders", key, files)
            return done
        if self.artefacts.take("encoders", key, files) and (done := load_latents(folder, key)) is not None:
            return done
        with self.timed("train_encoder"), progress_bar("train autoencoder", vae.epochs) as bar:
            model, history = self._train(lambda r: bar(1, f"error {r['error']:.2f}, KL {r['kl']:.2f}"))
        with atomic_path(folder / "vae.pt") as temporary:
            torch.save(model.state_dict(), temporary)
        write_json(folder / "encoder.json", {"key": key, "embedding": vae.model_dump(mode="json"), "history": history})
        with self.timed("embed"):
            parts = [
                self._embed_sample(model, read_table(sample_path(self.events, split, sample), COLUMNS))
                for split in SPLITS
                for sample in self.config.simulate.samples
            ]
        table = pa.concat_tables(parts).unify_dictionaries()
        table = table.take(np.argsort(table["event_id"].to_numpy(), kind="stable")).combine_chunks()
        write_table(table, folder / "latents.parquet")
        record = {"key": key, "rows": table.num_rows, "digest": file_digest(folder / "latents.parquet")}
        write_json(folder / "latents.json", record)
        if not self.artefacts.give("encoders", key, files):  # another run was first: all go on with the same bits
            self.artefacts.take("encoders", key, files)
            return load_latents(folder, key) or (table, record)
        return table, record

    def _key(self, manifest: dict[str, Any]) -> str:
        """Hash of what determines the autoencoder and the latent table."""
        embedding = self.config.embedding.model_dump(mode="json")
        code = code_digest("events", "models", "fit")
        return digest({"events": manifest["key"], "embedding": embedding, "seed": self.config.seed, "code": code})

    def there(self) -> dict[str, Trial]:
        """The trials of the scan by ledger key, if their inputs are there: nothing is simulated or trained for it."""
        path = self.folder / "encoder" / "latents.json"
        if not (is_complete(self.config, self.folder) and path.is_file()):  # type: ignore[arg-type]
            return {}
        record = read_json(path)
        if record.get("key") != self._key(read_manifest(self.events)):
            return {}
        return self.plan(grid_of(self.config), {"id": [record["digest"]]})  # type: ignore[arg-type]

    def _train(self, on_epoch: Any) -> tuple[FeatureVae, list[dict[str, float]]]:
        """Train on as many events of every background sample as the rarest has: each process counts the same."""
        vae = self.config.embedding
        sets: list[list[np.ndarray]] = [[], []]
        for sample in vae.samples:
            table = read_table(sample_path(self.events, "embedding", sample), COLUMNS)
            parts = parts_of(
                table["event_id"].to_numpy(), self.config.seed, vae.train_fraction, vae.validation_fraction
            )
            values = self._continuous(table)
            for k, part in enumerate(("train", "validation")):
                sets[k].append(values[parts == PARTS.index(part)])
        train, validation = (np.concatenate([v[: min(map(len, s))] for v in s]) for s in sets)
        return fit_vae(train, validation, vae, self.config.seed, on_epoch)

    def _embed_sample(self, model: FeatureVae, table: pa.Table) -> pa.Table:
        """The latent table of one file of events."""
        latent = self.config.embedding.latent
        noise = latent_noise(table["event_id"].to_numpy(), latent, self.config.seed)
        latents, posterior = embed_features(model, self._continuous(table), noise)
        if not np.isfinite(latents).all():
            raise UserError("the autoencoder gives latents that are not finite: make embedding.learning_rate smaller")
        schema = latent_schema(latent)
        for name, values in (("latent", latents), ("posterior", posterior)):
            table = table.append_column(name, tensor_column(values))
        return table.select(schema.names).cast(schema)

    def prepare(self, trials: Sequence[Trial]) -> dict[str, list[str]]:
        """Make what the trials need; the digest of the latent table."""
        self.plan(trials, {"id": []})  # what cannot be searched is told before anything is made
        return {"id": [self.embed()[1]["digest"]]}

    def tables(self, name: str = "id") -> Iterator[Tables]:
        """The inputs of the trials."""
        folder = self.folder / "encoder"
        if (found := load_latents(folder)) is None:
            raise UserError(f"{folder}: no latent table (run `raypipe embed` first)")
        yield prepare_tables(split_latents(found[0], str(folder / "latents.parquet")), self.config)  # type: ignore[arg-type]

    def plan(self, trials: Sequence[Trial], digests: dict[str, list[str]]) -> dict[str, Trial]:
        """Trials by their ledger key.

        Raises:
            UserError: a trial that asks for another representation than the autoencoder's.
        """
        for trial in trials:
            if trial.embedding != EMBEDDING:
                found = f"embedding {trial.embedding!r}: a haxad search has one embedding, {EMBEDDING!r}"
                raise UserError(f"{found}, the space of its autoencoder")
        hunt = {"hunt": self.config.hunt.model_dump(mode="json")}
        return {t.key(trial_inputs(self.config, digests["id"]) | hunt): t for t in trials}  # type: ignore[arg-type]

    def run_trials(self, trials: dict[str, Trial], name: str = "scan") -> Ledger:
        """The trials that the ledger does not hold yet."""
        book = self.ledger()
        if set(trials) - book.done(trials):
            self.ray()
            with self.timed("scan", add=True):
                (tables,) = self.tables()
                run_trials(run_haxad, (tables, self.config), trials, book, self.config.resources, name)
        return book

    def scan(self) -> dict[str, Any]:
        """All stages; returns the summary."""
        grid = grid_of(self.config)  # type: ignore[arg-type]
        trials = self.plan(grid, self.prepare(grid))
        self.run_trials(trials)
        return self.report(trials)

    def report(self, trials: dict[str, Trial] | None = None) -> dict[str, Any]:
        """Figures, page and ``summary.json`` from what is on disk."""
        trials = self.there() if trials is None else trials
        book, rows = self.finished(trials)
        good = [row for row in rows if row["status"] == "ok"]
        with self.timed("report"):
            summary = pages.summarise(rows, self.config) | {
                "config_hash": self.config.physics_hash(),
                "code": code_digest("simulate", *CODE),
                "keys": list(trials),
                "stage_seconds": self.times(),
                "peak_rss_gib": self.peak(),
                "other_versions": other_versions(book, self.config),
            }
            figures = pages.make_figures(good, self.config, book.arrays, self.folder / "figures")
            write_json(self.folder / "summary.json", summary)
            history = read_json(self.folder / "encoder" / "encoder.json")["history"]
            pages.write_page(self.folder / "report.html", summary, self.config, history, figures)
        with self.timed("mlflow"), one_flow(book, rows) as flow:
            record_haxad(self.config, summary, history, figures, rows, flow, self._examples())
        return summary

    def _examples(self) -> dict[str, Any]:
        """Inputs of both models from real events."""
        split, sample = "search", self.config.pseudodata.background[0]
        events = read_table(sample_path(self.events, split, sample), COLUMNS).slice(0, EXAMPLE)
        latents = read_table(self.folder / "encoder" / "latents.parquet")
        features = self._continuous(events).astype(np.float32)
        return {"autoencoder": {"features": features}, "flow": flow_example(latents)}


def print_summary(summary: dict[str, Any], folder: Path) -> None:
    """The terminal's version of the report, on standard error."""
    for line in pages.headlines(summary):
        console.print(line, highlight=False, soft_wrap=True)
    console.print(f"Report: {folder / 'report.html'}", highlight=False, soft_wrap=True)
