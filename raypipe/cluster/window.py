"""One window of a fan-out: a Ray Tune run whose every trial is a pack of trials and reports how each of them ended.

Import this in a Ray session only: `raypipe.cluster.runtime` sets what Ray reads when it is imported.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import ray
from ray import tune

from raypipe.cluster.attempt import Report, Worker, report
from raypipe.cluster.runtime import limit_threads
from raypipe.search.result import Tools
from raypipe.store.files import DiskFull, is_full
from raypipe.store.status import drivers

if TYPE_CHECKING:
    from raypipe.cluster.fanout import Scan


def run_pack(config: Mapping[str, Any], worker: Worker, driver: str, cpus: float, together: bool) -> None:
    """The Tune trainable: ``config`` has the ``pack``, keys with their trials; ``driver``: the id of who gives it."""
    limit_threads(threads := max(1, math.floor(cpus)))
    worker = replace(worker, tools=Tools(threads, "cuda" if ray.get_gpu_ids() else "cpu", worker.book.stage))
    try:
        for told in _reports(worker, dict(config["pack"]), driver, together):
            tune.report(told)
    except DiskFull as error:
        tune.report(report("", "full") | {"error": str(error)})


def _reports(worker: Worker, trials: Mapping[str, Any], driver: str, together: bool) -> Iterator[Report]:
    """Of every trial of a pack, as it ends, but for those done or running elsewhere; trials made as one run whole."""
    book = worker.book
    for group in [trials] if together else [{key: trial} for key, trial in trials.items()]:
        found = {key: book.read(key) if book.finished(key) else None for key in group}
        if all(rows and rows[0]["status"] == "ok" for rows in found.values()):
            yield from (report(key, "ok", rows) for key, rows in found.items())
        elif any(group.keys() & d["running"] for name, d in drivers(book).items() if name != driver):
            yield from (report(key, "elsewhere") for key in group)
        else:
            yield from worker.run(group)


class Listener(tune.Callback):
    """Tells a scan what happens to its packs. Tune pickles callbacks when a tuner is made: ``scan`` is set after."""

    scan: Scan

    def __init__(self) -> None:
        self.packs: dict[str, list[str]] = {}  # Of packs that have not ended well, keys by the id of their Tune trial

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self.packs[trial.trial_id] = [key for key, _ in trial.config["pack"]]
        self.scan.beat.running.update(self.packs[trial.trial_id])

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: Report, **info: Any) -> None:
        if result.get("status") in ("ok", "failed"):
            self.scan.end(result)

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self.scan.beat.running.difference_update(self.packs.pop(trial.trial_id, ()))


class WhenFull(tune.Stopper):
    """Ends a window when results cannot be kept any more."""

    error: str | None = None

    def __call__(self, trial_id: str, result: Report) -> bool:
        if result.get("status") == "full":
            self.error = result["error"]
        return False

    def stop_all(self) -> bool:
        return self.error is not None


def run_window(trainable: Any, packs: list[dict[str, Any]], scan: Scan) -> None:
    """Run packs of trials by key; those whose process died too often are told to the scan at the end; or `DiskFull`."""
    store, listener, stop = scan.book.store, Listener(), WhenFull()
    folder = f"{store.path}/tune/{scan.beat.id}"
    where = {"storage_filesystem": store.filesystem} if store.local is None else {}
    tuner = tune.Tuner(
        trainable,
        param_space={"pack": tune.grid_search([list(pack.items()) for pack in packs])},
        # No max_concurrent_trials: pending trials are what a cluster grows for.
        tune_config=tune.TuneConfig(reuse_actors=True, num_samples=1, trial_dirname_creator=lambda t: t.trial_id),
        run_config=tune.RunConfig(
            name=f"{time.time_ns():x}",
            storage_path=folder,
            verbose=0,
            callbacks=[listener],
            stop=stop,
            failure_config=tune.FailureConfig(max_failures=scan.resources.max_failures),
            **where,
        ),
    )
    listener.scan = scan
    try:
        results = tuner.fit()
    except Exception as error:
        if stop.error is None and not is_full(error):
            raise
        full = f"{folder}: no space left on this disk; what is finished is kept: free some, run again"
        stop.error = stop.error or full
    if stop.error is not None:
        raise DiskFull(stop.error)
    errors = {result.metrics["trial_id"]: result.error for result in results}
    for trial_id, keys in listener.packs.items():
        scan.died(keys, " ".join(str(errors.get(trial_id) or "no word from Ray").split())[-2000:])
