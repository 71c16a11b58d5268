"""Random balanced folds in which an event is held out wherever it occurs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from raypipe import seeds
from raypipe.events.fields import fingerprint, first_equal
from raypipe.events.twins import first_twin
from raypipe.fit.classifier import EVERY_FOLD


def deal_folds(
    training: Sequence[np.ndarray], others: Sequence[np.ndarray], folds: int, seed: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The fold of every event of the ``training`` tables, and of the same events where they occur in ``others``.

    Tables are (n, d), compared as float32. An event that occurs twice has one fold (`first_twin`); of other equal rows
    the k-th of one table goes with the k-th of another. Folds follow from seed and values, not from the order of the
    rows; their sizes differ by one at most. An event in no training table is `EVERY_FOLD`.
    """
    tables = [*training, *others]
    parts = np.cumsum([len(table) for table in tables])[:-1]
    unit, prints = _units([np.asarray(t, np.float32) for t in tables], parts)
    split = np.split(unit, parts)
    occurrences = np.stack([np.bincount(u, minlength=len(prints)) for u in split[: len(training)]])
    order = np.argsort(seeds.uniform_by_id(prints, seed, "folds"), kind="stable")
    fold = _dealt(occurrences[:, order], folds)
    fold[order] = fold.copy()
    found = [fold[u] for u in split]
    return found[: len(training)], found[len(training) :]


def _units(tables: list[np.ndarray], parts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number of the event that each row of all tables is, and a hash of each event."""
    rows = np.concatenate(tables)
    prints = fingerprint(rows)
    equal, twin = first_equal(prints), first_twin(rows)
    own = np.arange(len(rows))
    lonely = twin == own
    lonely[twin[~lonely]] = False  # the first of several twins is one of them
    number = np.concatenate([_occurrence(e) for e in np.split(equal, parts)])
    key = equal * (number.max(initial=0) + 1) + np.where(lonely, number, 0)
    _, first, unit = np.unique(key, return_index=True, return_inverse=True)
    with np.errstate(over="ignore"):
        hashes = prints[first] + number[first].astype(np.uint64) * np.uint64(0xD1B54A32D192ED03)
    return unit, hashes


def _occurrence(group: np.ndarray) -> np.ndarray:
    """For each row how many earlier ones are of its group."""
    order = np.argsort(group, kind="stable")
    ordered = group[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]][: len(group)])
    number = np.empty(len(group), np.int64)
    number[order] = np.arange(len(group)) - np.repeat(starts, np.diff(np.r_[starts, len(group)]))
    return number


def _dealt(occurrences: np.ndarray, folds: int) -> np.ndarray:
    """Folds of events in random order that occur so many times in each table, (tables, events)."""
    fold = np.full(occurrences.shape[1], EVERY_FOLD)
    load = np.zeros((len(occurrences), folds), np.int64)
    kinds, which = np.unique(occurrences, axis=1, return_inverse=True)
    # What weighs most is dealt first, single events level what it leaves uneven.
    for kind in np.argsort(-kinds.sum(0), kind="stable"):
        times = kinds[:, kind]
        if not times.any():
            continue
        members = np.flatnonzero(which.reshape(-1) == kind)
        shares = _shares(len(members), int(times.sum()), load[times > 0].sum(0))
        fold[members] = np.repeat(np.arange(folds), shares)
        load += np.outer(times, shares)
    return fold


def _shares(count: int, size: int, load: np.ndarray) -> np.ndarray:
    """How many of ``count`` events of ``size`` rows each fold gets, so that the loads (folds,) become even."""
    shares = np.zeros(len(load), np.int64)
    while count and np.ptp(load) >= size:
        least = int(np.argmin(load))
        load[least] += size
        shares[least] += 1
        count -= 1
    shares += count // len(load)
    shares[np.argsort(load, kind="stable")[: count % len(load)]] += 1
    return shares
