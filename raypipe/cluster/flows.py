"""The flows that the trials of a scan will ask for, made before them in one run of Ray Train."""

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from raypipe.cluster.runtime import limit_threads, places
from raypipe.cluster.trainer import TrainRun, first_node, go_on, resumed
from raypipe.config import Config, Resources
from raypipe.errors import UserError
from raypipe.files import digest
from raypipe.fit.flows import FlowSet, FlowTraining
from raypipe.fit.training import OnEpoch, Workers
from raypipe.kinds import background_of
from raypipe.search.case import Tables
from raypipe.search.cathode import flow_set
from raypipe.search.contrastive import as_seen, draw_case, trial_seed
from raypipe.search.contrastive_search import representation
from raypipe.search.result import Trial
from raypipe.store.claims import WAIT, Claim
from raypipe.store.files import Store
from raypipe.store.ledger import Ledger, packed, unpacked

ROWS = 2_000_000
"""Sideband events that a worker holds at once: with copies half a gigabyte. What is more is trained after them."""
FOLDER = "stages/flow"  # Of the finished flows, in the shared store of a ledger


@dataclass(frozen=True)
class Wanted:
    """A set of flows that a trial will ask for."""

    name: str  # Representation
    encoder: int
    trial: Trial  # The first of those that ask for it

    def drawn(self, tables: Sequence[Tables], config: Config, device: str = "cpu") -> FlowSet:
        """The set as the trial will see it; ``tables`` of its representation, one an encoder."""
        config = as_seen(config, self.trial)
        case = draw_case(tables[self.encoder], config, self.trial, self.encoder, truth=False)
        return flow_set(case, config, trial_seed(config, self.trial, self.encoder), device)


def wanted_by(trials: Iterable[Trial], encoders: Mapping[str, int], config: Config) -> list[Wanted]:
    """Every set of flows, once; ``encoders``: number of encoders of each representation."""
    found: dict[tuple, Wanted] = {}
    for trial in trials:
        if background_of(trial.method).learns:
            name = representation(trial)
            own = () if config.flow.share else (trial.signal, trial.strength)
            for encoder in range(encoders[name]):
                found.setdefault((name, encoder, trial.instance, *own), Wanted(name, encoder, trial))
    return list(found.values())


def stacks_of(wanted: Sequence[Wanted], config: Config, most: int) -> list[list[Wanted]]:
    """What is trained together: at most so many, of one shape."""
    shapes = defaultdict(list)
    for one in wanted:
        shapes[as_seen(config, one.trial).flow.model_dump_json()].append(one)
    return [some[at : at + most] for some in shapes.values() for at in range(0, len(some), most)]


def make_flows(
    inputs: Mapping[str, Sequence[Tables]],
    config: Config,
    trials: Iterable[Trial],
    book: Ledger,
    resources: Resources,
    on_epoch: OnEpoch | None = None,
) -> int:
    """Train the flows that the trials will ask ``book.stage`` for and that are not there; how many sets were made.

    Ray must be running; workers that fail are a `UserError`. The members of all sets are divided over one worker a core
    (`resources.trial_cpus`), or a GPU, with the same bits for any number. Sets that another driver is making are left
    to it. ``inputs``: tables of every representation, one an encoder (`raypipe.cluster.attempt.Shelf`). ``on_epoch``:
    called with the mean losses of every epoch of the sets (``sets``) that are trained together, one of ``stacks``.
    """
    import ray

    trials = list(trials)
    names = {representation(t) for t in trials if background_of(t.method).learns}
    tables = {name: inputs[name] for name in names}
    wanted = wanted_by(trials, {name: len(of) for name, of in tables.items()}, config)
    if not wanted:
        return 0
    first_node(resources.trial_gpus)
    cpus = max(1.0, resources.trial_cpus)
    workers = min(max(1, places(cpus, resources.trial_gpus)), len(wanted) * config.flow.members)
    # An event of the sidebands is one of the mass window.
    rates = [float(tables[wanted[0].name][0].search[name].weight.sum()) for name in config.pseudodata.background]
    each = max(1, int(ROWS / (config.pseudodata.luminosity * sum(rates))))
    given = {"inputs": ray.put(inputs), "config": config, "shared": book.shared}
    given["stacks"] = stacks_of(wanted, config, workers * each)
    asked = [[one.name, one.encoder, one.trial.key({})] for one in wanted]
    name = f"flows-{digest([asked, config.model_dump(mode='json')])}"
    with Claim(book.shared, "train", name) as claim:
        # Whoever has the name goes on where a run of that name was interrupted.
        name = name if claim.is_first() else claim.id
        run = TrainRun("flow", name, book.shared, workers, cpus, resources.trial_gpus, resources.max_failures)
        run.fit(_flow_loop, given, on_epoch)
        made = sum({record["stack"]: record["sets"] for record in run.records()}.values())
        run.remove()
    return made


