"""The multilepton search on Ray: simulate or read, compare in chunks, report; each stage skips what is done."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from raypipe.cluster import simulate as simulation
from raypipe.cluster.ledger import CODE, Ledger
from raypipe.cluster.live import run_trials
from raypipe.cluster.pipeline import Run
from raypipe.cluster.tracking import Recorder, record
from raypipe.cluster.watch import other_versions
from raypipe.config.multilepton import Files, MultileptonConfig
from raypipe.errors import UserError
from raypipe.events.pools import Pool, read_columns, read_pool
from raypipe.events.signed import describe, told
from raypipe.events.table import sample_path, write_table
from raypipe.events.twins import first_twin, rows_of_files, settle
from raypipe.files import code_digest, digest, file_digest, write_json
from raypipe.progress import console
from raypipe.report import multilepton as report
from raypipe.report.summary import other_versions_told
from raypipe.search.exclusion import analyse
from raypipe.search.multilepton import Tables, compare, divide, plan
from raypipe.search.result import Result, Tools, Trial
from raypipe.simulate import dataset


def compare_together(inputs: tuple[Tables, MultileptonConfig], trials: Sequence[Trial], tools: Tools) -> list[Result]:
    """Comparisons of `raypipe.search.multilepton` as the scan engine calls them."""
    tables, config = inputs
    return compare(tables, config, trials, tools)


class MultileptonRun(Run):
    """One run folder of paper B's search."""

    config: MultileptonConfig

    def __init__(self, config: MultileptonConfig) -> None:
        super().__init__(config)
        self.notes: list[str] = []

    @property
    def events(self) -> Path:
        """Folder of the event data set."""
        return Path(self.config.events) if self.config.events else simulation.events_folder(self.folder)

    def simulate(self) -> dict[str, Any]:
        """Stage 1: the event tables; returns their manifest.

        Raises:
            UserError: the configuration has `files` instead.
        """
        if self.config.events is not None:
            return dataset.read_manifest(self.events)
        if self.config.simulate is None:
            raise UserError("this configuration reads your own tables (files); there is nothing to simulate")
        if simulation.is_complete(self.config, self.folder):
            return dataset.read_manifest(self.events)
        self.ray()
        with self.timed("simulate", add=True):
            return simulation.simulate(self.config, self.folder, artefacts=self.artefacts)

    def inputs(self) -> tuple[Tables, dict[str, float], str]:
        """Pools, acceptance of each signal, and the hash of what the pools are made of."""
        if self.config.files is not None and self.config.files.reference is not None:
            return self._own_files(self.config.files)
        manifest = self.simulate()
        events, compare_ = self.events, self.config.compare
        for name in [*compare_.background, *self.config.scan.signals]:
            if name not in manifest["samples"]:
                there = ", ".join(sorted(manifest["samples"]))
                raise UserError(f"{events}: sample {name!r} was not simulated (present: {there})")

        def pools(split: str, names: list[str]) -> list[Pool]:
            return [read_pool(sample_path(events, split, name), name, self.config.features) for name in names]

        background = {s: Pool.concatenate(pools(s, compare_.background)) for s in ("embedding", "search")}
        signals = {p.names[0]: p for p in pools("search", self.config.scan.signals)}
        acceptance = {name: manifest["samples"][name]["efficiency"] for name in signals}
        for name, value in acceptance.items():
            if not value > 0:
                raise UserError(f"signal {name!r}: its acceptance is zero, no cross section can be quoted")
        data, key = self._recorded(), manifest["key"]
        if data is not None:
            key = digest(
                {"events": key, "data": [file_digest(path) for path in self._data_paths()], **self._policies()}
            )
        return divide(background["embedding"], background["search"], signals, data, self.config), acceptance, key

    def _data_paths(self) -> list[str]:
        data = self.config.files.data if self.config.files else []
        return [data] if isinstance(data, str) else data

    def _recorded(self) -> np.ndarray | None:
        """(n, features) of the recorded data, if there are any."""
        paths, features = self._data_paths(), self.config.features
        if not paths:
            return None
        cut = self.config.files.lepton_pt if self.config.files else 0.0
        tables = [np.column_stack(list(read_columns(path, features, cut).values())) for path in paths]
        data = np.concatenate(tables)
        if not len(data):
            raise UserError(f"{', '.join(paths)}: no events")
        return data[self._distinct("data", data, [(p, len(t)) for p, t in zip(paths, tables, strict=True)])]

    def _distinct(self, name: str, values: np.ndarray, files: list[tuple[str, int]]) -> np.ndarray:
        """Rows of a user's table to keep (bool), by `files.duplicates`; more than 0.1 % repeated is a `UserError`."""
        first, policy = first_twin(values), self.config.files.duplicates if self.config.files else None
        kept = settle(first, policy, rows_of_files(files), "files.duplicates")
        if repeated := int((first != np.arange(len(first))).sum()):
            self._note(f"{name}: {repeated} events repeat an earlier one: {'kept' if kept.all() else 'dropped'}")
        return kept

    def _note(self, text: str) -> None:
        """What was done to the user's tables: told once, and kept for the summary."""
        if text not in self.notes:
            self.notes.append(text)
            console.print(text, highlight=False, soft_wrap=True)

    def _pool(self, name: str, path: str) -> Pool:
        """One simulated table of the user."""
        files = self.config.files
        pool = read_pool(path, name, self.config.features, files.weight, files.weights)
        if files.weight is not None and (signs := describe(read_columns(path, [files.weight])[files.weight])):
            self._note(told(name, signs, "draws"))
        return pool.take(self._distinct(name, pool.values, [(path, len(pool))]))

    def _policies(self) -> dict[str, Any]:
        """What decides, beside the files, which events are used and with what weight."""
        return self.config.files.model_dump(include={"duplicates", "weights", "lepton_pt"}) if self.config.files else {}

    def _own_files(self, files: Files) -> tuple[Tables, dict[str, float], str]:
        if files.weight is None and self.config.compare.expected is None:
            raise UserError("compare.expected: how many background events are expected? (or name files.weight)")
        for name, value in files.acceptance.items():
            if not value > 0:
                raise UserError(f"files.acceptance.{name} = {value:g}: a signal that is never accepted has no limit")
        data = self._recorded()
        simulated = self._pool("reference", str(files.reference))
        signals = {name: self._pool(name, path) for name, path in files.signals.items()}
        paths = [*self._data_paths(), str(files.reference), *files.signals.values()]
        digests = {path: file_digest(path) for path in paths}
        if (same := digests[str(files.reference)]) in (digests[path] for path in self._data_paths()):
            twin = next(path for path in self._data_paths() if digests[path] == same)
            raise UserError(f"files.reference: {files.reference} holds the recorded data ({twin}): name a simulation")
        if data is not None:
            both = first_twin(np.concatenate([data, simulated.values]))[len(data) :] < len(data)
            if both.any():
                self._note(f"reference: {int(both.sum())} events are in the recorded data too")
        key = digest({"files": digests, "weight": files.weight, **self._policies()})
        return divide(simulated, None, signals, data, self.config), dict(files.acceptance), key

    def trials(self, key: str) -> dict[str, Trial]:
        """All comparisons of the configuration by their ledger key."""
        observed = self.config.files is not None
        return {t.key(self._inputs_of_a_trial(key)): t for t in plan(self.config, observed)}

    def _inputs_of_a_trial(self, key: str) -> dict[str, Any]:
        values = self.config.model_dump(mode="json")
        # Neither the number of bootstraps nor the grid changes a comparison: more of them reuse what is there.
        uncertain = {k: v for k, v in values["bootstrap"].items() if k != "count"}
        pseudo = bool(self.config.scan.signals or self.config.scan.calibration)
        sections = {k: values[k] for k in ("seed", "features", "compare", "networks")}
        return {"events": key, "code": code_digest(*CODE), "bootstrap": uncertain, "pseudo": pseudo, **sections}

    def run(self, trials: dict[str, Trial], tables: Tables) -> Ledger:
        """Stage 2: the comparisons that the ledger does not hold yet."""
        book = self.ledger()
        if trials.keys() - book.done(trials):
            self.ray()
            given = self.config.resources
            given = given.model_copy(update={"trial_gpus": given.trial_gpus or float(given.gpu)})
            with self.timed("compare", add=True):
                run_trials(compare_together, (tables, self.config), trials, book, given, together=self.config.chunk)
        return book

    def scan(self) -> dict[str, Any]:
        """All stages; returns the summary."""
        tables, _, key = self.inputs()
        self.run(self.trials(key), tables)
        return self.report()

    def search(self, trial: Trial) -> dict[str, Any]:
        """One data set and the bootstraps it needs; its statistics with their p-values."""
        tables, _, key = self.inputs()
        inputs = self._inputs_of_a_trial(key)
        bootstraps = {t.key(inputs): t for t in plan(self.config, False)[: self.config.bootstrap.count]}
        book = self.run({**bootstraps, trial.key(inputs): trial}, tables)
        found = report.search_summary(book.rows([*bootstraps, trial.key(inputs)]), self.config, trial)
        return found | {"notes": self.notes}

    def report(self) -> dict[str, Any]:
        """Stage 3: figures 1 to 5, page, ``summary.json`` and the MLflow run, from what is on disk."""
        if self.config.simulate is not None and not simulation.is_complete(self.config, self.folder):
            self.finished({})  # nothing is simulated for a report
        tables, acceptance, key = self.inputs()
        trials = self.trials(key)
        book, rows = self.finished(trials)
        with self.timed("report"):
            summary = {
                "search": "multilepton",
                "config_hash": self.config.physics_hash(),
                "code": code_digest(*CODE),
                "notes": self.notes,
                "acceptance": acceptance,
                "expected": tables.expected,
                "reference": len(tables.reference),
                "null_pool": len(tables.null),
                "nature_pool": len(tables.nature),
                "finished": sum(r["status"] == "ok" for r in rows) // len(self.config.networks.losses),
                "planned": len(trials),
                **analyse(rows, self.config, acceptance),
                "failed_trials": [r for r in rows if r["status"] != "ok"],
                "other_versions": other_versions(book, self.config),
                "stage_seconds": self.times(),
                "peak_rss_gib": max(self.peak(), self.memory.peak_gib),
                **_provenance(),
            }
            write_json(self.folder / "summary.json", summary)
            write_table(pa.Table.from_pylist([r for r in rows if r["status"] == "ok"]), self.folder / "rows.parquet")
            figures = report.make_all(self.config, tables, rows, self.folder / "figures")
            report.write_page(self.folder / "report.html", summary, self.config, figures)
        with self.timed("mlflow"):

            def fill(run: Recorder) -> None:
                run.metrics((name, value, 0) for name, value in report.metrics(summary).items())
                run.files(figures.values(), "figures")
                run.files([self.folder / "summary.json", self.folder / "rows.parquet"])

            made_of = {"code": summary["code"], "rows": sorted(trials), "finished": summary["finished"]}
            record(self.config, f"multilepton-{summary['config_hash']}", made_of, fill)
        return summary


