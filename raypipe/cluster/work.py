"""What the scan of a configuration consists of: trials, encoders, and the core seconds of each from a calibration."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from raypipe.cluster.calibrate_cathode import window_events
from raypipe.cluster.calibrate_networks import expected_events
from raypipe.cluster.calibration import Calibration, Line
from raypipe.cluster.embed import BATCH
from raypipe.cluster.engine import worker_starts
from raypipe.cluster.machine import usable_cores
from raypipe.config import Resources
from raypipe.kinds import BACKGROUNDS
from raypipe.search.base import search_of
from raypipe.search.diphoton import sample_groups
from raypipe.search.embeddings import representation
from raypipe.search.result import NO_SIGNAL

FEATURES = 9
"""Event features beside the latents in a latent table."""


@dataclass(frozen=True)
class Work:
    """One scan, before anything of it is done. Seconds are core seconds of the calibrated machine."""

    trials: int
    events: float
    """Background events of a trial."""
    trained: str
    """Name of the stage of a trial that trains networks and moves to a GPU: ``flow`` or ``networks``."""
    seconds: dict[str, float]
    """Of a trial, by stage."""
    trainings: int = 0
    """How often the stage ``trained`` is done: trials that share it do it once."""
    null_trials: int = 0
    """Trials without a signal, which also test closure."""
    closure: float = 0.0
    """Seconds of that test."""
    light: int = 0
    """Trials that train nothing: they know the background, or need none."""
    light_seconds: float = 0.0
    """Of such a trial."""
    pack: int = 1
    """Trials that one task runs together."""
    pack_seconds: float | None = None
    """Work that the scan engine gives a worker at once; none where chunks go to workers without windows."""
    scans: int = 1
    """Scans that these trials are."""
    slots: int = 1
    """Workers of this machine."""
    gpu_share: float = 0.0
    """GPUs that a trial holds."""
    encoders: int = 0
    """Encoders, each with its own latent table."""
    encoders_a_trial: int = 0
    """Encoders that a trial would have to train if there were no others."""
    encoder: float = 0.0
    """Seconds of one encoder."""
    encoder_workers: int = 1
    """Workers that can train one."""
    embed: float = 0.0
    """Seconds of one latent table."""
    embed_pieces: int = 1
    """Workers that can make one."""
    encoders_on_gpu: bool = False
    table_bytes: float = 0.0
    """Of one latent table, or of the pools."""
    trial_bytes: float = 0.0
    """Of the events of one trial."""
    extrapolated: list[str] = field(default_factory=list)
    """In words."""

    @property
    def trial(self) -> float:
        """Seconds of a trial that trains."""
        return sum(self.seconds.values())

    @property
    def trained_seconds(self) -> float:
        """Of all trials, in the stage that trains."""
        return self.trainings * self.seconds[self.trained]

    @property
    def trials_seconds(self) -> float:
        """Of all trials."""
        after = (self.trials - self.light) * (self.trial - self.seconds[self.trained])
        return self.trained_seconds + after + self.light * self.light_seconds + self.null_trials * self.closure

    def starts(self, slots: int, trial: float) -> list[int]:
        """Fresh worker processes, window after window of all scans, with so many workers and seconds a trial."""
        trials = math.ceil(self.trials / self.scans)
        if self.pack_seconds is None:
            return [min(slots, math.ceil(trials / self.pack))] * self.scans
        return worker_starts(trials, trial, slots, self.pack_seconds) * self.scans


def slots_of(resources: Resources) -> int:
    """Workers that this machine has for trials."""
    return max(1, math.floor((resources.cpus or usable_cores()) / resources.trial_cpus))


def work_of(config: Any, measured: Calibration, configurations: int = 1) -> Work:
    """What a configuration asks for.

    Args:
        configurations: how often the whole is done, each time with its own encoders and grid of trials.
    """
    if config.search == "multilepton":
        return _multilepton(config, measured, configurations)
    return _cathode(config, measured, configurations)


def trial_seconds(config: Any, measured: Calibration) -> dict[str, float]:
    """Core seconds of one trial with a signal by stage, the training first."""
    if config.search == "multilepton":
        events = expected_events(config, measured.yield_per_fb)
        trained, epochs, times = "networks", config.networks.epochs, 1
    else:
        events = window_events(config, measured.yield_per_fb)
        trained, epochs, times = "flow", config.flow.epochs, getattr(config.embedding, "encoders", 1)
    lines = {name: line for name, line in measured.trial.items() if name != "closure"}
    stages = {name: _stretched(line, events, measured.largest) for name, line in lines.items()}
    one = {trained: measured.epoch_event * events * epochs, **stages}
    return {name: seconds * times for name, seconds in one.items()}


def _stretched(line: Line, events: float, largest: float) -> float:
    """Seconds of a stage: by its line among the sizes measured, in proportion to the events beyond them.

    Trees stop the earlier the better the background model is, and it is better with more events: the slope of two
    sizes may be nothing but that, and must not be drawn out to thirty times the larger one.
    """
    return line.at(events) if events <= largest else line.at(largest) * events / largest


def _cathode(config: Any, measured: Calibration, configurations: int) -> Work:
    grid, groups = search_of(config).grid(), sample_groups()
    embedding, each = config.embedding, trial_seconds(config, measured)
    sizes = config.simulate.samples
    simulated = sum(size.events for size in sizes.values())
    haxad = config.search == "haxad"
    members = 1 if haxad else embedding.encoders
    # The nine raw features need no encoder of their own.
    spaces = len({representation(trial, groups) for trial in grid} - {"raw"})
    if haxad:
        rarest = min(sizes[name].events * sizes[name].embedding_fraction for name in embedding.samples)
        events = rarest * embedding.train_fraction * len(embedding.samples)
        encoder, latent = embedding.epochs * events * measured.train_event, embedding.latent
    else:
        batch, steps = embedding.batch_size, embedding.steps_per_epoch * embedding.epochs
        # Validation is at most eight batches an epoch, forward only: a third of a step.
        validation = min(8, embedding.steps_per_epoch) * embedding.epochs / 3
        encoder = (steps + validation) * (measured.train_event * batch + measured.train_pair * batch**2)
        latent = embedding.encoder.latent
    drawn = window_events(config, measured.yield_per_fb)
    light = sum(not BACKGROUNDS[trial.method].learns for trial in grid)
    known = {"flow", "sampling"}
    flows = [trial for trial in grid if BACKGROUNDS[trial.method].learns]
    shared = {(representation(trial, groups), trial.instance) for trial in flows}
    closure = _stretched(measured.trial.get("closure", Line(0.0, 0.0)), drawn, measured.largest) * members
    return Work(
        trials=configurations * len(grid),
        events=drawn,
        trained="flow",
        seconds=each,
        trainings=configurations * len(shared if config.flow.share else flows),
        null_trials=configurations * sum(trial.signal == NO_SIGNAL for trial in grid),
        closure=closure,
        light=configurations * light,
        light_seconds=sum(seconds for name, seconds in each.items() if name not in known),
        pack_seconds=config.resources.pack_seconds,
        scans=configurations,
        slots=slots_of(config.resources),
        gpu_share=config.resources.trial_gpus,
        encoders=configurations * spaces * members,
        encoders_a_trial=members,
        # The autoencoder is trained, and its events embedded, by the driver alone.
        encoder=encoder,
        encoder_workers=1 if haxad else config.resources.train_workers,
        embed=measured.embed_event * simulated,
        embed_pieces=1 if haxad else max(1, simulated // BATCH),
        encoders_on_gpu=config.resources.gpu and not haxad,
        table_bytes=simulated * (8 + 8 + 8 + 4 * (latent + FEATURES)),
        trial_bytes=drawn * (8 + 8 + 4 * (latent + FEATURES)),
        extrapolated=_extrapolated(drawn, measured, config.flow.epochs, "flow"),
    )


def _multilepton(config: Any, measured: Calibration, configurations: int) -> Work:
    events = expected_events(config, measured.yield_per_fb)
    sizes = config.simulate.samples.values() if config.simulate is not None else ()
    columns = 8 * (len(config.features) + 2)
    trials = configurations * len(search_of(config).grid())
    return Work(
        trials=trials,
        events=events,
        trained="networks",
        trainings=trials,
        seconds=trial_seconds(config, measured),
        pack=config.chunk,
        scans=configurations,
        slots=slots_of(config.resources),
        gpu_share=config.resources.trial_gpus or float(config.resources.gpu),
        table_bytes=columns * sum(size.events for size in sizes),
        trial_bytes=config.chunk * columns * events * (1 + config.compare.reference_ratio),
        extrapolated=_extrapolated(events, measured, config.networks.epochs, "networks"),
    )


def _extrapolated(events: float, measured: Calibration, epochs: int, what: str) -> list[str]:
    """What of a trial was not run."""
    beyond = events / measured.largest
    size = f"{beyond:.1f} times the largest measured" if beyond > 1 else "within the sizes measured"
    found = [f"trials of {events:.0f} events ({size}) and {epochs} epochs of the {what}, in proportion to both"]
    if measured.simulate:
        found.append("samples that were not generated: the mean of those that were")
    return found


def shards_of(config: Any) -> dict[str, int]:
    """Simulated shards by sample; none where the events are there already."""
    if config.simulate is None:
        return {}
    return {name: math.ceil(s.events / config.simulate.shard_events) for name, s in config.simulate.samples.items()}
