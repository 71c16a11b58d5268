"""What a scan will cost before anything is paid: trials, hours, memory, storage, price and wall time by workers."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from raypipe.cluster.calibration import Calibration, Line
from raypipe.cluster.work import Work, shards_of, work_of
from raypipe.errors import UserError
from raypipe.store.status import duration

WORKERS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000)
START = 10.0
"""Seconds until the driver has imported everything and Ray has started (measured: 4, and 6 to 8)."""
DISPATCH = 0.03
"""Driver seconds a trial: Tune's bookkeeping with kept workers (measured: 34-40 no-op trials a second)."""
KEPT = "kept flows, when only what follows them changes"
WORK_COPIES = 8
"""Times a trial's events are held by its process at the peak: data, template, folds, scores."""


@dataclass(frozen=True)
class ScanPlan:
    """The estimate. Hours are core hours of the calibrated machine unless they say GPU."""

    trials: int
    configurations: int
    """Encoders, each with its own latent table; none where a search has no encoder."""
    events_per_trial: float
    seconds_per_trial: float
    """Core seconds of a trial that trains, as the ledger will have them on average: `trial_seconds`, and its share of
    what the first trial of every worker process takes more."""
    trial_seconds: dict[str, float]
    """By stage, in a process that is warm."""
    processes: int
    """Worker processes that this machine starts for the trials: Tune keeps one for many trials, not for all."""
    hours: dict[str, float]
    """Core hours by stage of the whole scan; ``workers`` is what those processes take before their first trial."""
    cpu_hours: float
    """Core hours of what runs on cores."""
    gpu_hours: float
    """Hours of what runs on GPUs (encoder, and what trials train where they have a GPU share)."""
    saved: dict[str, float]
    """Core hours that each reuse saves: what it would cost to do the stage again for every trial."""
    saved_gpu: dict[str, float]
    """The same in GPU hours, of what runs on GPUs."""
    memory_gib: dict[str, float]
    storage_gib: dict[str, float]
    cost: float
    wall_seconds: dict[int, float]
    """By number of workers: one core each, with the GPU share that the configuration gives them."""
    measured: list[str]
    """What was run on this machine."""
    assumptions: list[str]
    """What is extrapolated from it or assumed."""
    calibration: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self) | {"wall_seconds": {str(k): v for k, v in self.wall_seconds.items()}}


def plan(
    config: Any,
    measured: Calibration,
    *,
    configurations: int = 1,
    price: float = 0.0,
    gpu_price: float = 0.0,
    gpu_speedup: float = 50.0,
) -> ScanPlan:
    """Estimate a scan from a calibration.

    Args:
        configurations: how often the whole is done, each time with its own encoders and grid of trials.
        price: of a core hour; gpu_price: of a GPU hour.
        gpu_speedup: one GPU over one core of the calibrated machine, for networks.

    Raises:
        UserError: a calibration of another search.
    """
    if measured.search != config.search:
        raise UserError(f"calibration: of a {measured.search} search, not of search = {config.search!r}")
    work, shards = work_of(config, measured, configurations), shards_of(config)
    simulate = _simulate_seconds(config, measured, shards)
    warm = work.trials_seconds / work.trials
    processes = sum(work.starts(work.slots, warm))
    first = processes * measured.first_trial
    hours = {
        "simulate": simulate / 3600,
        "encoder": work.encoders * work.encoder / 3600,
        "embed": work.encoders * work.embed / 3600,
        "workers": processes * measured.worker_start / 3600,
        "trials": (work.trials_seconds + first) / 3600,
    }
    networks = {name: hours[name] for name in ("encoder", "embed")} if work.encoders_on_gpu else {}
    if work.gpu_share:
        networks["trials"] = work.trained_seconds / 3600
    on_gpu = sum(networks.values())
    # What a worker waits for: a share of a GPU does its share of the speed-up.
    waits = hours | {name: value / gpu_speedup for name, value in networks.items() if name != "trials"}
    trial = warm
    if work.gpu_share:
        trial += work.trained_seconds / work.trials * (1 / (gpu_speedup * work.gpu_share) - 1)
    # A trial on a share of a GPU holds that share all the time, not only while its networks train.
    held = ((work.trials_seconds - work.trained_seconds + first) / 3600 + hours["workers"]) * work.gpu_share
    cpu_hours, gpu_hours = sum(hours.values()) - on_gpu, on_gpu / gpu_speedup + held
    saved = _saved(work, simulate)
    faster = {"one encoder a configuration": "encoder", "one latent table a configuration": "embed", KEPT: "trials"}
    events = sum(size.events for size in config.simulate.samples.values()) if config.simulate else 0
    assumptions = list(work.extrapolated)
    if work.trained == "flow":
        assumptions.append("every flow trains all its epochs; early stopping makes it shorter")
    if on_gpu:
        assumptions.append(f"one GPU does the networks of {gpu_speedup:g} such cores (assumed, not measured here)")
    parallel = {
        "simulate": max(1, sum(shards.values())),
        "encoder": max(1, work.encoders * work.encoder_workers),
        "embed": work.embed_pieces,
    }
    packs = math.ceil(work.trials / work.pack)
    fresh = measured.worker_start + measured.first_trial
    assumptions.append(
        f"{processes} worker processes on this machine's {work.slots} slot(s), each {measured.worker_start:.1f} core "
        f"seconds until its first trial and {measured.first_trial:.1f} more in it"
    )
    return ScanPlan(
        work.trials,
        work.encoders,
        work.events,
        work.trial + first / work.trials,
        work.seconds,
        processes,
        hours,
        cpu_hours,
        gpu_hours,
        saved,
        {name: value / gpu_speedup for name, value in saved.items() if faster.get(name) in networks},
        {
            "a node's tables": _node_gib(config, work),
            "all tables": max(1, work.encoders) * work.table_bytes / 2**30,
            "worker": (measured.worker_bytes + WORK_COPIES * work.trial_bytes) / 2**30,
        },
        {
            "events": 2 * events * measured.event_bytes / 2**30,  # shards and tables
            "latents": work.encoders * work.table_bytes / 2**30,
            "ledger": work.trials * measured.trial_bytes / 2**30,
        },
        cpu_hours * price + gpu_hours * gpu_price,
        {
            n: wall_seconds(waits, parallel, packs, work.pack * trial, n) + len(work.starts(n, trial)) * fresh
            for n in WORKERS
        },
        measured.measured,
        assumptions,
        measured.as_dict(),
    )


