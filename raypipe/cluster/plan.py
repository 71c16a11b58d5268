"""What a scan will cost before anything is paid: trials, hours, memory, storage, price and wall time by workers."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from raypipe.cluster.calibrate import Calibration, window_events
from raypipe.cluster.scan import grid_of, sample_groups
from raypipe.cluster.watch import duration
from raypipe.config import Config
from raypipe.search.embeddings import representation

WORKERS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000)
START = 15.0
"""Seconds until Ray and the first workers have started and imported everything."""
DISPATCH = 0.03
"""Driver seconds a trial: Tune's bookkeeping with kept workers (measured: 34-40 no-op trials a second)."""
WORK_COPIES = 8
"""Times a trial's events are held by its process at the peak: data, template, folds, scores."""


@dataclass(frozen=True)
class ScanPlan:
    """The estimate. Hours are core hours of the calibrated machine unless they say GPU."""

    trials: int
    configurations: int
    """Encoders, each with its own latent table."""
    events_per_trial: float
    seconds_per_trial: float
    """Core seconds."""
    trial_seconds: dict[str, float]
    """By stage."""
    hours: dict[str, float]
    """Core hours by stage of the whole scan."""
    cpu_hours: float
    """Core hours of what runs on cores."""
    gpu_hours: float
    """Hours of what runs on GPUs (encoder, and flows where trials have a GPU share)."""
    saved: dict[str, float]
    """Core hours that each reuse saves: what it would cost to do the stage again for every trial."""
    memory_gib: dict[str, float]
    storage_gib: dict[str, float]
    cost: float
    wall_seconds: dict[int, float]
    """By number of workers: one core each, with the GPU share that the configuration gives them."""
    assumptions: list[str]
    calibration: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self) | {"wall_seconds": {str(k): v for k, v in self.wall_seconds.items()}}


def trial_seconds(config: Config, measured: Calibration) -> dict[str, float]:
    """Core seconds of one trial by stage."""
    events = window_events(config, measured.yield_per_fb)
    stages = {name: line.at(events) for name, line in measured.trial.items()}
    one = {"flow": measured.flow_event * events * config.flow.epochs, **stages}
    return {name: seconds * config.embedding.encoders for name, seconds in one.items()}


