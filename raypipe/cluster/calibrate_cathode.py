"""Measure the encoder and the trials of the searches with a background model in a latent space (papers A and C)."""

from __future__ import annotations

import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from raypipe import seeds
from raypipe.cluster.calibration import Line, timed
from raypipe.config import Config
from raypipe.config.haxad import HaxadConfig
from raypipe.events.continuous import continuous_features
from raypipe.events.latents import Events
from raypipe.events.schema import tensor_values
from raypipe.fit.encoder import EncoderTraining, build_encoder, embed, latent_noise
from raypipe.fit.vae import embed_features, fit_vae
from raypipe.models.encoder import Scales
from raypipe.search import contrastive, haxad
from raypipe.search.contrastive import CONTINUUM, Tables
from raypipe.search.result import NO_SIGNAL, Stage, Tools, Trial
from raypipe.simulate import processes
from raypipe.store.ledger import Ledger

BATCHES = (128, 512)
"""Events a training step: the loss grows with the square of the batch, the network linearly."""
VAE_EVENTS = 4096
"""Events on which the autoencoder is timed."""
EVENTS = (1500, 6000, 24_000)
"""Events in the mass window of three trials: the first loads and allocates, through the others every stage's time is
extrapolated linearly."""
REPEATS, SHORT = 3, 10.0
"""A trial is run so many times if it takes less than so many core seconds; the median counts."""
EPOCHS = 2
"""Least epochs of the flow in those trials; an epoch costs the same every time."""


def encoder(config: Config, table: pa.Table) -> tuple[dict[str, float], str]:
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
        points.append((size, statistics.median(timed(step)[0] for _ in range(5)) / size))
    pairs = Line.through(*points)  # seconds an event against the size of the batch
    spent, _ = timed(lambda: embed(training.encoder, objects, event))
    costs = {"train_event": pairs.start, "train_pair": pairs.each, "embed_event": spent / len(objects)}
    return costs, f"encoder: steps of {' and '.join(map(str, BATCHES))} events, {len(objects)} events embedded"


def vae(config: HaxadConfig, table: pa.Table) -> tuple[dict[str, float], str]:
    """Core seconds a training event and epoch of the autoencoder, its validation included, and an embedded event."""
    short = config.embedding
    rng = seeds.generator(config.seed, "calibration", "vae")
    rows = rng.integers(0, table.num_rows, VAE_EVENTS)  # repeated: what an event costs does not depend on it
    features, ids = tensor_values(table["features"])[rows], table["event_id"].to_numpy()[rows]
    spent, values = timed(lambda: continuous_features(features, ids, config.seed))
    validation = values[: max(1, round(VAE_EVENTS * short.validation_fraction / short.train_fraction))]
    times = []
    for epochs in (1, 1, 3):  # the first one allocates
        given = short.model_copy(update={"epochs": epochs, "batch_size": min(short.batch_size, VAE_EVENTS)})
        seconds, (model, _) = timed(lambda g=given: fit_vae(values, validation, g, config.seed))
        times.append(seconds)
    more, _ = timed(lambda: embed_features(model, values, latent_noise(ids, short.latent, config.seed)))
    costs = {
        "train_event": max(0.0, times[2] - times[1]) / 2 / VAE_EVENTS,
        "train_pair": 0.0,
        "embed_event": (spent + more) / VAE_EVENTS,
    }
    return costs, f"autoencoder: {VAE_EVENTS} events for three epochs, as many embedded"


def synthetic_tables(config: Any, yields: dict[str, float], scale: float) -> Tables:
    """Tables of made-up Gaussian latents with the numbers of events that ``config`` would simulate, times ``scale``.

    Weights are those of the yields times ``scale``, so that one luminosity gives ``scale`` times the events.
    """
    window, latent = config.window, getattr(config.embedding, "encoder", config.embedding).latent
    rng = seeds.generator(config.seed, "calibration", "tables")

    def made(name: str, count: int, total: float, resonant: bool, shift: float) -> Events:
        if resonant:
            mass = np.clip(rng.normal(125, 1.6, count), window.low, window.high)
        else:
            mass = window.low + (window.high - window.low) * rng.beta(1, 1.6, count)
        latents = (rng.standard_normal((count, latent)) + shift).astype(np.float32)
        ids = np.arange(count) + processes.get(name).number * 10**9
        posterior = np.stack([latents, np.full_like(latents, 0.2)], axis=1)
        return Events(ids, mass, np.full(count, total / count), latents, np.zeros((count, 9), np.float32), posterior)

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
    higgs = {  # the peak's shape needs a hundred of them
        name: made(name, max(30, round(test * sizes(name, "embedding"))), yields[name] * scale, True, 1.0)
        for name in (config.pseudodata.background if config.selection.include_higgs else [])
        if name != CONTINUUM
    }
    return Tables(found, higgs)