def _flow_loop(given: dict[str, Any]) -> None:
    """What every worker runs."""
    import ray

    limit_threads(given["threads"])
    inputs, saved, worker = ray.get(given["inputs"]), resumed(), Workers()
    device = "cuda" if ray.get_gpu_ids() else "cpu"
    for number, wanted in enumerate(given["stacks"]):
        stack = _Stack(
            wanted, inputs, given["config"], given["shared"], given["run"], device, worker, len(given["stacks"])
        )
        stack.make(number, saved if saved and saved["stack"] == number else None)


@dataclass
class _Stack:
    """Sets of flows that are trained together, as one worker sees them."""

    wanted: list[Wanted]
    inputs: Mapping[str, Sequence[Tables]]
    config: Config
    shared: Store
    run: TrainRun
    device: str
    workers: Workers
    stacks: int  # One after the other, with this one
    sets: dict[int, FlowSet] = field(default_factory=dict)

    def drawn(self, number: int) -> FlowSet:
        """A set as the trial will see it."""
        if number not in self.sets:
            one = self.wanted[number]
            self.sets[number] = one.drawn(self.inputs[one.name], self.config, self.device)
        return self.sets[number]

    def make(self, number: int, state: dict[str, Any] | None) -> None:
        """Train what is missing and nobody else makes, and write it to the store; or go on from a state."""
        missing = {}
        for k in np.array_split(np.arange(len(self.wanted)), self.workers.size)[self.workers.rank].tolist():
            with contextlib.suppress(UserError):  # the trial will say so
                missing[self.drawn(k).key] = k
        with _claimed(self.shared, missing, state["keys"] if state else ()) as mine:
            own = [(missing[key], key, self.sets[missing[key]].blocks) for key in mine]
            every = sorted(one for some in self.workers.objects(own) for one in some)
            if every:
                keys = {k: key for k, key, _ in every}
                self._train(keys, [(k, block) for k, _, blocks in every for block in blocks], number, state)
            self.workers.objects(None)  # all is written: the claims may go

    def _train(self, keys: dict[int, str], blocks: list[tuple[int, list[int]]], number: int, state: Any) -> None:
        """Divide the blocks (set, members) over the workers, in order: most sets are then whole on one of them."""
        shares = np.array_split(np.arange(len(blocks)), self.workers.size)
        here = [blocks[at] for at in shares[self.workers.rank]]
        place = {k: at for at, k in enumerate(keys)}
        mine = {k: self.drawn(k).sidebands for k, _ in here}
        config = as_seen(self.config, self.wanted[0].trial)
        training = FlowTraining(
            [mine.get(k) for k in keys],
            config.flow.mass_range(config.window.low, config.window.high),
            config.flow,
            folds=config.classifier.folds,
            device=self.device,
            members=[(place[k], m) for k, block in here for m in block],
        )
        beside = {"stack": number, "keys": list(keys.values()), "workers": self.workers.size}
        if state and all(state[name] == value for name, value in beside.items()):
            training.load_state(state)
        go_on(training, self.run, beside, {"stack": number, "stacks": self.stacks, "sets": len(keys)})
        done = [k for k in keys if training.converged(place[k])]  # of the others the trials will say so
        who = {k: [w for w, share in enumerate(shares) if any(blocks[at][0] == k for at in share)] for k in done}
        self._write(training, [(place[k], keys[k], who[k]) for k in done])

    def _write(self, training: FlowTraining, done: list[tuple[int, str, list[int]]]) -> None:
        """Sets (number, key, its workers) as `Ledger.stage` reads them, by the first of the workers of each.

        The others leave it their pieces.
        """
        rank = self.workers.rank
        for k, key, workers in done:
            if rank in workers[1:]:
                self.run.write(f"{key}-{rank}.pt", packed(training.piece(k)))
        self.workers.objects(None)
        for k, key, workers in done:
            if rank == workers[0]:
                pieces = [unpacked(self.run.read(f"{key}-{w}.pt")) for w in workers[1:]]
                self.shared.write(f"{FOLDER}/{key}.pt", packed(training.flow(k, [training.piece(k), *pieces]).state()))


@contextlib.contextmanager
def _claimed(store: Store, keys: Iterable[str], own: Sequence[str]) -> Iterator[list[str]]:
    """Those keys that are not in the store and that nobody else makes, while the block lasts; all of ``own``."""

    def there(key: str) -> bool:
        return key not in own and f"{key}.pt" in store.listing(FOLDER)

    def take(key: str) -> Claim | None:
        if there(key):
            return None
        with contextlib.ExitStack() as stack:
            claim = stack.enter_context(Claim(store, FOLDER, key))
            while not (first := claim.is_first()) and key in own:
                time.sleep(WAIT)
            if not first or there(key):
                return None
            stack.pop_all()
            return claim

    with contextlib.ExitStack() as held, ThreadPoolExecutor(32) as pool:
        claims = {key: claim for key, claim in zip(keys, pool.map(take, keys), strict=True) if claim}
        for claim in claims.values():
            held.push(claim)
        yield list(claims)
