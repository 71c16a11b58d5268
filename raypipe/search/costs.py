"""What a scan consists of: things to make, stage after stage, and how to find out what each costs."""

from __future__ import annotations

import contextlib
import math
import platform
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from pydantic import TypeAdapter, ValidationError

from raypipe.errors import UserError
from raypipe.search import pilots
from raypipe.search.base import Search
from raypipe.search.contrastive import CONTINUUM
from raypipe.search.result import ALONE, NO_SIGNAL
from raypipe.simulate import dataset

STAGES = {
    "simulate": "shard",
    "encoder": "encoder",
    "latents": "piece of a latent table",
    "background": "flow set",
    "trial": "trial",
}
"""In the order of the work, each with the smallest thing that one worker makes; a stage waits for the one before."""
CHUNK = 4096  # Events embedded by one worker at a time
COPIES = 8  # Times a trial's events are held by its process at the peak: data, template, folds, scores
EPOCHS = 20  # Most epochs of a small comparison


@dataclass(frozen=True)
class Part:
    """Work that takes a time linear in its units; parts of one name are timed once."""

    name: str
    unit: str  # What is counted, in words
    units: float  # Of one item
    probe: pilots.Probe  # Does a small one
    sizes: tuple[int, int]  # Of small ones
    times: float = 1.0  # How often an item needs it, such as steps; below one where a probe makes several items
    network: bool = False  # Whether it moves to a GPU
    trees: bool = False
    """Whether it grows in proportion to its units beyond the sizes, not by the line through them: with more events the
    background model is better and trees stop earlier."""


@dataclass(frozen=True)
class Cost:
    """Equal items of one stage."""

    stage: str
    items: int
    parts: tuple[Part, ...]  # Of one item, one after the other
    pieces: int = 1  # Workers that one item can use
    together: int = 1  # Items that a worker makes at once
    gpus: float = 0.0  # GPUs that an item holds while it is made
    alone: int = 0  # Items that there would be if every trial made its own
    store: float = 0.0  # Bytes in the object store of a node, of all items that one trial reads
    memory: float = 0.0  # Bytes of the events in the process that makes an item


def costs_of(search: Search) -> list[Cost]:
    """Of a search that says nothing of its costs, and makes nothing before its trials: some trials, as they are."""
    grid, kind = search.grid(), search.config.search
    if not grid:
        raise UserError(f"search = {kind!r}: it has no scan to plan")
    if search.stages():
        raise UserError(f"search = {kind!r}: its class does not say what its stages cost (Search.costs)")

    def probe(size: int, number: int) -> pilots.Work:
        trials = [grid[k % len(grid)] for k in range(number, number + size)]
        inputs = list(search.inputs(search.need(trials[0]), Path(search.config.output), ALONE))
        return size, lambda: sum(map(pilots.stored, search.run(inputs, trials, ALONE)))

    part = Part("trials", "trial", 1, probe, (1, 2))
    return [Cost("trial", len(grid), (part,), together=max(1, search.together), gpus=search.resources.trial_gpus)]


def simulation_costs(config: Any, background: Sequence[str], trials: int) -> list[Cost]:
    """The shards of every sample; two background samples and a signal are timed, and stand for those like them."""
    samples = dataset.plan(config).samples
    known, found = [*background[:2], *config.scan.signals[:1]], []
    for name, sample in samples.items():
        signal = sample.template.process.group < 0
        like = name if name in known else known[-1] if signal else background[:2][-1]
        probe = pilots.generator(samples[like].template)
        part = Part(f"generator, {like}", "generated event", sample.template.n_generate, probe, (100, 700))
        found.append(Cost("simulate", sample.expected, (part,), alone=trials * sample.expected))
    return found


def contrastive_costs(search: Any) -> list[Cost]:
    """Of the contrastive search (paper C)."""
    given, resources = search.config.embedding, search.config.resources
    pilot, gpu = pilots.ContrastivePilot(search, given.encoder.latent), resources.gpu
    # Validation is at most eight batches an epoch, forward only: a third of a step.
    steps = (given.steps_per_epoch + min(8, given.steps_per_epoch) / 3) * given.epochs
    step = Part("encoder", "event a step", given.batch_size, pilot.encoder, (128, 512), steps, gpu)
    loss = Part("contrastive loss", "pair a step", given.batch_size**2, pilot.loss, (512, 2048), steps, gpu)
    return _cathode_costs(search, pilot, (step, loss), resources.train_workers)


