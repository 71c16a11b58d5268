"""Measure what one unit of each stage costs on this machine, with the stages' own code at small sizes."""

from __future__ import annotations

import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from raypipe import seeds
from raypipe.cluster.ledger import Ledger
from raypipe.config import Config
from raypipe.errors import UserError
from raypipe.events.latents import Events
from raypipe.events.schema import tensor_values
from raypipe.events.table import write_table
from raypipe.fit.encoder import EncoderTraining, build_encoder, embed
from raypipe.models.encoder import Scales
from raypipe.search.contrastive import CONTINUUM, Tables, search
from raypipe.search.result import Stage, Trial
from raypipe.simulate import processes
from raypipe.simulate.card import load_card
from raypipe.simulate.shard import simulate_shard

GENERATED = (20, 100, 700)
"""Events generated a process, in three shards: the first imports and allocates, the difference of the others is the
rate, the rest the start of the generator."""
BATCHES = (128, 512)
"""Events a training step: the loss grows with the square of the batch, the network linearly."""
EVENTS = (1500, 6000, 24_000)
"""Events in the mass window of three trials: the first loads and allocates, through the others every stage's time is
extrapolated linearly."""
EPOCHS = 2
"""Epochs of the flow in those trials; an epoch costs the same every time."""


@dataclass(frozen=True)
class Line:
    """Cost as ``start + each * units``."""

    start: float
    each: float

    def at(self, units: float) -> float:
        """Cost of so many units."""
        return self.start + self.each * units

    @staticmethod
    def through(a: tuple[float, float], b: tuple[float, float]) -> Line:
        """The line through two measurements (units, cost), neither coefficient negative."""
        each = max(0.0, (b[1] - a[1]) / (b[0] - a[0]))
        return Line(max(0.0, a[1] - each * a[0]), each)


@dataclass(frozen=True)
class Calibration:
    """Core seconds and bytes of the units of a scan on one machine."""

    machine: str
    simulate: dict[str, Line]
    """A shard by process: core seconds against selected events; processes not measured use the mean."""
    efficiency: dict[str, float]
    """Selected per generated event."""
    yield_per_fb: dict[str, float]
    """Selected events per fb^-1 of the background samples."""
    train_event: float
    """Core seconds an event of a training step."""
    train_pair: float
    """Core seconds a pair of events of a training step (the contrastive loss)."""
    embed_event: float
    flow_event: float
    """Core seconds a sideband event and epoch, all members."""
    trial: dict[str, Line]
    """The other stages of a trial: core seconds against events in the mass window, at this configuration's ratios."""
    event_bytes: float
    """Bytes of an event on disk."""
    trial_bytes: float
    """Bytes of a trial in the ledger."""
    worker_bytes: float
    """Resident memory of a process that has run a trial of `EVENTS` events."""
    measured_seconds: float

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    @staticmethod
    def of(values: dict[str, Any]) -> Calibration:
        """The inverse of `as_dict`."""
        lines = {name: {k: Line(**v) for k, v in values[name].items()} for name in ("simulate", "trial")}
        return Calibration(**{**values, **lines})


def calibrate(config: Config, say: Callable[[str], None] = lambda text: None) -> Calibration:
    """Measure, on one core, what every stage of ``config`` costs (about a minute).

    Processor time counts, not wall time, so that a busy machine measures the same.

    Raises:
        UserError: a search whose trials are not those of `raypipe.search.contrastive`.
    """
    if config.search != "contrastive":
        raise UserError(f"search = {config.search!r}: only the contrastive search can be planned yet")
    began, threads = time.process_time(), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        say("generator")
        lines, efficiency, yields, table, event_bytes = _simulation(config)
        say("encoder")
        train_event, train_pair, embed_event = _encoder(config, table)
        say("search")
        flow_event, trial, trial_bytes = _trial(config, yields)
    finally:
        torch.set_num_threads(threads)
    return Calibration(
        platform.node() + " " + platform.machine(), lines, efficiency, yields, train_event, train_pair, embed_event,
        flow_event, trial, event_bytes, trial_bytes, float(psutil.Process().memory_info().rss),
        time.process_time() - began,
    )  # fmt: skip


def _seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.process_time()
    value = work()
    return time.process_time() - began, value


def _simulation(config: Config) -> tuple[dict[str, Line], dict[str, float], dict[str, float], Any, float]:
    """Rates of the continuum, of a Higgs sample and of a signal; yields of the background; some events."""
    card = load_card(config.simulate.card)
    background = config.pseudodata.background
    measured = dict.fromkeys([CONTINUUM, *background[1:2], *config.scan.signals[:1]])
    lines, efficiency, yields, tables = {}, {}, {}, []
    for name in measured:
        process, points = processes.get(name), []
        for number, count in enumerate(GENERATED):
            spent, (table, sidecar) = _seconds(
                lambda p=process, i=number, n=count: simulate_shard(
                    p, card, seed=seeds.integer(config.seed, "calibration", p.name, i), shard=i, n_generate=n,
                    mpi=config.simulate.mpi, met_smearing=config.simulate.met_smearing,
                )
            )  # fmt: skip
            points.append((sidecar["n_selected"], spent))
            tables.append(table)
        lines[name] = Line.through(*points[1:])
        efficiency[name] = sum(n for n, _ in points) / sum(GENERATED)
        if name == CONTINUUM:
            # Weighted as if its shard were the whole sample: the weights add up to the yield.
            yields[name] = float(np.sum(tables[-1]["weight"].to_numpy()))
    for name in background:
        if name not in yields:
            yields[name] = processes.get(name).expected_yield_per_fb
    with tempfile.TemporaryDirectory(prefix="raypipe-") as folder:
        table = tables[len(GENERATED) - 1]
        write_table(table, Path(folder) / "events.parquet")
        size = (Path(folder) / "events.parquet").stat().st_size / max(1, table.num_rows)
    return lines, efficiency, yields, table, size


