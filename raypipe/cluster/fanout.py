"""The fan-out: Ray Tune runs the trials of any search, in windows of packs; the ledger decides what is done."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from raypipe.cluster.attempt import Function, Report, Worker, report
from raypipe.cluster.runtime import cluster_address, total_cpus
from raypipe.config import Resources
from raypipe.errors import UserError
from raypipe.models.bdt import Train
from raypipe.search.result import ALONE, Tools
from raypipe.store.ledger import Ledger
from raypipe.store.status import Heartbeat, drivers

WINDOW = 256
"""Packs given to Ray Tune at once, at least: Tune keeps every trial it was ever given, so that more of them at once
would let the driver's memory grow with the scan."""
ROUNDS = 8  # Packs a slot in one window: at its end some slots wait for the last trial, one part in twice this
UNKNOWN = 64  # More trials than this are not started one a pack until some have shown how long they take
OnEnd = Callable[[Any, Report], None]  # Called in the driver with a trial and how it ended


@dataclass
class Scan:
    """Trials of one search to run on one ledger, and what their driver knows of them."""

    function: Function  # The search, importable by the workers
    inputs: Any  # Goes into the object store once
    trials: Mapping[str, Any]  # By key; picklable, with ``label()``
    book: Ledger
    resources: Resources
    on_end: OnEnd = lambda trial, told: None
    together: int = 0  # So many trials are made as one; 0: one by one
    large: frozenset[str] = frozenset()
    """Trials whose trees all workers train together: the driver runs them last, one by one, no `trial_timeout`."""
    train: Train | None = None  # What trains those trees
    ended: set[str] = field(default_factory=set)
    suspects: set[str] = field(default_factory=set)  # Trials of packs whose process died too often
    beat: Heartbeat = field(init=False)

    def run(self) -> None:
        """Run the trials that the ledger does not hold yet. Ray must be running.

        Trials whose process dies or hangs are started again ``resources.max_failures`` times, then recorded as failed
        like those that raise. Any number of drivers may run this on one ledger. `DiskFull` if there is no space for
        results.
        """
        from ray import tune

        from raypipe.cluster.window import run_pack, run_window

        check_resources(self.resources)
        began, book, r = time.time(), self.book, self.resources
        self.ended = book.done(self.trials)
        if not (left := [key for key in self.trials if key not in self.ended]):
            return
        if alive := drivers(book):
            left.reverse()  # meet the other driver in the middle
        for dead in book.store.folders("tune") - alive.keys():
            book.store.drop(f"tune/{dead}")
        tools = Tools(stage=book.stage, train=self.train)
        here = Worker(self.function, self.inputs, book, tools, retries=r.max_failures)
        fresh = Ledger(book.store, book.shared)  # without the rows that this one has read
        there = Worker(self.function, self.inputs, fresh, ALONE, r.trial_timeout, r.max_failures)
        gpus = {"gpu": r.trial_gpus} if r.trial_gpus else {}
        with Heartbeat(book) as self.beat:
            given = {"worker": there, "driver": self.beat.id, "cpus": r.trial_cpus, "together": self.together > 0}
            # Once a scan, not once a window: each call puts the inputs into the object store anew.
            trainable = tune.with_resources(tune.with_parameters(run_pack, **given), {"cpu": r.trial_cpus, **gpus})
            while left:
                if packs := self.packs([key for key in left if key not in self.large]):
                    run_window(trainable, packs, self)
                elif not self.run_one([key for key in left if key in self.large], here):
                    time.sleep(1.0)  # all that is left runs elsewhere
                book.compact()
                left = self.missing(left, began)
            book.store.drop(f"tune/{self.beat.id}")

    def packs(self, left: list[str]) -> list[dict[str, Any]]:
        """The next window: short trials together, those that may have brought a pack down alone, never too many."""
        slots = max(1, math.floor(total_cpus() / self.resources.trial_cpus))
        elsewhere = self.beat.elsewhere(left)
        mine = [key for key in left if key not in elsewhere]
        rest = [key for key in mine if key not in self.suspects]
        most = max(WINDOW, ROUNDS * slots)
        if self.together:
            packs = self._chunks(rest, elsewhere)
        else:
            times = sorted(s for s in self.book.seconds().values() if s is not None)
            typical = times[len(times) // 2] if times else None
            size = pack_size(typical, len(mine), slots, self.resources.pack_seconds)
            most = 2 * slots if typical is None and len(mine) > UNKNOWN else most
            packs = [rest[i : i + size] for i in range(0, len(rest), size)]
        alone = [[key] for key in mine if key in self.suspects]
        return [{key: self.trials[key] for key in pack} for pack in [*alone, *packs][:most]]

    def run_one(self, left: list[str], here: Worker) -> bool:
        """Run a trial that no other driver runs, in this process; whether there is one."""
        elsewhere = self.beat.elsewhere(left)
        if not (mine := [key for key in left if key not in elsewhere]):
            return False
        self.beat.running.add(mine[0])
        for told in here.run({mine[0]: self.trials[mine[0]]}):
            self.end(told)
        return True

    def _chunks(self, keys: list[str], elsewhere: set[str]) -> list[list[str]]:
        """The chunks of some trials, whole. Their borders are those of all trials, whoever runs them after whatever:
        of trials made as one the last digits depend on the others."""
        every = list(self.trials)
        chunk_of = {key: i // self.together for i, key in enumerate(every)}
        starts = dict.fromkeys(chunk_of[key] * self.together for key in keys)
        chunks = [every[i : i + self.together] for i in starts]
        return [chunk for chunk in chunks if elsewhere.isdisjoint(chunk)]

    def missing(self, left: list[str], began: float) -> list[str]:
        """What neither this driver nor another has ended since ``began``."""
        left = [key for key in left if key not in self.ended]
        done, failures = self.book.done(left), self.book.failures(left)
        for key in left:
            if key in done:
                self.end(report(key, "ok"))
            elif key in failures and failures[key]["time"] > began and failures[key]["kind"] != "timeout":
                self.end(report(key, "failed"))
        return [key for key in left if key not in self.ended]

    def end(self, told: Report) -> None:
        """A trial has ended, here or elsewhere."""
        key = told["key"]
        if key not in self.ended:
            self.ended.add(key)
            self.beat.running.discard(key)
            self.on_end(self.trials[key], told)

    def died(self, keys: list[str], error: str) -> None:
        """The process of a pack died too often. Of several trials that are open each gets another go, alone."""
        self.beat.running.difference_update(keys)
        left = [key for key in keys if key not in self.ended and not self.book.finished(key)]
        if len(left) > 1:
            self.suspects.update(left)
        for key in left if len(left) == 1 else ():
            if self.book.failures([key]).get(key, {}).get("kind") != "timeout":  # else its stack is there already
                said = f"its process died {self.resources.max_failures + 1} times: {error}"
                self.book.record_failure(key, self.trials[key], said, "died")
            self.end(report(key, "failed"))


def pack_size(typical: float | None, left: int, slots: int, pack_seconds: float) -> int:
    """Trials a pack: about ``pack_seconds`` of work, but at least four packs for every slot, and one if unknown."""
    if not typical:
        return 1
    return max(1, min(int(pack_seconds / typical), left // (4 * slots)))


def check_resources(resources: Resources) -> None:
    """Refuse (`UserError`) more cores or GPUs a trial than an embedded Ray has; a cluster may grow a larger node."""
    import ray

    there, cluster = ray.cluster_resources(), cluster_address()
    for name, wanted, key in (("CPU", resources.trial_cpus, "cpus"), ("GPU", resources.trial_gpus, "gpus")):
        if not cluster and wanted > there.get(name, 0.0):
            raise UserError(f"resources.trial_{key} = {wanted:g}: this machine gives Ray {there.get(name, 0.0):g}")
