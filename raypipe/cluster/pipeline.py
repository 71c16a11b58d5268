"""The stages of a search in order, each skipped when its result is already there."""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import platform
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from raypipe import __version__
from raypipe.cluster import embed as embedding
from raypipe.cluster import simulate as simulation
from raypipe.cluster.artefacts import open_artefacts
from raypipe.cluster.ledger import CODE, Ledger, open_ledger
from raypipe.cluster.live import run_trials
from raypipe.cluster.memory import MemoryWatch
from raypipe.cluster.record import record_run
from raypipe.cluster.registry import model_examples
from raypipe.cluster.runtime import ray_session
from raypipe.cluster.scan import Shelf, flows_first, grid_of, plan_scan, run_contrastive, sample_groups
from raypipe.cluster.train import encoder_key, load_encoder, side_by_side, train_encoder, train_encoders
from raypipe.cluster.watch import other_versions
from raypipe.config import Config
from raypipe.errors import UserError
from raypipe.events.latents import split_latents
from raypipe.files import check_writable, code_digest, read_json, write_json
from raypipe.progress import console, progress_bar
from raypipe.report.figures import make_all
from raypipe.report.page import write_page
from raypipe.report.summary import build_summary, other_versions_told
from raypipe.search.contrastive import Tables, prepare_tables
from raypipe.search.embeddings import encoder_config, raw_representation, representation
from raypipe.search.result import NO_SIGNAL, Trial
from raypipe.simulate import dataset

EMBEDDING = ("encoder.pt", "latents.parquet", "encoder.json", "latents.json")
"""Files of an encoder's folder that runs share; records last."""
FOLDERS = ("events", "encoder", "encoders", "ledger", "figures")
"""Of a run folder: another user's are found unwritable before the work, not after."""
PACKAGES = ("ray", "torch", "nflows", "xgboost", "numpy", "pyarrow", "mlflow", "pythia8mc", "fastjet", "iminuit")


