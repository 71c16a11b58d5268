"""A run of any search: its stages in order, its trials, its report; each skipped when its result is already there."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from raypipe.cluster import live
from raypipe.cluster.attempt import Shelf, run_some
from raypipe.cluster.fanout import Scan
from raypipe.cluster.machine import MemoryWatch
from raypipe.cluster.runtime import ray_session
from raypipe.cluster.tasks import counted, spread
from raypipe.cluster.tracking import record_report
from raypipe.cluster.trees import tree_trainer
from raypipe.errors import UserError, last_line
from raypipe.files import file_digest, read_json, write_json
from raypipe.kinds import resolve
from raypipe.models.bdt import Train
from raypipe.progress import progress_bar, say
from raypipe.report.base import Report, finish, headlines
from raypipe.report.calibrated import FILE, calibration_record, search_key
from raypipe.report.html import table_of
from raypipe.report.summary import SHARED, other_versions_told
from raypipe.search.base import Found, Item, Made, Stage, search_of
from raypipe.search.result import NO_SIGNAL, Tools, Trial
from raypipe.store.claims import once_each
from raypipe.store.files import Artefacts, Store
from raypipe.store.ledger import Ledger, check_folders, open_ledger
from raypipe.store.looks import note, opened
from raypipe.store.status import Price, announce, other_versions


class Run:
    """One run folder and what is in it. Ray starts when a stage first needs it, and not before.

    Args:
        config: the whole configuration, of any search.
        alone: never start Ray: this process makes everything, one after the other, with the same keys.
    """

    def __init__(self, config: Any, alone: bool = False) -> None:
        self.alone = alone
        self.folder = check_folders(config)
        self.open(config)
        self.artefacts = Artefacts(config.resources.artefacts)
        self.memory = MemoryWatch()
        self._stack = contextlib.ExitStack()
        self._ray = False
        self._times_path = self.folder / "stages.json"

    def __enter__(self) -> Run:
        self._stack.enter_context(self.memory)
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.close()

    def open(self, config: Any) -> None:
        """Blind or not, as the run folder says now."""
        self.config, said, self.look_entry = opened(config)
        self.search = search_of(self.config)
        self.search.notes += said

    def ray(self) -> None:
        """Start or join Ray unless that has happened, or this run is alone."""
        if not self._ray and not self.alone:
            with self.timed("ray_start"):
                self._stack.enter_context(ray_session(self.config.resources))
            self._ray = True

    @contextlib.contextmanager
    def timed(self, stage: str, add: bool = True) -> Iterator[None]:
        """Record the wall-clock seconds of the block. A stage that resumes adds to what it took before."""
        start = time.perf_counter()
        try:
            yield
        finally:
            times = self.times()
            times[stage] = (times.get(stage, 0.0) if add else 0.0) + time.perf_counter() - start
            write_json(self._times_path, times | {"peak_rss_gib": self.peak()})

    def _stored(self) -> dict[str, float]:
        return read_json(self._times_path) if self._times_path.exists() else {}

    def times(self) -> dict[str, float]:
        """Seconds of every stage that has run in this folder."""
        return {k: v for k, v in self._stored().items() if k != "peak_rss_gib"}

    def peak(self) -> float:
        """Largest memory seen in this folder's runs, GiB."""
        return max(self._stored().get("peak_rss_gib", 0.0), self.memory.peak_gib)

    def trees(self) -> Train:
        """What trains large trees, as `classifier.engine` says, with Ray running if it says so."""
        chosen, resources = self.config.classifier, self.config.resources
        if chosen.engine != "xgboost":
            self.ray()
        return tree_trainer(chosen, resources.train_workers, resources, self.folder)

    def ledger(self) -> Ledger:
        """The ledger of this run: `resources.storage`, else a folder of the run."""
        return open_ledger(self.config)

    # The stages before the trials.

    def make(self, trials: Sequence[Trial], until: str | None = None) -> Made:
        """Make what the trials need and what is not there yet, stage by stage until the one named; all records."""
        made: Made = {}
        for stage in self.search.stages():
            items = stage.items(made, trials)
            missing = {item.key: item for item in items if self.there(stage, item) is None}
            if missing and stage.shared:
                self._make_once(stage, missing)
            elif missing:
                resolve(stage.make)(self, stage, list(missing.values()))
            made[stage.name] = {item.name: self._made(stage, item, item.key in missing) for item in items}
            if stage.name == until:
                break
        return made

    def _make_once(self, stage: Stage, missing: Mapping[str, Item]) -> None:
        """Make items by key, those that nobody alive is making; the others are waited for."""

        def make(keys: list[str]) -> None:
            resolve(stage.make)(self, stage, [missing[key] for key in keys])
            for key in keys:
                self.artefacts.give(stage.name, key, self.files(missing[key]))

        root = self.artefacts.root
        store, folder = (self.ledger().store, f"claims/{stage.name}") if root is None else (Store(root), stage.name)
        once_each(store, folder, list(missing), lambda key: self.there(stage, missing[key]), make)

    def look(self, trials: Sequence[Trial]) -> Made:
        """The records of what is there; nothing is made for it."""
        made: Made = {}
        for stage in self.search.stages():
            found = {item.name: self.there(stage, item, take=False) for item in stage.items(made, trials)}
            made[stage.name] = {name: record for name, record in found.items() if record is not None}
        return made

    def files(self, item: Item) -> dict[str, Path]:
        """Paths of an item's files by name, the record last."""
        return {name: self.folder / item.folder / name for name in (*item.files, item.record)}

    def there(self, stage: Stage, item: Item, take: bool = True) -> dict[str, Any] | None:
        """The record of an item that is whole in the run folder, or that another run has left (if ``take``)."""
        record = self._record(item)
        if record and take and "digest" in record and file_digest(self.files(item)[item.files[0]]) != record["digest"]:
            record = None  # damaged since
        if record is None and take and stage.shared and self.artefacts.take(stage.name, item.key, self.files(item)):
            return self._record(item)
        return record

    def _record(self, item: Item) -> dict[str, Any] | None:
        files = self.files(item)
        if not all(path.is_file() for path in files.values()):
            return None
        record = read_json(files[item.record])
        whole = record.get("key") == item.key and (item.whole is None or item.whole(self.folder / item.folder))
        return record if whole else None

    def _made(self, stage: Stage, item: Item, new: bool) -> dict[str, Any]:
        """The record of an item that has to be there by now; it is left for other runs."""
        if stage.shared and not self.artefacts.give(stage.name, item.key, self.files(item)) and new:
            # Another run was first. Sums round differently there; from here on both have the same bits.
            self.artefacts.take(stage.name, item.key, self.files(item))
        if (record := self._record(item)) is None:
            raise UserError(f"{self.folder / item.folder}: {item.record} is not whole (run the same command again)")
        return record

    # The trials.

    def keys(self, trials: Sequence[Trial], made: Made) -> dict[str, Trial]:
        """Those trials whose inputs are there, by their ledger key."""
        names = dict.fromkeys(map(self.search.need, trials))
        inputs = {name: self.search.inputs_key(name, made) for name in names}
        there = [(inputs[self.search.need(trial)], trial) for trial in trials]
        return {trial.key(found | self.search.own_key(trial)): trial for found, trial in there if found is not None}

    def run_trials(self, trials: Mapping[str, Trial], name: str = "scan") -> Ledger:
        """Run the trials that the ledger does not hold yet."""
        note(self.folder, self.look_entry, trials.values())
        book = self.ledger()
        done = book.done(trials)
        missing = {key: trial for key, trial in trials.items() if key not in done}
        if missing and self.search.here:
            announce(book, trials, Price(), name)
            self._run_here(missing, book)
        elif missing and self.alone:
            if any(map(self.search.large, missing.values())):
                raise UserError(f"classifier.engine = {self.config.classifier.engine}: needs Ray (else: xgboost)")
            needs = dict.fromkeys(map(self.search.need, missing.values()))
            inputs = {need: list(self.search.inputs(need, self.folder, Tools())) for need in needs}
            with self.timed("trial"):
                live.run_alone(self._scan(inputs, trials, book), name)
        elif missing:
            shelf = Shelf()
            for need in sorted(set(map(self.search.need, missing.values()))):
                for part in self.search.inputs(need, self.folder, Tools()):
                    if not shelf:  # the first could be read
                        say(f"{name}: {self.folder}, {len(missing)} trials to run")
                    self.ray()
                    shelf.put(need, part)
            self.ray()
            large = frozenset(key for key, trial in missing.items() if self.search.large(trial))
            train = self.trees() if large else None  # no place for the workers is told before the work
            scan = self._scan(shelf, trials, book, large=large, train=train)
            if sum(map(self.search.learns, missing.values())) > 1:  # one trial trains its own: no start of Ray Train
                self._flows(shelf, list(missing.values()), book)
            with self.timed("trial"):
                live.run_trials(scan, name)
        book.lay_out(trials, self.folder)
        return book

    def _scan(self, inputs: Mapping[str, Any], trials: Mapping[str, Trial], book: Ledger, **large: Any) -> Scan:
        given = (inputs, self.config.search, self.search.handed())
        return Scan(run_some, given, trials, book, self.search.resources, together=self.search.together, **large)

    def _flows(self, shelf: Shelf, trials: Sequence[Trial], book: Ledger) -> None:
        """Train all flows that the trials need, which lie in the ledger's shared store then."""
        from raypipe.cluster.flows import make_flows  # and PyTorch with it, which not every search needs

        with self.timed("background"), progress_bar("train flows", self.config.flow.epochs) as bar:
            told = "{sets} sets, validation loss {validation:.3f}"

            def on_epoch(record: dict[str, Any]) -> None:
                bar(1 / record["stacks"] + 1e-9, told.format(**record))  # or a sum of thirds falls short of one

            make_flows(shelf, self.config, trials, book, self.config.resources, on_epoch)

    def _run_here(self, trials: Mapping[str, Trial], book: Ledger) -> None:
        """In this process, whose parts go to many cores where that pays."""
        for key, trial in trials.items():
            with spread(self.config.resources, self.alone) as mapper, progress_bar("search", self.search.parts) as bar:
                inputs = list(self.search.inputs(self.search.need(trial), self.folder, Tools(mapper=mapper)))
                say(f"search: {self.folder}, {len(inputs[0])} events")
                search = type(self.search)(self.search.handed())
                (result,) = search.run(inputs, [trial], Tools(mapper=counted(mapper, bar)))
            book.record(key, trial, result)

    # What a user asks for.

    def scan(self) -> dict[str, Any]:
        """All stages, all trials, and the report; returns the summary."""
        grid = self.search.grid()
        trials = self.keys(grid, self.make(grid))
        self.run_trials(trials)
        return self.report(trials)

    def ask(self, trials: Sequence[Trial]) -> tuple[list[str], Any]:
        """A few trials and what they say: lines for the terminal, and a JSON-ready value."""
        keyed = self.keys(trials, self.make(trials))
        rows = self.run_trials(keyed, "search").rows(keyed)
        if failed := [row for row in rows if row["status"] != "ok"]:
            raise UserError(f"the search failed: {last_line(failed[0]['error'])}")
        for said in self.search.notes:
            say(said)
        return self.search.answer(rows, trials)

    def calibrate(self, nulls: int, retrained: int = 0, simulated: int = 0) -> dict[str, Any]:
        """Search nulls (`Search.nulls`); writes and returns ``calibration.json`` (`calibration_record`)."""
        asked = self.search.nulls(nulls, retrained, simulated)
        say(f"calibrate: {self.folder}, {len(asked)} nulls")
        made = self.make(asked)
        trials = self.keys(asked, made)
        self.run_trials(trials, "calibrate")
        rows = self.finished(trials)[1]
        if failed := sum(row["status"] != "ok" for row in rows):
            raise UserError(f"{failed} nulls failed; the same command tries them again")
        keys = {name: search_key(self.search, one, made) for name, one in {t.embedding: t for t in asked}.items()}
        record = calibration_record(rows, keys, self.search.metric)
        write_json(self.folder / FILE, record)
        live.show(f"raypipe: {self.folder}", *table_of(SHARED["tails"], record["tails"]), no_wrap=True)
        return record

    def report(self, trials: Mapping[str, Trial] | None = None) -> dict[str, Any]:
        """Figures, page, ``summary.json`` and the MLflow run, from what is on disk: nothing is made for it."""
        grid = self.search.grid()
        made = self.look(grid)
        trials = self.keys(grid, made) if trials is None else trials
        book, rows = self.finished(trials)
        say(f"report: {self.folder}, {len(rows)} rows")
        others, code = other_versions(book, self.config), self.search.code()
        found = Found(self.folder, trials, rows, book.arrays, made, self.times(), self.peak(), others, code)
        with self.timed("report", add=False):
            report: Report = resolve(self.search.report)(self.search, found)
            summary = finish(self.search, found, report)
        with self.timed("mlflow", add=False), self._one_flow(book, found) as flow:
            record_report(self.search, found, report, summary, flow)
        self._tell(report, summary)
        return summary

    def finished(self, trials: Mapping[str, Trial]) -> tuple[Ledger, list[dict[str, Any]]]:
        """The ledger and its rows of the given trials; none (it tells of those of another version), or failed ones
        alone, are a `UserError`."""
        book = self.ledger()
        rows = book.rows(trials)
        if not rows:
            others = other_versions_told(other_versions(book, self.config))
            what = "nothing to report yet: no trial of this configuration is finished (run `raypipe scan` first)"
            raise UserError(". ".join([f"{self.folder}: {what}", *others]))
        if all(row["status"] != "ok" for row in rows):
            raise UserError(f"{book}: all trials failed; the first: {last_line(rows[0]['error'])}")
        return book, rows

    @contextlib.contextmanager
    def _one_flow(self, book: Ledger, found: Found) -> Iterator[Path | None]:
        """The background model of a finished trial, of one without signal if there is one, as a file for the block."""
        rows = sorted(found.good, key=lambda row: row["signal"] != NO_SIGNAL)  # stable: without signal first
        by_key = {row["key"]: row for row in rows}
        with tempfile.TemporaryDirectory(prefix="raypipe-") as scratch:
            files = (book.flow_file(key, row, Path(scratch)) for key, row in by_key.items())
            yield next(filter(None, files), None)

    def _tell(self, report: Report, summary: Mapping[str, Any]) -> None:
        """The terminal's version of the report, on standard error."""
        for title, shown in report.tables.items():
            live.show(title or f"raypipe: {self.folder}", shown.head, shown.rows, no_wrap=True)
        lines = headlines(report, summary)
        if report.sections:
            stages = ", ".join(f"{k} {v:.0f} s" for k, v in summary["stage_seconds"].items())
            lines.append(f"Stages: {stages}; peak memory {summary['peak_rss_gib']:.1f} GiB")
            lines.append(f"Report: {self.folder / 'report.html'}")
        for failed in summary["failed_trials"]:
            what = f"failed: {failed['signal']} {failed['strength']:g} instance {failed['instance']}"
            lines.append(f"{what}: {last_line(failed['error'])}")
        for line in lines:
            say(line)