def haxad_costs(search: Search) -> list[Cost]:
    """Of the HAXAD search (paper A), whose driver trains the autoencoder and embeds."""
    given, samples = search.config.embedding, search.config.simulate.samples
    pilot = pilots.HaxadPilot(search, given.latent)
    rarest = min(samples[name].events * samples[name].embedding_fraction for name in given.samples)
    events, epochs = rarest * given.train_fraction * len(given.samples), given.epochs / pilot.EPOCHS
    training = Part("autoencoder", "training event", events, pilot.encoder, (1024, 4096), epochs)
    return _cathode_costs(search, pilot, (training,), 0)


def _cathode_costs(search: Any, pilot: pilots.Pilot, training: tuple[Part, ...], train_workers: int) -> list[Cost]:
    """Encoders, their latent tables, flow sets, trials; ``train_workers``: 0 where the driver trains the encoder."""
    config, resources, grid = search.config, search.config.resources, search.grid()
    seen = [(trial, encoder) for trial in grid for encoder in search.encoders(search.need(trial))]
    flows = [(trial, encoder) for trial, encoder in seen if search.learns(trial)]
    sets = {(search.need(t), t.instance, e) for t, e in flows} if config.flow.share else flows
    background = config.pseudodata.background
    events = config.pseudodata.luminosity * sum(pilots.expected_yields(background).values())
    simulated = sum(size.events for size in config.simulate.samples.values())
    on_gpu, most = training[0].network, max(len(search.encoders(search.need(trial))) for trial in grid)
    each: dict[str, Any] = {"items": len({e for _, e in seen}), "alone": len(seen), "gpus": float(on_gpu)}
    embedding = Part("embedding", "event", simulated, pilot.latents, (500, 2000), network=on_gpu)
    chunks = math.ceil(simulated / CHUNK) if train_workers else 1
    sized = {"unit": "event", "units": events, "sizes": (6000, 24_000)}
    faster = resources.gpu or resources.trial_gpus > 0
    flow = Part("flow set", probe=pilot.flow, times=config.flow.epochs, network=faster, **sized)
    found = [
        *simulation_costs(config, sorted(background, key=lambda name: name != CONTINUUM), len(grid)),
        Cost("encoder", parts=training, pieces=max(1, train_workers), **each),
        Cost("latents", parts=(embedding,), pieces=chunks, store=most * simulated * pilot.row, **each),
        Cost("background", len(sets), (flow,), gpus=float(faster), alone=len(flows)),
    ]
    kinds = Counter((t.method, t.signal != NO_SIGNAL, len(search.encoders(search.need(t)))) for t in grid)
    for (method, signal, members), count in kinds.items():
        name = f"search, {method}" + ("" if signal else ", no signal")
        part = Part(name, probe=pilot.trial(method, signal), times=members, trees=True, **sized)
        found.append(Cost("trial", count, (part,), gpus=resources.trial_gpus, memory=COPIES * pilot.row * events))
    return [cost for cost in found if cost.items]


def multilepton_costs(search: Search) -> list[Cost]:
    """Of the multilepton search (paper B): comparisons, in chunks whose networks are trained together."""
    config, trials, gpus = search.config, len(search.grid()), search.resources.trial_gpus
    events, epochs = _expected(config), min(EPOCHS, config.networks.epochs)
    times, probe = config.networks.epochs / epochs / config.chunk, pilots.comparisons(search, epochs)
    part = Part("comparison", "expected event", events, probe, (300, 1200), times, gpus > 0)
    row = 8 * (len(config.features) + 2)
    pools = row * sum(size.events for size in config.simulate.samples.values()) if config.simulate else 0.0
    memory = config.chunk * row * events * (1 + config.compare.reference_ratio)
    found = simulation_costs(config, config.compare.background, trials) if config.simulate else []
    return [*found, Cost("trial", trials, (part,), 1, config.chunk, gpus, store=pools, memory=memory)]