def plan(
    config: Config, measured: Calibration, *, configurations: int = 1, price: float = 0.0, gpu_price: float = 0.0,
    gpu_speedup: float = 50.0,
) -> ScanPlan:  # fmt: skip
    """Estimate a scan from a calibration.

    Args:
        configurations: how often the whole is done, each time with its own encoders and grid of trials.
        price: of a core hour; gpu_price: of a GPU hour.
        gpu_speedup: one GPU over one core of the calibrated machine, for networks.
    """
    embedding = config.embedding
    grid = grid_of(config)
    trials = configurations * len(grid)
    groups = sample_groups()
    # The nine raw features need no encoder of their own.
    configurations *= len({representation(trial, groups) for trial in grid} - {"raw"}) * embedding.encoders
    each = trial_seconds(config, measured)
    total = sum(each.values())
    samples = config.simulate.samples
    mean = sum(line.each for line in measured.simulate.values()) / len(measured.simulate)
    start = sum(line.start for line in measured.simulate.values()) / len(measured.simulate)
    shards = {name: math.ceil(size.events / config.simulate.shard_events) for name, size in samples.items()}
    simulate = 0.0
    for name, size in samples.items():
        line = measured.simulate.get(name)
        simulate += shards[name] * (line.start if line else start) + size.events * (line.each if line else mean)
    batch, steps = embedding.batch_size, embedding.steps_per_epoch * embedding.epochs
    # Validation is at most eight batches an epoch, forward only: a third of a step.
    validation = min(8, embedding.steps_per_epoch) * embedding.epochs / 3
    encoder = (steps + validation) * (measured.train_event * batch + measured.train_pair * batch**2)
    events = sum(size.events for size in samples.values())
    embed = measured.embed_event * events
    hours = {
        "simulate": simulate / 3600, "encoder": configurations * encoder / 3600,
        "embed": configurations * embed / 3600, "trials": trials * total / 3600,
    }  # fmt: skip
    on_gpu = (hours["encoder"] + hours["embed"]) if config.resources.gpu else 0.0
    if config.resources.trial_gpus:
        on_gpu += trials * each["flow"] / 3600
    cpu_hours, gpu_hours = sum(hours.values()) - on_gpu, on_gpu / gpu_speedup
    # What a worker waits for: a share of a GPU does its share of the speed-up.
    waits, trial = dict(hours), total
    if config.resources.gpu:
        waits |= {name: hours[name] / gpu_speedup for name in ("encoder", "embed")}
    if config.resources.trial_gpus:
        trial += each["flow"] * (1 / (gpu_speedup * config.resources.trial_gpus) - 1)
    # A trial on a share of a GPU holds that share all the time, not only while its flow trains.
    held = trials * (total - each["flow"]) / 3600 * config.resources.trial_gpus
    gpu_hours += held
    latent_bytes = events * (8 + 8 + 8 + 4 * (embedding.encoder.latent + 9))
    busy_bytes = window_events(config, measured.yield_per_fb) * (8 + 8 + 4 * (embedding.encoder.latent + 9))
    saved = {
        "one encoder a configuration": (trials - configurations) * encoder / 3600,
        "one latent table a configuration": (trials - configurations) * embed / 3600,
        "one simulation": (trials - 1) * simulate / 3600,
        "kept flows, when only what follows them changes": trials * each["flow"] / 3600,
    }
    assumptions = ["every flow trains all its epochs; early stopping makes it shorter"]
    if config.resources.gpu or config.resources.trial_gpus:
        assumptions.append(f"one GPU does the networks of {gpu_speedup:g} such cores (assumed, not measured here)")
    parallel = {
        "simulate": sum(shards.values()),
        "encoder": configurations * config.resources.train_workers, "embed": max(1, events // 4096), "trials": trials,
    }  # fmt: skip
    return ScanPlan(
        trials, configurations, window_events(config, measured.yield_per_fb), total, each, hours, cpu_hours, gpu_hours,
        saved,
        {"object store": latent_bytes / 2**30,
         "worker": (measured.worker_bytes + WORK_COPIES * busy_bytes) / 2**30},
        {"events": 2 * events * measured.event_bytes / 2**30,  # shards and tables
         "latents": configurations * latent_bytes / 2**30, "ledger": trials * measured.trial_bytes / 2**30},
        cpu_hours * price + gpu_hours * gpu_price,
        {workers: wall_seconds(waits, parallel, trials, trial, workers) for workers in WORKERS}, assumptions,
        measured.as_dict(),
    )  # fmt: skip


def wall_seconds(
    hours: dict[str, float], parallel: dict[str, int], trials: int, trial: float, workers: int
) -> float:  # fmt: skip
    """Wall time with so many one-core workers: stages one after another, trials in whole rounds.

    No stage uses more workers than it has pieces, and the driver hands out trials one at a time.
    """
    before = sum(3600 * hours[name] / min(workers, parallel[name]) for name in ("simulate", "encoder", "embed"))
    rounds = math.ceil(trials / workers)
    return START + before + max(rounds * trial, DISPATCH * trials)


def lines(estimate: ScanPlan) -> list[str]:
    """The plan for people."""
    stages = ", ".join(f"{name} {value:.1f} s" for name, value in estimate.trial_seconds.items())
    out = [
        f"{estimate.trials} trials of about {estimate.seconds_per_trial:.1f} core seconds ({stages}), "
        f"{estimate.events_per_trial:.0f} events each, {estimate.configurations} configuration(s)",
        "core hours: " + ", ".join(f"{name} {value:.3g}" for name, value in estimate.hours.items()),
        f"on cores {estimate.cpu_hours:.4g} h, on GPUs {estimate.gpu_hours:.4g} h"
        + (f", cost {estimate.cost:.2f}" if estimate.cost else ""),
        "saved by reuse, core hours: " + ", ".join(f"{name} {value:.3g}" for name, value in estimate.saved.items()),
        "memory: " + ", ".join(f"{name} {value:.2f} GiB" for name, value in estimate.memory_gib.items()),
        "storage: " + ", ".join(f"{name} {value:.2f} GiB" for name, value in estimate.storage_gib.items()),
        "wall time: " + ", ".join(f"{n} workers {duration(s)}" for n, s in estimate.wall_seconds.items()),
    ]
    return out + [f"assumed: {text}" for text in estimate.assumptions]
