"""The scan engine: Ray Tune maps any search over any trials; the ledger decides what runs and what is done."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from raypipe.cluster.address import cluster_address
from raypipe.cluster.attempt import Function, Rules, Together, attempt, attempt_together
from raypipe.cluster.runtime import limit_threads, total_cpus
from raypipe.config import Resources
from raypipe.errors import UserError
from raypipe.store.files import DiskFull, is_full
from raypipe.store.ledger import Ledger
from raypipe.store.status import Heartbeat, Price, announce, drivers

WINDOW = 256
"""Packs given to Ray Tune at once, at least: Tune keeps every trial it was ever given, so that more of them at once
would let the driver's memory grow with the scan."""
ROUNDS = 8
"""Packs a slot in one window: at its end some slots wait for the last trial, one part in twice this."""
UNKNOWN = 64
"""More trials than this are not started one a pack until some have shown how long they take."""

OnTrial = Callable[[str, Any, str], None]
"""Called in the driver with (key, trial, status) when a trial ends: ``ok``, ``failed`` or ``elsewhere``."""


def price_of(resources: Resources) -> Price:
    """What an hour of trials costs."""
    return Price(resources.trial_cpus, resources.trial_gpus, resources.price_cpu_hour, resources.price_gpu_hour)


def run_scan(
    function: Function | Together,
    inputs: Any,
    trials: Mapping[str, Any],
    book: Ledger,
    resources: Resources,
    on_trial: OnTrial | None = None,
    name: str = "scan",
    together: int = 0,
) -> None:
    """Run the trials that the ledger does not hold yet. Ray must be running.

    ``inputs`` goes into the object store once; every trial on a machine reads the same copy of its arrays. A trial is
    any picklable value with ``label()``. Trials whose process dies or hangs are started again
    ``resources.max_failures`` times, then recorded as failed like those that raise. Any number of drivers may run this
    on one ledger: they leave each other's running trials alone, and what both run comes out the same.

    Args:
        function: the search, importable by the workers: (inputs, trial, `attempt.Context`) -> `Result`.
        together: so many trials are made as one, by a function (inputs, trials, context) -> results; 0: one by one.

    Raises:
        DiskFull: no space for results; what is finished is kept.
    """
    from ray import tune

    check_resources(resources)
    began = time.time()
    announce(book, trials, price_of(resources), name)
    done = book.done(trials)
    left = [key for key in trials if key not in done]
    if not left:
        return
    if drivers(book):
        left.reverse()  # meet the other driver in the middle
    _sweep(book)
    threads = max(1, math.floor(resources.trial_cpus))
    with Heartbeat(book) as beat:
        rules = Rules(
            book.store, book.shared, beat.id, threads, resources.trial_timeout, resources.max_failures, together > 0
        )
        trainable = tune.with_resources(
            # Once a scan, not once a window: each call puts the inputs into the object store anew.
            tune.with_parameters(_trainable, function=function, inputs=inputs, rules=rules),
            {"cpu": resources.trial_cpus, **({"gpu": resources.trial_gpus} if resources.trial_gpus else {})},
        )
        suspects: set[str] = set()
        while left:
            packs = _window(left, book, resources, suspects, beat, together)
            if packs:
                events = _Events(trials, book, beat, on_trial, resources.max_failures, together > 0)
                _fit(trainable, packs, trials, book, resources, events)
                left = [key for key in left if key not in events.ended]
                suspects |= events.suspects
            else:
                time.sleep(1.0)  # all that is left runs elsewhere
            book.compact()
            left = _still_missing(left, book, began, trials, on_trial, own=bool(packs))
        book.store.drop(f"tune/{beat.id}")


def _still_missing(
    left: list[str], book: Ledger, began: float, trials: Mapping[str, Any], on_trial: OnTrial | None, own: bool
) -> list[str]:
    """What neither this driver nor another has ended since ``began``."""
    done = book.done(left)
    failed = {key for key, row in book.failures(left).items() if row["time"] > began and row["kind"] != "timeout"}
    for key in (done | failed) if on_trial and not own else ():
        on_trial(key, trials[key], "ok" if key in done else "failed")
    return [key for key in left if key not in done and key not in failed]


def _sweep(book: Ledger) -> None:
    """Remove what Tune left behind for drivers that are dead."""
    alive = drivers(book)
    for name in book.store.folders("tune"):
        if name not in alive:
            book.store.drop(f"tune/{name}")


