"""Paper B's search around its comparisons: bootstraps first, events simulated or the user's own."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from raypipe.config.multilepton import Files, MultileptonConfig
from raypipe.errors import UserError
from raypipe.events.pools import Pool, read_columns, read_pool
from raypipe.events.signed import describe, told
from raypipe.events.table import sample_path
from raypipe.events.twins import first_twin, rows_of_files, settle
from raypipe.files import digest, file_digest
from raypipe.search.base import Item, Made, Search, Stage, read_manifest
from raypipe.search.multilepton import BOOTSTRAP, Tables, compare, divide
from raypipe.search.result import DATA, NO_SIGNAL, Result, Tools, Trial


@dataclass(frozen=True)
class Events:
    """What a search starts from."""

    simulation: Pool  # Background for reference and bootstraps
    nature: Pool | None  # Background for pseudo-data, where it is a sample of its own
    signals: dict[str, Pool]
    data: np.ndarray | None  # (n, features) recorded data
    acceptance: dict[str, float]  # Of each signal
    notes: tuple[str, ...]  # What was done to the user's tables, in words


def is_own(config: MultileptonConfig) -> bool:
    """Whether the background, too, is the user's."""
    return config.files is not None and config.files.reference is not None


def files_key(config: MultileptonConfig, events: str | None) -> str:
    """Hash of the events: the key of the simulated data set (None: there is none), the user's files, which must be
    there, and what decides which of their events are used and with what weight."""
    files = config.files
    if files is None:
        return str(events)
    paths = [*config.recorded, *([files.reference, *files.signals.values()] if is_own(config) else [])]
    for path in paths:
        if not Path(path).is_file():
            raise UserError(f"{path}: no such file")
    policies = files.model_dump(include={"duplicates", "weights", "lepton_pt", "weight"})
    return digest({"events": events, "files": {path: file_digest(path) for path in paths}, **policies})


def read_events(config: MultileptonConfig, folder: Path, samples: Mapping[str, Any]) -> Events:
    """Read all that the configuration names; ``folder`` of the simulated data set, ``samples`` of its manifest."""
    notes: list[str] = []
    if is_own(config):
        return _own_files(config, config.files, notes)
    compare = config.compare
    for name in [*compare.background, *config.scan.signals]:
        if name not in samples:
            raise UserError(f"{folder}: sample {name!r} was not simulated (present: {', '.join(sorted(samples))})")

    def pools(split: str, names: list[str]) -> list[Pool]:
        return [read_pool(sample_path(folder, split, name), name, config.features) for name in names]

    background = {s: Pool.concatenate(pools(s, compare.background)) for s in ("embedding", "search")}
    signals = {pool.names[0]: pool for pool in pools("search", config.scan.signals)}
    acceptance = {name: samples[name]["efficiency"] for name in signals}
    for name, value in acceptance.items():
        if not value > 0:
            raise UserError(f"signal {name!r}: its acceptance is zero, no cross section can be quoted")
    data = _recorded(config, notes)
    return Events(background["embedding"], background["search"], signals, data, acceptance, tuple(notes))


def _own_files(config: MultileptonConfig, files: Files, notes: list[str]) -> Events:
    if files.weight is None and config.compare.expected is None:
        raise UserError("compare.expected: how many background events are expected? (or name files.weight)")
    for name, value in files.acceptance.items():
        if not value > 0:
            raise UserError(f"files.acceptance.{name} = {value:g}: a signal that is never accepted has no limit")
    data = _recorded(config, notes)
    reference = str(files.reference)
    simulated = _pool(config, "reference", reference, notes)
    signals = {name: _pool(config, name, path, notes) for name, path in files.signals.items()}
    same = file_digest(reference)
    for path in config.recorded:
        if file_digest(path) == same:
            raise UserError(f"files.reference: {reference} holds the recorded data ({path}): name a simulation")
    if data is not None:
        both = first_twin(np.concatenate([data, simulated.values]))[len(data) :] < len(data)
        if both.any():
            notes.append(f"reference: {int(both.sum())} events are in the recorded data too")
    return Events(simulated, None, signals, data, dict(files.acceptance), tuple(notes))


def _recorded(config: MultileptonConfig, notes: list[str]) -> np.ndarray | None:
    """(n, features) of the recorded data, if there are any that may be seen."""
    paths, features = config.recorded, config.features
    if not paths or config.blind is not False:
        return None
    tables = [np.column_stack(list(read_columns(p, features, config.files.lepton_pt).values())) for p in paths]
    data = np.concatenate(tables)
    if not len(data):
        raise UserError(f"{', '.join(paths)}: no events")
    sizes = [(path, len(table)) for path, table in zip(paths, tables, strict=True)]
    return data[_distinct(config.files, "data", data, sizes, notes)]


def _pool(config: MultileptonConfig, name: str, path: str, notes: list[str]) -> Pool:
    """One simulated table of the user."""
    files = config.files
    pool = read_pool(path, name, config.features, files.weight, files.weights)
    if files.weight is not None and (signs := describe(read_columns(path, [files.weight])[files.weight])):
        notes.append(told(name, signs, "draws"))
    return pool.take(_distinct(files, name, pool.values, [(path, len(pool))], notes))


