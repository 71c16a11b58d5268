"""The events of a multilepton search: simulated samples, or a user's own tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from raypipe.config.multilepton import Files, MultileptonConfig
from raypipe.errors import UserError
from raypipe.events.pools import Pool, read_columns, read_pool
from raypipe.events.signed import describe, told
from raypipe.events.table import sample_path
from raypipe.events.twins import first_twin, rows_of_files, settle
from raypipe.files import digest, file_digest


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