def _window(
    left: list[str], book: Ledger, resources: Resources, suspects: set[str], beat: Heartbeat, together: int
) -> list[list[str]]:
    """The next packs of trials: short trials together, those that brought a pack down alone, never too many at once."""
    slots = max(1, math.floor(total_cpus() / resources.trial_cpus))
    elsewhere = beat.elsewhere(left)
    mine = [key for key in left if key not in elsewhere]
    times = sorted(s for s in book.seconds().values() if s is not None)
    typical = times[len(times) // 2] if times else None
    size, most = packing(typical, len(mine), slots, resources.pack_seconds)
    size, most = (together, max(WINDOW, ROUNDS * slots)) if together else (size, most)
    alone = [[key] for key in mine if key in suspects]
    rest = [key for key in mine if key not in suspects]
    packs = alone + [rest[i : i + size] for i in range(0, len(rest), size)]
    return packs[:most]


def packing(typical: float | None, left: int, slots: int, pack_seconds: float) -> tuple[int, int]:
    """Trials a pack, and packs that the next window may have."""
    if typical is None and left > UNKNOWN:
        return 1, 2 * slots
    return pack_size(typical, left, slots, pack_seconds), max(WINDOW, ROUNDS * slots)


def worker_starts(trials: int, seconds: float, slots: int, pack_seconds: float) -> list[int]:
    """Fresh worker processes of each window of a scan of trials of so many seconds: Tune keeps them for one window."""
    started: list[int] = []
    while trials > 0:
        size, most = packing(seconds if started else None, trials, slots, pack_seconds)
        packs = min(most, math.ceil(trials / size))
        started.append(min(slots, packs))
        trials -= packs * size
    return started


def pack_size(typical: float | None, left: int, slots: int, pack_seconds: float) -> int:
    """Trials a pack: about ``pack_seconds`` of work, but at least four packs for every slot, and one if unknown."""
    if not typical:
        return 1
    return max(1, min(int(pack_seconds / typical), left // (4 * slots)))


def _fit(
    trainable: Any,
    packs: list[list[str]],
    trials: Mapping[str, Any],
    book: Ledger,
    resources: Resources,
    events: _Events,
) -> None:
    """Let Ray Tune run one window of packs."""
    from ray import tune

    grid = [{"keys": pack, "trials": [trials[key] for key in pack]} for pack in packs]
    folder = f"{book.store.path}/tune/{events.beat.id}"
    where = {"storage_filesystem": book.store.filesystem} if book.store.local is None else {}
    tuner = tune.Tuner(
        trainable,
        param_space={"pack": tune.grid_search(grid)},
        # No max_concurrent_trials: pending trials are what a cluster grows for.
        tune_config=tune.TuneConfig(reuse_actors=True, num_samples=1, trial_dirname_creator=lambda t: t.trial_id),
        run_config=tune.RunConfig(
            name=f"{time.time_ns():x}",
            storage_path=folder,
            verbose=0,
            callbacks=[events.callback()],
            stop=events.stopper(),
            failure_config=tune.FailureConfig(max_failures=resources.max_failures),
            **where,
        ),
    )
    try:
        tuner.fit()
    except Exception as error:
        if events.full is None and is_full(error):
            events.full = f"{folder}: no space left on this disk; what is finished is kept: free some, run again"
        if events.full is None:
            raise
    if events.full is not None:
        raise DiskFull(events.full)


def _trainable(given: dict[str, Any], function: Function | Together, inputs: Any, rules: Rules) -> None:
    """Ray Tune function trainable: one pack. An exception is a result; a dying process is started again by Tune."""
    import ray
    from ray import tune

    limit_threads(rules.threads)
    book = Ledger(rules.store, rules.shared)
    device = "cuda" if ray.get_gpu_ids() else "cpu"
    try:
        for key, status in _ended(given["pack"], function, inputs, rules, book, device):
            tune.report({"key": key, "status": status})
    except DiskFull as error:
        tune.report({"key": given["pack"]["keys"][0], "status": "full", "error": str(error)})


def _ended(
    pack: dict[str, Any], function: Function | Together, inputs: Any, rules: Rules, book: Ledger, device: str
) -> Iterator[tuple[str, str]]:
    """The trials of a pack, each with how it ended, as they end; those that are done or run elsewhere are not run."""
    waiting = {}
    for key, trial in zip(pack["keys"], pack["trials"], strict=True):
        if book.finished(key):
            yield key, "ok"
        elif any(key in d["running"] for name, d in drivers(book).items() if name != rules.driver):
            yield key, "elsewhere"
        elif rules.together:
            waiting[key] = trial
        else:
            yield key, attempt(function, inputs, key, trial, rules, book, device)
    if waiting:
        yield from attempt_together(function, inputs, waiting, rules, book, device)


def _last_words(trial: Any) -> str:
    """What Ray says about the last process of a Tune trial, on one line: killed, out of memory, node lost."""
    path = trial.error_file
    if not path or not os.path.exists(path):
        return "no word from Ray"
    with open(path, encoding="utf-8", errors="replace") as handle:
        last = handle.read().rpartition("Failure # ")[2]
    return " ".join(last.split())[-2000:]


class _Events:
    """What the driver learns from one window."""

    def __init__(
        self,
        trials: Mapping[str, Any],
        book: Ledger,
        beat: Heartbeat,
        on_trial: OnTrial | None,
        retries: int,
        together: bool,
    ) -> None:
        self.trials, self.book, self.beat, self.on_trial, self.retries = trials, book, beat, on_trial, retries
        self.together = together
        self.ended: set[str] = set()
        self.suspects: set[str] = set()
        self.full: str | None = None

    def started(self, keys: Iterable[str]) -> None:
        self.beat.running.update(keys)

    def reported(self, result: Mapping[str, Any]) -> None:
        key, status = result.get("key"), result.get("status")
        if status == "full":
            self.full = result["error"]
        elif key is not None and key not in self.ended and status != "elsewhere":
            self._end(key, status)

    def gone(self, keys: Iterable[str]) -> None:
        self.beat.running.difference_update(keys)

    def died(self, keys: list[str], error: str) -> None:
        """A pack whose process died too often: its first unfinished trial is to blame, the others get another go.

        Of trials that were made as one nobody knows which it was: each gets another go, alone.
        """
        self.gone(keys)
        open_keys = [key for key in keys if key not in self.ended]
        for key in open_keys if not self.together or len(open_keys) == 1 else ():
            if self.book.finished(key):
                self._end(key, "ok")
                continue
            if self.book.failures([key]).get(key, {}).get("kind") != "timeout":  # else its stack is there already
                told = f"its process died {self.retries + 1} times: {error}"
                self.book.record_failure(key, self.trials[key], told, "died")
            self._end(key, "failed")
            break
        self.suspects |= set(open_keys) - self.ended

    def _end(self, key: str, status: str) -> None:
        self.ended.add(key)
        self.beat.running.discard(key)
        if self.on_trial:
            self.on_trial(key, self.trials[key], status)

    def callback(self) -> Any:
        """The Tune callback that tells this object what happens."""
        from ray import tune

        class Callback(tune.Callback):
            def __init__(self, events: _Events) -> None:
                self.events = events

            def __getstate__(self) -> dict[str, Any]:
                # Tune pickles its callbacks beside the experiment; ours hold a progress bar, and nobody restores them.
                return {}

            def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
                self.events.started(trial.config["pack"]["keys"])

            def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
                self.events.reported(result)

            def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
                self.events.gone(trial.config["pack"]["keys"])

            def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
                self.events.died(trial.config["pack"]["keys"], _last_words(trial))

        return Callback(self)

    def stopper(self) -> Any:
        """The Tune stopper that ends a window when results cannot be kept any more."""
        from ray import tune

        class WhenFull(tune.Stopper):
            def __init__(self, events: _Events) -> None:
                self.events = events

            def __getstate__(self) -> dict[str, Any]:
                return {}

            def __call__(self, trial_id: str, result: dict) -> bool:
                return False

            def stop_all(self) -> bool:
                return self.events.full is not None

        return WhenFull(self)


def check_resources(resources: Resources) -> None:
    """Refuse what an embedded Ray could never start; a cluster may grow a larger node.

    Raises:
        UserError: more cores or GPUs a trial than this machine has.
    """
    import ray

    if cluster_address():
        return
    there = ray.cluster_resources()
    for name, wanted, key in (("CPU", resources.trial_cpus, "cpus"), ("GPU", resources.trial_gpus, "gpus")):
        if wanted > there.get(name, 0.0):
            raise UserError(f"resources.trial_{key} = {wanted:g}: this machine gives Ray {there.get(name, 0.0):g}")
