"""What a scan will cost before anything is paid: hours, memory, storage, price, critical path, wall time by workers."""

import heapq
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from raypipe.errors import UserError
from raypipe.progress import duration
from raypipe.search.costs import STAGES, Calibration, Cost

WORKERS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000)
START = 10.0  # Seconds until the driver has imported everything and Ray has started (measured: 4, and 6 to 8)
DISPATCH = 0.03  # Driver seconds a trial: Tune's bookkeeping with kept workers (measured: 34-40 no-op trials a second)
FRESH = 5.0
"""Core seconds of a fresh worker process until it has imported what its first trial needs (measured: 4 to 6)."""
SAVED = {
    "simulate": "one simulation",
    "encoder": "one encoder a configuration",
    "latents": "one latent table a configuration",
    "background": "shared flows",
}


@dataclass(frozen=True)
class ScanPlan:
    """The estimate. Hours are core hours of the calibrated machine unless they say GPU."""

    trials: int
    encoders: int  # Each with its own latent table; none where a search has no encoder
    events_per_trial: float
    trial_seconds: dict[str, float]  # Core seconds of one trial of each kind, its flows given
    hours: dict[str, float]  # Core hours by stage
    cpu_hours: float  # Core hours of what runs on cores
    gpu_hours: float  # GPU hours: networks, and what trials do while they hold a share of a GPU
    saved: dict[str, float]  # Core hours that each reuse saves: what every trial would pay if it made its own
    saved_gpu: dict[str, float]  # The same in GPU hours, of what runs on GPUs
    memory_gib: dict[str, float]
    storage_gib: dict[str, float]
    cost: float
    wall_seconds: dict[int, float]
    """By number of workers: one core each, with the GPU share that the configuration gives them."""
    critical: dict[str, float]
    """Seconds of the longest item of every stage: what no number of workers does side by side."""
    assumptions: list[str]  # What is extrapolated from the measurements, or assumed
    calibration: dict[str, Any]


@dataclass(frozen=True)
class Item:
    """Seconds of one of the equal items of a cost."""

    cost: Cost
    cores: float  # What stays on a core
    networks: float  # What moves to a GPU; core seconds
    speedup: float

    @property
    def core_seconds(self) -> float:
        """Without a GPU."""
        return self.cores + self.networks

    @property
    def gpu_seconds(self) -> float:
        """GPU seconds: networks at a whole GPU's speed, and the share that is held in the meantime."""
        return self.networks / self.speedup + self.cores * self.cost.gpus

    @property
    def waits(self) -> float:
        """Wall seconds: a share of a GPU does its share of the speed-up."""
        return self.cores + (self.networks / (self.speedup * self.cost.gpus) if self.cost.gpus else self.networks)

    @property
    def longest(self) -> float:
        """Wall seconds that no number of workers makes shorter."""
        return self.waits * min(self.cost.together, self.cost.items) / self.cost.pieces


def plan(
    costs: Sequence[Cost],
    measured: Calibration,
    object_store_gib: float,
    *,
    configurations: int = 1,
    price: float = 0.0,
    gpu_price: float = 0.0,
    gpu_speedup: float = 50.0,
) -> ScanPlan:
    """Estimate a scan from a calibration; tables of one trial that no node can hold are a `UserError`.

    ``configurations``: how often all but the simulation is done; ``price``, ``gpu_price``: of an hour; ``gpu_speedup``:
    one GPU over one core, for networks.
    """
    work = []
    for cost in costs:
        items = cost.items if cost.stage == "simulate" else configurations * cost.items  # all share the events
        cores, networks = (sum(measured.seconds(p) for p in cost.parts if p.network == gpu) for gpu in (False, True))
        cost = replace(cost, items=items, alone=configurations * cost.alone)
        work.append(Item(cost, cores, networks, gpu_speedup))
    tables = sum(item.cost.store for item in work) / 2**30
    if tables > object_store_gib:
        why = f"the tables that one trial reads take {tables:.3g} GiB of a node; give nodes more, or simulate less"
        raise UserError(f"resources.object_store_gib = {object_store_gib:g}: {why}")

    def by_stage(value: Callable[[Item], float]) -> dict[str, float]:
        totals = {stage: sum(value(item) for item in work if item.cost.stage == stage) for stage in STAGES}
        return {stage: total for stage, total in totals.items() if total}

    trials = [item for item in work if item.cost.stage == "trial"]
    hours = by_stage(lambda item: item.cost.items * item.core_seconds / 3600)
    cpu_hours = sum(item.cost.items * item.cores for item in work) / 3600
    gpu_hours = sum(item.cost.items * item.gpu_seconds for item in work) / 3600
    saved = by_stage(lambda item: max(0, item.cost.alone - item.cost.items) * item.core_seconds / 3600)
    saved_gpu = by_stage(lambda item: max(0, item.cost.alone - item.cost.items) * item.gpu_seconds / 3600)
    disk = by_stage(lambda i: i.cost.items * sum(measured.parts[p.name].disk.at(p.units) for p in i.cost.parts))
    critical = {stage: max(i.longest for i in work if i.cost.stage == stage) for stage in hours}
    worker = (measured.worker_bytes + max(item.cost.memory for item in work)) / 2**30
    return ScanPlan(
        trials=sum(item.cost.items for item in trials),
        encoders=sum(item.cost.items for item in work if item.cost.stage == "encoder"),
        events_per_trial=trials[0].cost.parts[0].units,
        trial_seconds={_title(item.cost): item.core_seconds for item in trials},
        hours=hours,
        cpu_hours=cpu_hours,
        gpu_hours=gpu_hours,
        saved={SAVED[stage]: value for stage, value in saved.items()},
        saved_gpu={SAVED[stage]: value for stage, value in saved_gpu.items()},
        memory_gib={"a node's tables": tables, "worker": worker},
        storage_gib={stage: size / 2**30 for stage, size in disk.items()},
        cost=cpu_hours * price + gpu_hours * gpu_price,
        wall_seconds={n: wall_seconds(work, n) for n in WORKERS},
        critical=critical,
        assumptions=_assumptions(work, measured, gpu_speedup),
        calibration=asdict(measured),
    )