def _node_gib(config: Any, work: Work) -> float:
    """Latent tables in the object store of a node that runs trials: those of one trial at least.

    Raises:
        UserError: they do not fit.
    """
    tables = max(1, work.encoders_a_trial)
    gib, there = tables * work.table_bytes / 2**30, config.resources.object_store_gib
    if gib > there:
        found = f"the {tables} latent table(s) of a trial take {gib:.3g} GiB of every node's"
        raise UserError(f"resources.object_store_gib = {there:g}: {found}; give nodes more, or simulate less")
    return gib


def _simulate_seconds(config: Any, measured: Calibration, shards: dict[str, int]) -> float:
    """Core seconds of all shards."""
    if not shards or not measured.simulate:
        return 0.0
    known = measured.simulate.values()
    mean = Line(sum(line.start for line in known) / len(known), sum(line.each for line in known) / len(known))
    total = 0.0
    for name, size in config.simulate.samples.items():
        line = measured.simulate.get(name, mean)
        total += shards[name] * line.start + size.events * line.each
    return total


def _saved(work: Work, simulate: float) -> dict[str, float]:
    """Core hours that each reuse saves."""
    saved = {"one simulation": (work.trials - 1) * simulate / 3600}
    if work.encoders:
        more = work.trials * work.encoders_a_trial - work.encoders
        saved |= {
            "one encoder a configuration": more * work.encoder / 3600,
            "one latent table a configuration": more * work.embed / 3600,
            KEPT: work.trained_seconds / 3600,
        }
    return saved


def wall_seconds(hours: dict[str, float], parallel: dict[str, int], trials: int, trial: float, workers: int) -> float:
    """Wall time with so many one-core workers, once started: stages one after another, trials in whole rounds.

    No stage uses more workers than it has pieces, and the driver hands out trials one at a time.
    """
    before = sum(3600 * hours[name] / min(workers, parallel[name]) for name in ("simulate", "encoder", "embed"))
    rounds = math.ceil(trials / workers)
    return START + before + max(rounds * trial, DISPATCH * trials)


def lines(estimate: ScanPlan) -> list[str]:
    """The plan for people."""

    def joined(values: dict[str, float], form: str) -> str:
        return ", ".join(f"{name} {format(value, form)}" for name, value in values.items())

    out = [
        f"{estimate.trials} trials of about {estimate.seconds_per_trial:.1f} core seconds "
        f"({', '.join(f'{name} {value:.1f} s' for name, value in estimate.trial_seconds.items())}), "
        f"{estimate.events_per_trial:.0f} events each"
        + (f", {estimate.configurations} encoder(s) with their latent tables" if estimate.configurations else ""),
        f"core hours: {joined(estimate.hours, '.3g')}",
        f"on cores {estimate.cpu_hours:.4g} h, on GPUs {estimate.gpu_hours:.4g} h"
        + (f", cost {estimate.cost:.2f}" if estimate.cost else ""),
        f"saved by reuse, core hours: {joined(estimate.saved, '.3g')}",
        *([f"saved by reuse, GPU hours: {joined(estimate.saved_gpu, '.3g')}"] if estimate.saved_gpu else []),
        f"memory, GiB: {joined(estimate.memory_gib, '.2f')}",
        f"storage, GiB: {joined(estimate.storage_gib, '.2f')}",
        "wall time: " + ", ".join(f"{n} workers {duration(s)}" for n, s in estimate.wall_seconds.items()),
    ]
    out += [f"measured here: {text}" for text in estimate.measured]
    return out + [f"extrapolated or assumed: {text}" for text in estimate.assumptions]