def _expected(config: Any) -> float:
    """Expected background events of a data set, which the configuration says if the background is the user's own."""
    compare = config.compare
    if compare.expected is not None:
        return compare.expected
    if config.files is not None and config.files.reference is not None:
        raise UserError("compare.expected: how many background events are expected? (a plan reads no tables)")
    yields = pilots.expected_yields(compare.background)
    if config.events is not None:
        samples = dataset.read_manifest(config.events)["samples"]
        yields = {name: samples[name]["yield_per_fb"] for name in compare.background if name in samples}
    return compare.luminosity * sum(yields.values())


REPEATS, SHORT = 3, 5.0
"""A piece of work is timed so often, if that takes less than so many core seconds; the median counts."""
VERSION = 2  # Of the format of a calibration


@dataclass(frozen=True)
class Line:
    """``start + each * units``."""

    start: float
    each: float

    def at(self, units: float) -> float:
        """Its value."""
        return self.start + self.each * units

    @staticmethod
    def through(a: tuple[float, float], b: tuple[float, float]) -> Line:
        """The line through two measurements (units, value), neither coefficient negative."""
        each = max(0.0, (b[1] - a[1]) / (b[0] - a[0]))
        return Line(max(0.0, a[1] - each * a[0]), each)


@dataclass(frozen=True)
class Measured:
    """What a part was found to cost."""

    seconds: Line  # Core seconds against units
    disk: Line  # Bytes against units
    largest: float  # Units of the largest that was done


@dataclass(frozen=True)
class Calibration:
    """What the parts of a search cost on one machine."""

    search: str
    machine: str
    parts: dict[str, Measured]
    worker_bytes: float  # Resident memory of a process that has done all parts
    version: int

    def seconds(self, part: Part) -> float:
        """Core seconds of a part of an item; a `UserError` if it was not measured."""
        if part.name not in self.parts:
            raise UserError(f"calibration: {part.name!r} is not in it; remove it to measure again")
        measured = self.parts[part.name]
        known = min(part.units, measured.largest) if part.trees else part.units
        return part.times * measured.seconds.at(known) * part.units / known

    @staticmethod
    def of(values: Any, search: str) -> Calibration:
        """From what a file holds; a `UserError` if another version of raypipe wrote it, or it is of another search."""
        found = None
        with contextlib.suppress(ValidationError):
            found = TypeAdapter(Calibration).validate_python(values)
        if found is None or found.version != VERSION:
            raise UserError("calibration: written by another version of raypipe; remove it to measure again")
        if found.search != search:
            raise UserError(f"calibration: of a {found.search} search, not of search = {search!r}")
        return found


def measure(part: Part) -> Measured:
    """Processor seconds, the same on a busy machine, of a part at its two sizes, after one that loads and allocates."""
    part.probe(part.sizes[0], 0)[1]()
    found = []
    for size in part.sizes:
        began, runs = time.process_time(), []
        while len(runs) < REPEATS and (not runs or time.process_time() - began < SHORT):
            units, run = part.probe(size, len(runs))
            start, kept = time.process_time(), run()
            runs.append((time.process_time() - start, kept))
        seconds, disk = zip(*runs, strict=True)
        found.append((units, statistics.median(seconds), statistics.mean(disk)))
    (a, fast, small), (b, slow, large) = found
    return Measured(Line.through((a, fast), (b, slow)), Line.through((a, small), (b, large)), b)


def calibrate(search: str, costs: Sequence[Cost], say: Callable[[str], None] = lambda text: None) -> Calibration:
    """Measure every part: a minute for a configuration of a laptop, two for one of a cluster."""
    found = {}
    for name, part in {part.name: part for cost in costs for part in cost.parts}.items():
        say(name)
        found[name] = measure(part)
    machine, memory = f"{platform.node()} {platform.machine()}", float(psutil.Process().memory_info().rss)
    return Calibration(search, machine, found, memory, VERSION)