def _title(cost: Cost) -> str:
    """Name of a kind of trial."""
    (part,) = cost.parts
    return part.name + (f", {part.times:g} encoders" if part.trees and part.times > 1 else "")


def _assumptions(work: Sequence[Item], measured: Calibration, speedup: float) -> list[str]:
    """What is not measured, in words."""
    parts = {part.name: part for item in work for part in item.cost.parts}
    beyond = {name: part.units / measured.parts[name].largest for name, part in parts.items()}
    far = [f"{name} {factor:.3g} times" for name, factor in beyond.items() if factor > 1]
    found = ["trainings run all their epochs; early stopping makes them shorter"] if len(parts) > 1 else []
    if far:
        found.append(f"beyond the largest measured, trees in proportion and the rest by its line: {', '.join(far)}")
    if any(item.networks for item in work):
        found.append(f"one GPU does the networks of {speedup:g} such cores (assumed, not measured here)")
    return found


def wall_seconds(work: Sequence[Item], workers: int) -> float:
    """Wall time with so many one-core workers: stage after stage, the next item or piece to whoever is free."""
    now = START
    for stage in STAGES:
        here, trials = [item for item in work if item.cost.stage == stage], stage == "trial"
        if not here:
            continue
        share = max(1, workers // sum(item.cost.items for item in here))
        free, handed = [now + FRESH * trials] * workers, now
        for item in here:
            cost, pieces = item.cost, min(item.cost.pieces, share)
            for first in range(0, cost.items, cost.together):
                made = min(cost.together, cost.items - first)
                for _ in range(pieces):
                    handed += DISPATCH * made * trials
                    end = max(free[0], handed) + made * item.waits / pieces
                    heapq.heapreplace(free, end)
                    now = max(now, end)
    return now


def lines(estimate: ScanPlan) -> list[str]:
    """The plan for people."""

    def joined(values: dict[str, float], form: str) -> str:
        return ", ".join(f"{name} {format(value, form)}" for name, value in values.items())

    def lasting(values: dict[Any, float], what: str) -> str:
        return ", ".join(f"{what.format(name)} {duration(value)}" for name, value in values.items())

    longest = {STAGES[stage]: seconds for stage, seconds in estimate.critical.items()}
    cost = f", cost {estimate.cost:.2f}" if estimate.cost else ""
    events = f" of {estimate.events_per_trial:.0f} events each" if estimate.events_per_trial > 1 else ""
    encoders = f", {estimate.encoders} encoder(s) with their latent tables" if estimate.encoders else ""
    return [
        f"{estimate.trials} trials{events}{encoders}",
        f"core seconds of a trial: {joined(estimate.trial_seconds, '.1f')}",
        f"core hours: {joined(estimate.hours, '.3g')}",
        f"on cores {estimate.cpu_hours:.4g} h, on GPUs {estimate.gpu_hours:.4g} h{cost}",
        *([f"saved by reuse, core hours: {joined(estimate.saved, '.3g')}"] if estimate.saved else []),
        *([f"saved by reuse, GPU hours: {joined(estimate.saved_gpu, '.3g')}"] if estimate.saved_gpu else []),
        f"memory, GiB: {joined(estimate.memory_gib, '.2f')}",
        f"storage, GiB: {joined(estimate.storage_gib, '.2f')}",
        f"wall time: {lasting(estimate.wall_seconds, '{} workers')}",
        f"cannot run side by side: {lasting(longest, 'one {}')}, together {duration(sum(estimate.critical.values()))}",
        *(f"assumed: {text}" for text in estimate.assumptions),
    ]
