"""What a scan consists of: things to make, stage after stage, and how to find out what each costs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from raypipe.errors import UserError
from raypipe.search import multilepton
from raypipe.search.contrastive import CONTINUUM
from raypipe.search.embeddings import representation
from raypipe.search.pilots import (
    ContrastivePilot,
    HaxadPilot,
    Pilot,
    Probe,
    comparisons,
    expected_yields,
    generator,
)
from raypipe.search.result import NO_SIGNAL, TRAINS_FLOWS, trial_grid
from raypipe.simulate import dataset, processes

STAGES = {
    "simulate": "shard",
    "encoder": "encoder",
    "latents": "piece of a latent table",
    "background": "flow set",
    "trial": "trial",
}
"""In the order of the work, each with the smallest thing that one worker makes; a stage waits for the one before."""
CHUNK = 4096
"""Events embedded by one worker at a time."""
COPIES = 8
"""Times a trial's events are held by its process at the peak: data, template, folds, scores."""
EPOCHS = 20
"""Most epochs of a small comparison."""


@dataclass(frozen=True)
class Part:
    """Work that takes a time linear in its units; parts of one name are timed once."""

    name: str
    unit: str
    """What is counted, in words."""
    units: float
    """Of one item."""
    probe: Probe
    """Does a small one."""
    sizes: tuple[int, int]
    """Of small ones."""
    times: float = 1.0
    """How often an item needs it: steps, epochs; less than one where a probe makes several items."""
    network: bool = False
    """Whether it moves to a GPU."""
    trees: bool = False
    """Whether it grows in proportion to its units beyond the sizes, not by the line through them: trees stop the
    earlier the better the background model is, which is better with more events."""


@dataclass(frozen=True)
class Cost:
    """Equal items of one stage."""

    stage: str
    items: int
    parts: tuple[Part, ...]
    """Of one item, one after the other."""
    pieces: int = 1
    """Workers that one item can use."""
    together: int = 1
    """Items that a worker makes at once."""
    gpus: float = 0.0
    """GPUs that an item holds while it is made."""
    alone: int = 0
    """Items that there would be if every trial made its own."""
    store: float = 0.0
    """Bytes in the object store of a node, of all items that one trial reads."""
    memory: float = 0.0
    """Bytes of the events in the process that makes an item."""


def simulation_costs(config: Any, background: Sequence[str], trials: int) -> list[Cost]:
    """The shards of every sample; two background samples and a signal are timed, and stand for those like them."""
    samples = dataset.plan(config).samples
    known, found = [*background[:2], *config.scan.signals[:1]], []
    for name, sample in samples.items():
        signal = sample.template.process.group < 0
        like = name if name in known else known[-1] if signal else background[:2][-1]
        probe = generator(samples[like].template)
        part = Part(f"generator, {like}", "generated event", sample.template.n_generate, probe, (100, 700))
        found.append(Cost("simulate", sample.expected, (part,), alone=trials * sample.expected))
    return found


def contrastive_costs(config: Any) -> list[Cost]:
    """Of the contrastive search (paper C)."""
    pilot, given, gpu = ContrastivePilot(config), config.embedding, config.resources.gpu
    # Validation is at most eight batches an epoch, forward only: a third of a step.
    steps = (given.steps_per_epoch + min(8, given.steps_per_epoch) / 3) * given.epochs
    step = Part("encoder", "event a step", given.batch_size, pilot.encoder, (128, 512), steps, gpu)
    loss = Part("contrastive loss", "pair a step", given.batch_size**2, pilot.loss, (512, 2048), steps, gpu)
    return _cathode_costs(config, pilot, given.encoders, (step, loss), config.resources.train_workers)


def haxad_costs(config: Any) -> list[Cost]:
    """Of the HAXAD search (paper A), whose driver trains the autoencoder and embeds."""
    pilot, given, samples = HaxadPilot(config), config.embedding, config.simulate.samples
    rarest = min(samples[name].events * samples[name].embedding_fraction for name in given.samples)
    events, epochs = rarest * given.train_fraction * len(given.samples), given.epochs / pilot.EPOCHS
    training = Part("autoencoder", "training event", events, pilot.encoder, (1024, 4096), epochs)
    return _cathode_costs(config, pilot, 1, (training,), 0)