def window_events(config: Any, yields: dict[str, float]) -> float:
    """Expected background events of one pseudo-data set."""
    return config.pseudodata.luminosity * sum(yields[name] for name in config.pseudodata.background)


def trials(config: Any, yields: dict[str, float]) -> dict[str, Any]:
    """Real trials at two sizes: the flow's seconds an event and epoch, lines of the other stages, bytes.

    With a signal of middling strength, as most trials have one: without any, classifiers stop early. Closure is tested
    in those that have none.
    """
    strengths = sorted(config.scan.strengths)
    whole = window_events(config, yields)
    epochs, points = EPOCHS, defaultdict(list)
    for events in EVENTS:
        flow = config.flow.model_copy(update={"epochs": epochs, "patience": epochs, "share": True})
        short = config.model_copy(update={"flow": flow})
        tables = synthetic_tables(short, yields, events / whole)
        runs: list[dict[str, float]] = []
        # Short trials several times over: how long trees grow differs from data set to data set.
        while len(runs) < REPEATS and (not runs or sum(runs[0].values()) < SHORT):
            trial = Trial(config.scan.signals[0], strengths[len(strengths) // 2], len(runs))
            laps, size = _laps(tables, short, trial)
            runs.append(laps)
        runs = [run | {"flow": run["flow"] / epochs} for run in runs]
        for name in runs[0]:
            points[name].append((events, statistics.median(run[name] for run in runs)))
        # Trees grow longer against a flow that has learnt little: as many epochs as there is time for.
        affordable = 2 * SHORT / (runs[-1]["flow"] * EVENTS[-1] / events)
        epochs = max(EPOCHS, min(config.flow.epochs, int(affordable)))
    lines = {name: Line.through(*found[1:]) for name, found in points.items()}
    return {"epoch_event": lines.pop("flow").each, "trial": lines, "trial_bytes": float(size)}


def smallest(config: Any, yields: dict[str, float]) -> Callable[[], Any]:
    """The smallest of those trials, all of it, ready to be run any number of times."""
    flow = config.flow.model_copy(update={"epochs": EPOCHS, "patience": EPOCHS})
    short = config.model_copy(update={"flow": flow})
    tables = synthetic_tables(short, yields, EVENTS[0] / window_events(config, yields))
    trial = Trial(config.scan.signals[0], sorted(config.scan.strengths)[len(config.scan.strengths) // 2], 0)
    search = haxad.search if config.search == "haxad" else contrastive.search

    def run() -> Any:
        with tempfile.TemporaryDirectory(prefix="raypipe-") as folder:
            return search(tables, short, trial, Tools(stage=Ledger(folder).stage))

    return run


def _laps(tables: Tables, config: Any, trial: Trial) -> tuple[dict[str, float], int]:
    """Core seconds of one trial by stage, the training of the flow alone under ``flow``; bytes of its results.

    ``closure`` is what the same trial without a signal does more; it takes the flow of the first.
    """
    search = haxad.search if config.search == "haxad" else contrastive.search
    with tempfile.TemporaryDirectory(prefix="raypipe-") as folder:
        book, training = Ledger(folder), []
        spent, result = timed(lambda: search(tables, config, trial, Tools(stage=_timed_stage(book, training))))
        book.record("x", None, result)
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        none = search(tables, config, Trial(NO_SIGNAL, 0.0, trial.instance), Tools(stage=book.stage)).rows[0]
    # The laps of the other stages are wall time: they share what processor time is left.
    laps = {k.removeprefix("seconds_"): v for k, v in result.rows[0].items() if k.startswith("seconds_")}
    laps.pop("flow")
    scale = (spent - sum(training)) / sum(laps.values())
    laps["closure"] = none["seconds_closure"]
    return {name: value * scale for name, value in laps.items()} | {"flow": sum(training)}, size


def _timed_stage(book: Ledger, training: list[float]) -> Stage:
    """The ledger's stage, which appends the core seconds of what had to be made to ``training``."""

    def stage(kind: str, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        spent, state = timed(make)
        training.append(spent)
        return book.stage(kind, key, lambda: state)

    return stage
