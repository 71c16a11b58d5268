"""The same search, many times: Ray Tune maps `raypipe.search.contrastive.search` over the grid of trials."""

from __future__ import annotations

import math
import shutil
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from raypipe.cluster.ledger import Ledger
from raypipe.cluster.runtime import limit_threads, total_cpus
from raypipe.config import Config
from raypipe.files import code_digest
from raypipe.search.contrastive import Tables, search
from raypipe.search.result import Trial, trial_grid


def trial_inputs(config: Config, latents: dict[str, Any]) -> dict[str, Any]:
    """What, besides the trial itself, determines a result: latents, code, and the sections that a search reads."""
    sections = ("seed", "window", "pseudodata", "massfit", "flow", "classifier", "selection")
    values = config.model_dump(mode="json")
    embedding = {k: values["embedding"][k] for k in ("name", "train_fraction", "validation_fraction")}
    code = code_digest("events", "models", "fit", "stats", "search")
    return {"latents": latents["digest"], "code": code, "embedding": embedding, **{k: values[k] for k in sections}}


def plan_scan(config: Config, latents: dict[str, Any]) -> dict[str, Trial]:
    """All trials of the scan by their ledger key."""
    inputs = trial_inputs(config, latents)
    scan = config.scan
    trials = trial_grid(scan.signals, scan.strengths, scan.instances, scan.background_instances)
    return {trial.key(inputs): trial for trial in trials}


def run_trial(tables: Tables, config: Config, trial: Trial, key: str, ledger: Path, threads: int) -> str:
    """One search, recorded in the ledger; returns its status. An exception is recorded, not raised."""
    book = Ledger(ledger)
    try:
        book.record(key, trial, search(tables, config, trial, threads=threads))
    except Exception:
        book.record_failure(key, trial, traceback.format_exc())
        return "failed"
    return "ok"


def _trainable(given: dict[str, Any], tables: Tables, config: Config, ledger: Path, threads: int) -> None:
    """Ray Tune function trainable. A dying process is retried by Tune, an exception is a result."""
    from ray import tune

    limit_threads(threads)
    point = dict(given["trial"])
    key = point.pop("key")
    tune.report({"status": run_trial(tables, config, Trial(**point), key, ledger, threads)})


def _progress(
    trials: dict[str, Trial], book: Ledger, on_trial: Callable[[str, Trial], None] | None, retries: int
) -> Any:
    """A Tune callback, in the driver, that tells which trial ended and records those whose process died for good."""
    from ray import tune

    class Progress(tune.Callback):
        def __init__(self, *given: Any) -> None:
            self.trials, self.book, self.on_trial, self.retries = given

        def __getstate__(self) -> dict[str, Any]:
            # Tune pickles its callbacks beside the experiment; ours hold a progress bar, and nobody restores them.
            return {}

        def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
            self.ended(trial.config["trial"]["key"])

        def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
            key = trial.config["trial"]["key"]
            if not self.book.finished(key):
                self.book.record_failure(key, self.trials[key], f"its process died {self.retries + 1} times")
            self.ended(key)

        def ended(self, key: str) -> None:
            if self.on_trial:
                self.on_trial(key, self.trials[key])

    return Progress(trials, book, on_trial, retries)


def run_scan(
    config: Config,
    tables: Tables,
    trials: dict[str, Trial],
    folder: Path,
    on_trial: Callable[[str, Trial], None] | None = None,
) -> None:
    """Run the trials that the ledger of ``folder`` does not hold yet. Ray must be running.

    The tables go into the object store once and every trial reads them there. The ledger, not Tune's own state,
    decides what is done: after a crash exactly the missing trials run.

    Args:
        on_trial: called in this process with (key, trial) when one ends.
    """
    from ray import tune

    book = Ledger(folder)
    missing = {key: trial for key, trial in trials.items() if not book.finished(key)}
    if not missing:
        return
    cpus = config.resources.trial_cpus
    threads = max(1, math.floor(cpus))

    trainable = tune.with_parameters(
        _trainable, tables=tables, config=config, ledger=folder.resolve(), threads=threads
    )  # fmt: skip
    grid = [{"key": key, "signal": t.signal, "strength": t.strength, "instance": t.instance}
            for key, t in missing.items()]  # fmt: skip
    storage = folder / "tune"
    callback = _progress(missing, book, on_trial, config.resources.max_failures)
    tune.Tuner(
        tune.with_resources(trainable, {"cpu": cpus}),
        param_space={"trial": tune.grid_search(grid)},
        tune_config=tune.TuneConfig(
            reuse_actors=True, max_concurrent_trials=max(1, math.floor(total_cpus() / cpus)), num_samples=1
        ),
        run_config=tune.RunConfig(
            name="scan", storage_path=str(storage.resolve()), verbose=0, callbacks=[callback],
            failure_config=tune.FailureConfig(max_failures=config.resources.max_failures),
        ),
    ).fit()  # fmt: skip
    shutil.rmtree(storage, ignore_errors=True)