def _cathode_costs(
    config: Any, pilot: Pilot, members: int, training: tuple[Part, ...], train_workers: int
) -> list[Cost]:
    """Encoders (``members`` a representation), their latent tables, flow sets, trials.

    Args:
        train_workers: workers that can train an encoder; none where the driver does it.
    """
    resources, groups = config.resources, {name: p.group for name, p in processes.PROCESSES.items()}
    grid = list(dict.fromkeys(trial for part in config.scan.grids() for trial in trial_grid(**part)))
    flows = [trial for trial in grid if trial.method in TRAINS_FLOWS]
    sets = {(representation(t, groups), t.instance) for t in flows} if config.flow.share else flows
    background = config.pseudodata.background
    events = config.pseudodata.luminosity * sum(expected_yields(background).values())
    simulated = sum(size.events for size in config.simulate.samples.values())
    spaces = {representation(trial, groups) for trial in grid} - {"raw"}  # raw features need no encoder of their own
    on_gpu = training[0].network
    each: dict[str, Any] = {"items": members * len(spaces), "alone": members * len(grid), "gpus": float(on_gpu)}
    embedding = Part("embedding", "event", simulated, pilot.latents, (500, 2000), network=on_gpu)
    chunks = math.ceil(simulated / CHUNK) if train_workers else 1
    sized = {"unit": "event", "units": events, "sizes": (6000, 24_000)}
    faster = resources.gpu or resources.trial_gpus > 0
    flow = Part("flow set", probe=pilot.flow, times=config.flow.epochs, network=faster, **sized)
    found = [
        *simulation_costs(config, sorted(background, key=lambda name: name != CONTINUUM), len(grid)),
        Cost("encoder", parts=training, pieces=max(1, train_workers), **each),
        Cost("latents", parts=(embedding,), pieces=chunks, store=members * simulated * pilot.row, **each),
        Cost("background", members * len(sets), (flow,), gpus=float(faster), alone=members * len(flows)),
    ]
    for (method, signal), count in Counter((t.method, t.signal != NO_SIGNAL) for t in grid).items():
        name = f"search, {method}" + ("" if signal else ", no signal")
        part = Part(name, probe=pilot.trial(method, signal), times=members, trees=True, **sized)
        found.append(Cost("trial", count, (part,), gpus=resources.trial_gpus, memory=COPIES * pilot.row * events))
    return [cost for cost in found if cost.items]


def multilepton_costs(config: Any) -> list[Cost]:
    """Of the multilepton search (paper B): comparisons, in chunks whose networks are trained together."""
    trials, events, columns = multilepton.plan(config, config.files is not None), _expected(config), config.features
    epochs = min(EPOCHS, config.networks.epochs)
    gpus = config.resources.trial_gpus or float(config.resources.gpu)
    times = config.networks.epochs / epochs / config.chunk
    probe = comparisons(config, epochs)
    part = Part("comparison", "expected event", events, probe, (300, 1200), times, gpus > 0)
    simulate = config.simulate.samples.values() if config.simulate else ()
    row = 8 * (len(columns) + 2)
    pools = row * sum(size.events for size in simulate)
    memory = config.chunk * row * events * (1 + config.compare.reference_ratio)
    found = simulation_costs(config, config.compare.background, len(trials)) if config.simulate else []
    return [*found, Cost("trial", len(trials), (part,), 1, config.chunk, gpus, store=pools, memory=memory)]


def _expected(config: Any) -> float:
    """Expected background events of a data set.

    Raises:
        UserError: the background is the user's own and its size is not in the configuration.
    """
    compare = config.compare
    if compare.expected is not None:
        return compare.expected
    if config.files is not None and config.files.reference is not None:
        raise UserError("compare.expected: how many background events are expected? (a plan reads no tables)")
    yields = expected_yields(compare.background)
    if config.events is not None:
        samples = dataset.read_manifest(config.events)["samples"]
        yields = {name: samples[name]["yield_per_fb"] for name in compare.background if name in samples}
    return compare.luminosity * sum(yields.values())


COSTS: dict[str, Callable[[Any], list[Cost]]] = {
    "contrastive": contrastive_costs,
    "haxad": haxad_costs,
    "multilepton": multilepton_costs,
}


def costs(config: Any) -> list[Cost]:
    """What the scan of a configuration consists of.

    Raises:
        UserError: a search without a scan.
    """
    if config.search not in COSTS:
        raise UserError(f"search = {config.search!r}: it has no scan to plan")
    return COSTS[config.search](config)
