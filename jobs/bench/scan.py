"""A scan on the engine against the same trials in a process pool, and what the engine adds to their own time.

The trials are real searches on made-up tables. Starting Ray, which a scan does once, is measured apart.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.base import Measurement, compared, timed
from raypipe.config import Config

TRIALS, WORKERS = 8, 2
SIZES = {True: (1500.0, 2), False: (12_000.0, 24)}
"""Events in the mass window and flow epochs of a trial: tiny, and about twelve seconds."""
YIELDS = {"yy": 990.0, "ggf": 10.0}
"""Made up, per fb^-1."""
POOLED = "scan: 8 trials on Ray, with ledger, against a process pool without"
_SHARED: dict[str, Any] = {}
"""Inputs of the pool's processes, inherited from their parent."""


def _config(events: float, epochs: int) -> Config:
    names = [*YIELDS, "wn_150"]
    flow = {"members": 5, "leave_out": 1, "layers": 2, "hidden": 32, "batch_size": 512}
    return Config(
        seed=5,
        simulate={"samples": {name: {"events": int(2 * events)} for name in names}},
        embedding={"samples": names},
        pseudodata={"background": list(YIELDS), "luminosity": events / sum(YIELDS.values())},
        flow=flow | {"epochs": epochs, "patience": epochs},
        selection={"working_points": [0.01]},
        scan={"signals": ["wn_150"], "strengths": [2.0], "instances": TRIALS, "background_instances": 0},
        resources={"cpus": WORKERS, "object_store_gib": 0.25},
    )


def _pooled(trial: Any) -> None:
    """A trial as a plain pool runs it: search and nothing else."""
    from raypipe.search.contrastive import search

    search([_SHARED["tables"]], _SHARED["config"], trial)


def _engine(config: Config, tables: Any, trials: dict[str, Any], folder: Path) -> tuple[float, float, float]:
    """Wall seconds from the first trial's start to the last one's end, core seconds of the trials, and wall seconds
    before the first trial."""
    from raypipe.cluster.attempt import run_some
    from raypipe.cluster.fanout import Scan
    from raypipe.store.ledger import Ledger

    book, ends, began = Ledger(folder), [], time.time()
    given = ({"id": [tables]}, "contrastive", config)
    Scan(run_some, given, trials, book, config.resources, lambda *_: ends.append(time.time())).run()
    rows, written = book.rows(trials), book.written()
    # The first trial began its own length before its part was written.
    first = min(written[row["key"]] - row["seconds"] for row in rows)
    return max(ends) - first, sum(row["seconds_cpu"] for row in rows), first - began


def run(smoke: bool) -> list[Measurement]:
    """Eight trials on two workers, both ways in turn."""
    from raypipe.cluster.runtime import limit_threads, ray_session
    from raypipe.search.base import search_of
    from raypipe.search.pilots import made_up_tables

    config = _config(*SIZES[smoke])
    tables = made_up_tables(config, YIELDS, 1.0)
    trials = {trial.key({}): trial for trial in search_of(config).grid()}
    ours, theirs = [], []
    _SHARED.update(config=config, tables=tables)
    # Forked before Ray starts (a process that runs Ray must not be forked), with everything imported.
    fork = multiprocessing.get_context("fork")
    with fork.Pool(WORKERS, limit_threads, (1,)) as pool, tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        with ray_session(config.resources):
            ray_start = time.perf_counter() - began
            for repeat in range(1 if smoke else 2):
                ours.append(_engine(config, tables, trials, Path(folder) / str(repeat)))
                theirs.append(timed(lambda: pool.map(_pooled, trials.values(), chunksize=1))[0])
    wall, spent, starts = zip(*ours, strict=True)
    detail = {"trials": TRIALS, "workers": WORKERS, "core_seconds_a_trial": spent[0] / TRIALS}
    detail |= {"ray_start_seconds": ray_start, "worker_start_seconds": starts}
    name, meaning = "scan: wall time over the trials' core time by workers", "wall / (core seconds / workers)"
    return [
        compared(POOLED, wall, theirs, 0.95, meaning="speed against the pool", **detail),
        compared(name, wall, [s / WORKERS for s in spent], 1.10, meaning=meaning, at_most=True, **detail),
    ]