class Run:
    """One run folder and what is in it. Ray starts when a stage first needs it, and not before.

    Args:
        config: the whole configuration.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.folder = check_writable(config.output)
        for name in FOLDERS:
            if (self.folder / name).exists():
                check_writable(self.folder / name)
        if config.resources.storage:
            self.ledger().store.check_writable()
        self.artefacts = open_artefacts(config)
        self._stack = contextlib.ExitStack()
        self._ray = False
        self._times_path = self.folder / "stages.json"
        self.memory = MemoryWatch()

    def __enter__(self) -> Run:
        self._stack.enter_context(self.memory)
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.close()

    def ray(self) -> None:
        """Start or join Ray unless that has happened."""
        if not self._ray:
            with self.timed("ray_start", add=True):
                self._stack.enter_context(ray_session(self.config.resources))
            self._ray = True

    @contextlib.contextmanager
    def timed(self, stage: str, add: bool = False) -> Iterator[None]:
        """Record the wall-clock seconds of the block. A stage that resumes adds to what it took before."""
        start = time.perf_counter()
        try:
            yield
        finally:
            times = self.times()
            times[stage] = (times.get(stage, 0.0) if add else 0.0) + time.perf_counter() - start
            write_json(self._times_path, times | {"peak_rss_gib": max(self.peak(), self.memory.peak_gib)})

    def times(self) -> dict[str, float]:
        """Seconds of every stage that has run in this folder."""
        stored = read_json(self._times_path) if self._times_path.exists() else {}
        return {k: v for k, v in stored.items() if k != "peak_rss_gib"}

    def peak(self) -> float:
        """Largest memory seen in this folder's runs, GiB."""
        return read_json(self._times_path).get("peak_rss_gib", 0.0) if self._times_path.exists() else 0.0

    @property
    def events(self) -> Path:
        """Folder of the data set."""
        return simulation.events_folder(self.folder)

    def simulate(self) -> dict[str, Any]:
        """Stage 1: the event tables; returns their manifest."""
        if simulation.is_complete(self.config, self.folder):
            return dataset.read_manifest(self.events)
        self.ray()
        with self.timed("simulate", add=True):
            return simulation.simulate(self.config, self.folder, artefacts=self.artefacts)

    def encoder_folder(self, name: str, member: int) -> Path:
        """Where an encoder and its latents are; the first of `id` is the one that reports show."""
        if (name, member) == ("id", 0):
            return self.folder / "encoder"
        return self.folder / "encoders" / f"{name.replace(':', '-')}-{member}"

    def _encoder(self, key: str, folder: Path) -> tuple[Any, dict[str, Any]] | None:
        """The finished encoder of this key: the folder's own, or one that another run has left."""
        if (found := load_encoder(folder, key)) is not None:
            return found
        taken = self.artefacts.take("encoders", key, {name: folder / name for name in EMBEDDING})
        return load_encoder(folder, key) if taken else None

    def _train_ahead(self, encoders: Sequence[tuple[str, int]]) -> None:
        """Train those encoders that are missing side by side, where the cluster has room for more than one."""
        manifest, missing, resources = self.simulate(), [], self.config.resources
        for name, member in encoders:
            config, folder = (
                encoder_config(self.config, name, member, sample_groups()),
                self.encoder_folder(name, member),
            )
            if self._encoder(encoder_key(config, manifest), folder) is None:
                missing.append((config, folder))
        if len(missing) < 2:
            return
        self.ray()
        at_once = side_by_side(len(missing), resources.train_workers, gpu=resources.gpu)
        if at_once > 1:
            epochs = sum(config.embedding.epochs for config, _ in missing)
            title = f"train {len(missing)} encoders, {at_once} at once"
            with self.timed("train_encoder", add=True), progress_bar(title, epochs) as bar:
                train_encoders(missing, self.events, manifest, at_once, lambda record: bar(1, ""))

    def embed(self, name: str = "id", member: int = 0) -> tuple[pa.Table, dict[str, Any]]:
        """Stage 2: one encoder of a representation and its latent table."""
        manifest = self.simulate()
        folder = self.encoder_folder(name, member)
        config = encoder_config(self.config, name, member, sample_groups())
        title = "" if (name, member) == ("id", 0) else f" {name} {member}"
        key, files = encoder_key(config, manifest), {name: folder / name for name in EMBEDDING}
        found = self._encoder(key, folder)
        if found is None:
            self.ray()
            with (
                self.timed("train_encoder", add=True),
                progress_bar(f"train encoder{title}", config.embedding.epochs) as bar,
            ):
                found = train_encoder(
                    config,
                    self.events,
                    folder,
                    manifest,
                    on_epoch=lambda r: bar(1, f"contrastive {r['contrastive']:.3f}, KL {r['kl']:.2f}"),
                )
        record = found[1]
        latents = embedding.latents_key(manifest, record)
        there = done = embedding.load_latents(folder, latents)
        if done is None:
            self.ray()
            rows = sum(sample["n"] for sample in manifest["samples"].values())
            with self.timed("embed", add=True), progress_bar(f"embed events{title}", rows) as bar:
                done = embedding.embed_events(config, self.events, folder, manifest, record, on_rows=bar)
        if not self.artefacts.give("encoders", key, files) and there is None:
            # Another run was first. Sums round differently there; from here on both have the same bits.
            self.artefacts.take("encoders", key, files)
            done = embedding.load_latents(folder, latents) or done
        return done

    def prepare(self, trials: Sequence[Trial]) -> dict[str, list[str]]:
        """Make what the trials need; the digests of the latent tables of each representation, one an encoder."""
        names = dict.fromkeys(representation(trial, sample_groups()) for trial in trials)
        self._train_ahead(list(dict.fromkeys(encoder for name in names for encoder in self._encoders(name))))
        return {name: [self.embed(of, member)[1]["digest"] for of, member in self._encoders(name)] for name in names}

    def tables(self, name: str) -> Iterator[Tables]:
        """The inputs of the trials of a representation, one an encoder, each read when it is taken.

        Raises:
            UserError: `prepare` has not made them.
        """
        for of, member in self._encoders(name):
            folder = self.encoder_folder(of, member)
            if (found := embedding.load_latents(folder)) is None:
                raise UserError(f"{folder}: no latent table (run `raypipe embed` first)")
            config = encoder_config(self.config, of, member, sample_groups())
            latents = split_latents(found[0], str(folder / "latents.parquet"))
            yield prepare_tables(raw_representation(latents, config.seed) if name == "raw" else latents, config)

    def _encoders(self, name: str) -> list[tuple[str, int]]:
        """The encoders of a representation. The raw features need none; they are in the table that one has written."""
        return [("id", 0)] if name == "raw" else [(name, member) for member in range(self.config.embedding.encoders)]

    def there(self) -> dict[str, Trial]:
        """Those trials of the scan whose inputs are there, by ledger key: nothing is simulated or trained for it."""
        if not simulation.is_complete(self.config, self.folder):
            return {}
        manifest, groups, digests = dataset.read_manifest(self.events), sample_groups(), {}
        grid = grid_of(self.config)
        for name in dict.fromkeys(representation(trial, groups) for trial in grid):
            found = [self._digest(manifest, of, member) for of, member in self._encoders(name)]
            if all(found):
                digests[name] = found
        return self.plan([trial for trial in grid if representation(trial, groups) in digests], digests)

    def _digest(self, manifest: dict[str, Any], name: str, member: int) -> str | None:
        """Of the latent table of a finished encoder of this configuration and code."""
        folder = self.encoder_folder(name, member)
        if not all((folder / file).is_file() for file in EMBEDDING):
            return None
        encoder, latents = read_json(folder / "encoder.json"), read_json(folder / "latents.json")
        key = encoder_key(encoder_config(self.config, name, member, sample_groups()), manifest)
        whole = encoder.get("key") == key and latents.get("key") == embedding.latents_key(manifest, encoder)
        return latents["digest"] if whole else None

    def plan(self, trials: Sequence[Trial], digests: dict[str, list[str]]) -> dict[str, Trial]:
        """Trials by their ledger key."""
        return plan_scan(self.config, digests, trials)

    def ledger(self) -> Ledger:
        """The ledger of this run: `resources.storage`, else a folder of the run."""
        return open_ledger(self.config)

    def run_trials(self, trials: dict[str, Trial], name: str = "scan") -> Ledger:
        """Stage 3: the trials that the ledger does not hold yet."""
        book = self.ledger()
        missing = trials.keys() - book.done(trials)
        if missing:
            self.ray()
            with self.timed("scan", add=True):
                shelf, groups = Shelf(), sample_groups()
                for of in sorted({representation(trials[key], groups) for key in missing}):
                    for tables in self.tables(of):
                        shelf.put(of, tables)
                order = flows_first(trials) if self.config.flow.share else trials
                run_trials(run_contrastive, (shelf, self.config), order, book, self.config.resources, name)
        return book

    def scan(self) -> dict[str, Any]:
        """Stages 1 to 4: the scan and its report; returns the summary."""
        trials = plan_scan(self.config, self.prepare(grid_of(self.config)))
        self.run_trials(trials)
        return self.report(trials)

    def report(self, trials: dict[str, Trial] | None = None) -> dict[str, Any]:
        """Stage 4: figures, page, ``summary.json`` and the MLflow run, from what is on disk."""
        trials = self.there() if trials is None else trials
        book, rows = self.finished(trials)
        groups = sample_groups()
        names = dict.fromkeys(representation(trial, groups) for trial in trials.values())
        # Without `id` (whose table the raw features share) the first encoder of the grid is shown.
        folder = self.encoder_folder("id" if {"id", "raw"} & set(names) else next(iter(names)), 0)
        found, latents = load_encoder(folder), embedding.load_latents(folder)
        if found is None or latents is None:
            raise UserError(f"{folder}: the encoder is not whole (run `raypipe scan` again)")
        history = found[1]["history"]
        with self.timed("report"):
            summary = self._summary(rows, trials)
            figures = make_all(
                self.config,
                trials,
                rows,
                book.arrays,
                history,
                summary["results"],
                summary["required"],
                self.folder / "figures",
            )
            write_json(self.folder / "summary.json", summary)
            write_page(self.folder / "report.html", summary, self.config, dataset.read_manifest(self.events), figures)
        with self.timed("mlflow"), one_flow(book, rows) as flow:
            examples = model_examples(self.config, self.events, latents[0])
            record_run(self.config, summary, history, figures, rows, flow, examples)
        return summary

    def finished(self, trials: dict[str, Trial]) -> tuple[Ledger, list[dict[str, Any]]]:
        """The ledger and its rows of the given trials.

        Raises:
            UserError: there are none (it tells of those of another version), or all have failed.
        """
        book = self.ledger()
        rows = book.rows(trials)
        if not rows:
            others = other_versions_told(other_versions(book, self.config))
            what = "nothing to report yet: no trial of this configuration is finished (run `raypipe scan` first)"
            raise UserError(". ".join([f"{self.folder}: {what}", *others]))
        if all(row["status"] != "ok" for row in rows):
            raise UserError(f"{book}: all trials failed; the first: {rows[0]['error'].strip().splitlines()[-1]}")
        return book, rows

    def _summary(self, rows: list[dict[str, Any]], trials: dict[str, Trial]) -> dict[str, Any]:
        versions = {"raypipe": __version__, "python": platform.python_version()}
        versions |= {name: importlib.metadata.version(name) for name in PACKAGES}
        overlap = [row["instance_overlap"] for row in rows if row["status"] == "ok"]
        provenance = {
            "config_hash": self.config.physics_hash(),
            "code": code_digest("simulate", *CODE),
            "keys": list(trials),
            "instance_overlap": max(overlap, default=0.0),
            "versions": versions,
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
        return build_summary(
            rows,
            working_point=self.config.selection.working_points[0],
            target=self.config.selection.target,
            stages=self.times(),
            peak_rss_gib=max(self.peak(), self.memory.peak_gib),
            provenance=provenance,
        ) | {"other_versions": other_versions(self.ledger(), self.config)}


@contextlib.contextmanager
def one_flow(book: Ledger, rows: list[dict[str, Any]]) -> Iterator[Path | None]:
    """The background model of a finished trial, of one without signal if there is one, as a file for the block."""
    by_key = {row["key"]: row for row in rows if row["status"] == "ok"}
    keys = sorted(by_key, key=lambda k: by_key[k]["signal"] != NO_SIGNAL)  # stable: without signal first
    with tempfile.TemporaryDirectory(prefix="raypipe-") as scratch:
        yield next((path for key in keys if (path := book.flow_file(key, by_key[key], Path(scratch)))), None)


def print_summary(summary: dict[str, Any], folder: Path) -> None:
    """The terminal's version of the report, on standard error."""
    from rich.table import Table

    from raypipe.report.page import headlines, result_rows

    head, body = result_rows(summary["results_all_working_points"])
    table = Table(title=f"raypipe: {folder}", box=None, header_style="bold")
    for name in head:
        table.add_column(name, no_wrap=True)
    for row in body:
        table.add_row(*row)
    console.print(table)
    for line in headlines(summary):
        console.print(line, highlight=False, soft_wrap=True)
    stages = ", ".join(f"{k} {v:.0f} s" for k, v in summary["stage_seconds"].items())
    console.print(f"Stages: {stages}; peak memory {summary['peak_rss_gib']:.1f} GiB", highlight=False, soft_wrap=True)
    for failed in summary["failed_trials"]:
        console.print(
            f"[red]failed: {failed['signal']} {failed['strength']:g} instance {failed['instance']}[/red]: "
            f"{failed['error'].strip().splitlines()[-1]}",
            highlight=False,
            soft_wrap=True,
        )
    console.print(f"Report: {folder / 'report.html'}", highlight=False, soft_wrap=True)