def _distinct(
    files: Files, name: str, values: np.ndarray, sizes: list[tuple[str, int]], notes: list[str]
) -> np.ndarray:
    """Rows of a user's table to keep (bool), by `files.duplicates`; more than 0.1 % repeated is a `UserError`."""
    first = first_twin(values)
    kept = settle(first, files.duplicates, rows_of_files(sizes), "files.duplicates")
    if repeated := int((first != np.arange(len(first))).sum()):
        notes.append(f"{name}: {repeated} events repeat an earlier one: {'kept' if kept.all() else 'dropped'}")
    return kept


class Multilepton(Search):
    """The search of paper B: every trial a comparison with one reference, several trained as one stack."""

    sections: ClassVar[tuple[str, ...]] = (
        *("seed", "features", "compare", "networks"),
        *("bootstrap.electron_scale", "bootstrap.muon_scale", "bootstrap.normalisation"),
    )
    no_effect: ClassVar[str] = (
        "{} has no effect in a multilepton search: its networks see the features against the reference"
    )
    report: ClassVar[str] = "raypipe.report.multilepton:multilepton_report"
    costing: ClassVar[str] = "raypipe.search.costs:multilepton_costs"
    metric: ClassVar[str] = "likelihood_ratio"

    @property
    def together(self) -> int:
        """Data sets whose networks are trained together."""
        return self.config.chunk

    @property
    def resources(self) -> Any:
        """A chunk has a GPU where there are some."""
        given = self.config.resources
        return given.model_copy(update={"trial_gpus": given.trial_gpus or float(given.gpu)})

    def bootstraps(self) -> list[Trial]:
        """The comparisons that make the null hypothesis."""
        return [Trial(BOOTSTRAP, 0.0, i) for i in range(self.config.bootstrap.count)]

    def grid(self) -> list[Trial]:
        """Bootstraps first, then the recorded data, background-only data sets, injections."""
        scan = self.config.scan
        return [
            *self.bootstraps(),
            *([Trial(DATA, 0.0, 0)] if self.config.files is not None and not self.config.blind else []),
            *(Trial(NO_SIGNAL, 0.0, i) for i in range(scan.calibration)),
            *(Trial(s, x, i) for s in scan.signals for x in scan.strengths for i in range(scan.instances)),
        ]

    def asked(self, trial: Trial, given: frozenset[str]) -> list[Trial]:
        """The bootstraps, and the data set: recorded data unless a signal is asked for (or blind), else pseudo-data."""
        super().asked(trial, given)
        if self.config.files is not None and trial.signal == NO_SIGNAL:
            if "instance" in given:
                raise UserError(
                    "the search of the recorded data (files.data) takes no --instance: there is one data set"
                )
            if self.config.blind:
                return self.bootstraps()
            trial = Trial(DATA, 0.0, 0)
        return [*self.bootstraps(), trial]

    def stages(self) -> tuple[Stage, ...]:
        """The simulated events, unless they are the user's own or there already."""
        if self.config.events is None:
            return super().stages()

        def items(made: Made, trials: Sequence[Trial]) -> list[Item]:
            key = read_manifest(self.config.events)["key"]
            return [Item("events", key, str(Path(self.config.events).absolute()), "dataset.json")]

        return (Stage("simulate", "tasks", "raypipe.cluster.simulate:simulate_events", items, shared=False),)

    def materials(self, name: str, made: Made) -> dict[str, Any] | None:
        """The key of the events, and whether some of them are kept for pseudo-data."""
        events = made.get("simulate", {}).get("events")
        if self.stages() and not events:
            return None
        pseudo = bool(self.config.scan.signals or self.config.scan.calibration)
        return {"events": files_key(self.config, events["key"] if events else None), "pseudo": pseudo}

    def inputs(self, name: str, folder: Path, tools: Tools) -> Iterator[Tables]:
        yield self.pools(folder)[0]

    _pools: tuple[Tables, dict[str, float]] | None = None

    def pools(self, folder: Path) -> tuple[Tables, dict[str, float]]:
        """The pools and the acceptance of each signal, read once."""
        if self._pools is None:
            events = Path(self.config.events or folder / "events")
            found = read_events(self.config, events, read_manifest(events)["samples"] if self.stages() else {})
            self.notes = [*self.notes, *found.notes]
            tables = divide(found.simulation, found.nature, found.signals, found.data, self.config)
            self._pools = tables, found.acceptance
        return self._pools

    def run(self, inputs: Sequence[Tables], trials: Sequence[Trial], tools: Tools) -> list[Result]:
        return compare(*inputs, self.config, trials, tools)

    def answer(self, rows: list[dict[str, Any]], trials: Sequence[Trial]) -> tuple[list[str], Any]:
        """The statistics of one data set with their p-values."""
        from raypipe.search.exclusion import search_summary

        if trials[-1].signal == BOOTSTRAP:
            return [f"{len(trials)} bootstraps"], {"bootstraps": len(trials), "notes": self.notes}
        found = search_summary(rows, self.config, trials[-1]) | {"notes": self.notes}
        lines = [f"{t['loss']} {t['statistic']:16s} {t['value']:10.5g}  p = {t['p']:.4f}" for t in found["tests"]]
        lines.append(f"{found['trial']}: combined p = {found['combined_p']:.4f} ({found['bootstraps']} bootstraps)")
        return lines, found