def _encoder(config: Config, table: Any) -> tuple[float, float, float]:
    """Core seconds an event, a pair and an embedded event, on real events of the continuum."""
    # Half precision and the compiler are for GPUs: a core is measured as it works best.
    embedding = config.embedding.model_copy(update={"precision": "fp32", "compile": False})
    objects = tensor_values(table["objects"]).astype(np.float32)
    event = np.stack([table["pt_yy"].to_numpy(), table["dr_yy"].to_numpy()], 1).astype(np.float32)
    scales = Scales.measure(torch.from_numpy(objects), torch.from_numpy(event))
    training = EncoderTraining(build_encoder(embedding, scales, config.seed), embedding)
    rng, points = seeds.generator(config.seed, "calibration", "encoder"), []
    for size in BATCHES:
        rows = rng.integers(0, len(objects), size)
        noise = rng.standard_normal((size, embedding.encoder.latent)).astype(np.float32)
        batch = {"objects": objects[rows], "event": event[rows], "noise": noise, "group": np.arange(size) % 13}

        def step(batch: dict[str, np.ndarray] = batch) -> None:
            loss, _ = training.loss(batch)
            training.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            training.optimiser.step()

        step()  # the first one allocates
        points.append((size, statistics.median(_seconds(step)[0] for _ in range(5)) / size))
    pairs = Line.through(*points)  # seconds an event against the size of the batch
    spent, _ = _seconds(lambda: embed(training.encoder, objects, event))
    return pairs.start, pairs.each, spent / len(objects)


def synthetic_tables(config: Config, yields: dict[str, float], scale: float) -> Tables:
    """Tables of made-up Gaussian latents with the numbers of events that ``config`` would simulate, times ``scale``.

    Weights are those of the yields times ``scale``, so that one luminosity gives ``scale`` times the events.
    """
    window, latent = config.window, config.embedding.encoder.latent
    rng = seeds.generator(config.seed, "calibration", "tables")

    def made(name: str, count: int, total: float, resonant: bool, shift: float) -> Events:
        if resonant:
            mass = np.clip(rng.normal(125, 1.6, count), window.low, window.high)
        else:
            mass = window.low + (window.high - window.low) * rng.beta(1, 1.6, count)
        latents = (rng.standard_normal((count, latent)) + shift).astype(np.float32)
        ids = np.arange(count) + processes.get(name).number * 10**9
        return Events(ids, mass, np.full(count, total / count), latents, np.zeros((count, 9), np.float32))

    def sizes(name: str, split: str) -> int:
        size = config.simulate.samples[name]
        share = 1 - size.embedding_fraction if split == "search" else size.embedding_fraction
        return max(20, round(scale * share * size.events))

    found = {}
    for name in config.pseudodata.background:
        total = yields[name] * scale
        # Enough to draw from even where the configuration is short of events.
        count = max(sizes(name, "search"), round(1.5 * total * config.pseudodata.luminosity) + 50)
        found[name] = made(name, count, total, name != CONTINUUM, 0.0 if name == CONTINUUM else 1.0)
    signal = config.scan.signals[0]
    found[signal] = made(signal, max(2000, sizes(signal, "search")), scale, True, 3.0)
    test = 1 - config.embedding.train_fraction - config.embedding.validation_fraction
    higgs = {
        name: made(name, max(20, round(test * sizes(name, "embedding"))), yields[name] * scale, True, 1.0)
        for name in (config.pseudodata.background if config.selection.include_higgs else [])
        if name != CONTINUUM
    }
    return Tables(found, higgs)


def window_events(config: Config, yields: dict[str, float]) -> float:
    """Expected background events of one pseudo-data set."""
    return config.pseudodata.luminosity * sum(yields[name] for name in config.pseudodata.background)


def _trial(config: Config, yields: dict[str, float]) -> tuple[float, dict[str, Line], float]:
    """Real trials at two sizes: the flow's seconds an event and epoch, lines of the other stages, bytes.

    With a signal of middling strength, as most trials have one: without any, classifiers stop early.
    """
    strengths = sorted(config.scan.strengths)
    trial = Trial(config.scan.signals[0], strengths[len(strengths) // 2], 0)
    whole = window_events(config, yields)
    short = config.model_copy(update={"flow": config.flow.model_copy(update={"epochs": EPOCHS, "patience": EPOCHS})})
    stages: dict[str, list[tuple[float, float]]] = {}
    flows = []
    for events in EVENTS:
        tables = synthetic_tables(short, yields, events / whole)
        with tempfile.TemporaryDirectory(prefix="raypipe-") as folder:
            book, training = Ledger(folder), []
            stage = _timed_stage(book, training)
            spent, result = _seconds(lambda t=tables, s=stage: search(t, short, trial, stage=s))
            book.record("x", None, result)
            size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        flows.append((events, sum(training) / EPOCHS))
        # The laps of the other stages are wall time: they share what processor time is left.
        laps = {k.removeprefix("seconds_"): v for k, v in result.rows[0].items() if k.startswith("seconds_")}
        laps.pop("flow")
        scale = (spent - sum(training)) / sum(laps.values())
        for name, value in laps.items():
            stages.setdefault(name, []).append((events, value * scale))
    flow = Line.through(*flows[1:])
    return flow.each, {name: Line.through(*points[1:]) for name, points in stages.items()}, float(size)


def _timed_stage(book: Ledger, training: list[float]) -> Stage:
    """The ledger's stage, which appends the core seconds of what had to be made to ``training``."""

    def stage(kind: str, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        spent, state = _seconds(make)
        training.append(spent)
        return book.stage(kind, key, lambda: state)

    return stage