def _provenance() -> dict[str, Any]:
    names = ("raypipe", "ray", "torch", "numpy", "pyarrow", "mlflow", "pythia8mc")
    versions = {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in names}
    return {"versions": versions, "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")}


def print_summary(summary: dict[str, Any], folder: Path) -> None:
    """The terminal's version of the report, on standard error."""
    from rich.table import Table

    for title, (head, body) in report.tables(summary).items():
        table = Table(title=title, box=None, header_style="bold")
        for name in head:
            table.add_column(name, no_wrap=True)
        for row in body:
            table.add_row(*row)
        console.print(table)
    stages = ", ".join(f"{k} {v:.0f} s" for k, v in summary["stage_seconds"].items())
    console.print(f"{summary['finished']} of {summary['planned']} comparisons; stages: {stages}", highlight=False)
    for failed in summary["failed_trials"]:
        console.print(
            f"[red]failed: {failed['signal']} {failed['strength']:g} instance {failed['instance']}[/red]: "
            f"{failed['error'].strip().splitlines()[-1]}",
            highlight=False,
            soft_wrap=True,
        )
    for line in other_versions_told(summary.get("other_versions", 0)):
        console.print(line, highlight=False, soft_wrap=True)
    console.print(f"Report: {folder / 'report.html'}", highlight=False, soft_wrap=True)
