"""What of a finished run can be handed on: its rows, and the bins of one trial's likelihood."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from raypipe.errors import UserError
from raypipe.stats.workspace import PREFIX, ScoreBins
from raypipe.store.ledger import Ledger

TRIAL = ("signal", "strength", "instance", "embedding", "method")
Rows = list[dict[str, Any]]


def finished_trials(run: Path) -> tuple[Ledger, dict[str, Rows]]:
    """The ledger of a run folder (or a ledger itself) and the rows of its trials by key, of each trial the newest."""
    found = next((path for path in (run / "ledger", run) if (path / "layout.json").is_file()), None)
    if found is None:
        raise UserError(f"{run}: no such run (a folder with a ledger, as `raypipe scan` leaves it)")
    book, newest = Ledger(found), {}
    for key in sorted(times := book.written(), key=times.get):
        rows = book.read(key)
        if rows and "number" not in rows[0]:  # a pseudo-null has one
            newest[tuple(map(rows[0].get, TRIAL))] = key, rows
    return book, dict(newest.values())


def exported_bins(book: Ledger, trials: Mapping[str, Rows], wanted: Mapping[str, Any], family: bool) -> tuple:
    """Row and bins of the one trial that is as ``wanted``, else a `UserError`; ``family``: simulated at one fb."""
    asked = {name: value for name, value in wanted.items() if value is not None}
    keys = [key for key, rows in trials.items() if all(rows[0].get(name) == value for name, value in asked.items())]
    if len(keys) != 1:
        there = [" ".join(f"{name} {trials[key][0].get(name)}" for name in TRIAL) for key in (keys or trials)]
        told = ", ".join(f"{name} {value}" for name, value in asked.items()) or "any"
        raise UserError(f"{book}: {len(keys)} trials with {told}; there are {'; '.join(there[:4])} (of {len(there)})")
    arrays = book.arrays(keys[0])
    if f"{PREFIX}observed" not in arrays:
        raise UserError(f"{book}: a search without scores (contrastive and table searches keep the bins of theirs)")
    bins = ScoreBins.of(arrays)
    if family and not arrays.get(f"{PREFIX}family", np.zeros(1)).any():
        raise UserError("--family: no signal was injected into this trial, whose simulation could be taken")
    return trials[keys[0]][0], replace(bins, signal=arrays[f"{PREFIX}family"]) if family else bins
