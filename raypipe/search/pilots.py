"""A small one of everything that a search makes, on made-up inputs with the stages' own code, to learn what it costs.

A probe prepares work of a given size, another one for every number: ``probe(size, number)`` gives the units that are
done and a function that does them and returns the bytes that a run keeps of it on disk.
"""

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from raypipe import seeds
from raypipe.events.continuous import continuous_features
from raypipe.events.latents import Events
from raypipe.events.pools import Pool
from raypipe.events.schema import FEATURES, tensor_values
from raypipe.events.table import read_table
from raypipe.fit.encoder import EncoderTraining, build_encoder, embed, latent_noise
from raypipe.fit.flows import FlowSet, FlowTraining
from raypipe.fit.vae import FeatureVae, fit_vae
from raypipe.kinds import background_of
from raypipe.models.encoder import Scales
from raypipe.models.losses import supervised_contrastive
from raypipe.search.base import Search
from raypipe.search.case import Tables
from raypipe.search.cathode import flow_set
from raypipe.search.contrastive import CONTINUUM, draw_case
from raypipe.search.multilepton import BOOTSTRAP, divide
from raypipe.search.result import ALONE, NO_SIGNAL, Result, Tools, Trial
from raypipe.simulate import dataset, processes

Work = tuple[float, Callable[[], float]]
Probe = Callable[[int, int], Work]

TRAINED = 10.0
"""Core seconds for which the flows of a small trial are trained: trees grow longer against flows that learnt little."""
MASSES = ((180.0, 60.0), (75.0, 25.0), (75.0, 25.0))  # Mean and width of made-up masses m_4l, m_ee, m_mumu, GeV


def made(shard: dataset.Shard, of: Callable[[Path], Any]) -> Any:
    """What ``of`` makes of the file of a shard."""
    with tempfile.TemporaryDirectory(prefix="raypipe-") as folder:
        shard.make(folder)
        return of(shard.path(folder))


def generator(template: dataset.Shard) -> Probe:
    """A shard of ``size`` generated events; shards are kept beside the tables."""

    def probe(size: int, number: int) -> Work:
        seed = seeds.integer(template.seed, "plan", template.process.name, number)
        shard = replace(template, n_generate=size, number=number, seed=seed)
        return size, lambda: made(shard, lambda path: 2.0 * path.stat().st_size)

    return probe


def expected_yields(names: Sequence[str]) -> dict[str, float]:
    """Selected events per fb^-1 of samples, before they are simulated."""
    return {name: processes.get(name).expected_yield_per_fb for name in names}


class Pilot:
    """Small flow sets and trials of a diphoton search; subclasses add its encoder."""

    def __init__(self, search: Search, latent: int) -> None:
        self.kind, self.config, self.latent = type(search), search.config, latent
        self.seed = seeds.integer(self.config.seed, "plan")
        self.row = 24 + 4 * (3 * latent + len(FEATURES))
        """Bytes of an event in a latent table: id, mass, weight; latent and its posterior; features."""

    @cached_property
    def _events(self) -> Any:
        """A few real events of the continuum."""
        shard = replace(dataset.plan(self.config).samples[CONTINUUM].template, n_generate=200, seed=self.seed)
        return made(shard, read_table)

    def column(self, name: str, size: int) -> np.ndarray:
        """``size`` rows, events repeated: what an event costs does not depend on it."""
        column = self._events[name]
        values = tensor_values(column) if name in ("objects", "features") else column.to_numpy()
        return np.resize(values, (size, *values.shape[1:])).astype(np.float32)

    @cache  # noqa: B019 (a pilot lives as long as its plan)
    def _tables(self, size: int) -> Tables:
        """Tables whose pseudo-data hold about ``size`` events."""
        yields = expected_yields(self.config.pseudodata.background)
        return made_up_tables(self.config, yields, size / self.config.pseudodata.luminosity / sum(yields.values()))

    def _drawn(self, size: int, number: int, epochs: int) -> tuple[int, FlowSet]:
        """Events of a pseudo-data set, and its flows before they are trained."""
        case = draw_case(self._tables(size), self.config, Trial(NO_SIGNAL, 0.0, number))
        short = self.config.flow.model_copy(update={"epochs": epochs, "patience": epochs, "share": True})
        return len(case.side), flow_set(case, self.config.model_copy(update={"flow": short}), self.seed)

    def flow(self, size: int, number: int) -> Work:
        """One epoch of the flows of a pseudo-data set of ``size`` events."""
        events, drawn = self._drawn(size, number, self.config.flow.epochs)
        training = FlowTraining([drawn.sidebands], drawn.window, drawn.config, folds=drawn.folds)

        def run() -> float:
            training.run_epoch()
            return sum(_bytes(stack.ensemble) for stack in training.stacks)

        return events, run

    @cache  # noqa: B019
    def _flows(self, size: int, number: int) -> dict[str, Any]:
        """Trained flows of a pseudo-data set, with as many epochs as there is time for."""
        began, run = time.process_time(), self.flow(size, number)[1]
        run()
        affordable = int(TRAINED / (time.process_time() - began))
        return self._drawn(size, number, min(self.config.flow.epochs, max(2, affordable)))[1].fit().state()

    def trial(self, method: str, signal: bool) -> Probe:
        """A search in a pseudo-data set of ``size`` events, with a signal of middling strength, its flows given."""
        config = self.config.model_copy(update={"flow": self.config.flow.model_copy(update={"share": True})})
        strengths = sorted(config.scan.strengths)
        injected = (config.scan.signals[0], strengths[len(strengths) // 2]) if signal else (NO_SIGNAL, 0.0)

        def probe(size: int, number: int) -> Work:
            tables, trial = self._tables(size), Trial(*injected, number, method=method)
            flows = self._flows(size, number) if background_of(method).learns else {}
            tools = Tools(stage=lambda kind, key, make: flows)
            events = len(draw_case(tables, config, Trial(NO_SIGNAL, 0.0, number)).side)
            return events, lambda: stored(self.kind(config).run([tables], [trial], tools)[0])

        return probe


class ContrastivePilot(Pilot):
    """With the encoder of paper C."""

    def _encoder(self, size: int, config: Any) -> tuple[np.ndarray, np.ndarray, Any]:
        """Objects and photon pairs of ``size`` events, and an encoder for them."""
        objects = self.column("objects", size)
        event = np.stack([self.column("pt_yy", size), self.column("dr_yy", size)], 1)
        scales = Scales.measure(torch.from_numpy(objects), torch.from_numpy(event))
        return objects, event, build_encoder(config, scales, self.seed)

    def encoder(self, size: int, number: int) -> Work:
        """A training step of ``size`` events."""
        # Half precision and the compiler are for GPUs: a core is measured as it works best.
        short = {"precision": "fp32", "compile": False, "steps_per_epoch": 1}
        config = self.config.embedding.model_copy(update=short)
        objects, event, encoder = self._encoder(size, config)
        training = EncoderTraining(encoder, config)
        noise = np.zeros((size, self.latent), np.float32)
        batch = {"objects": objects, "event": event, "noise": noise, "group": np.arange(size) % 13}

        def run() -> float:
            training.train_epoch([batch])
            return _bytes(encoder)

        return size, run

    def loss(self, size: int, number: int) -> Work:
        """The contrastive loss of a step of ``size`` events, which grows with the pairs."""
        given = self.config.embedding
        drawn = seeds.generator(self.seed, number).standard_normal((size, given.encoder.projection))
        anchors = torch.nn.functional.normalize(torch.from_numpy(drawn.astype(np.float32))).requires_grad_()

        def run() -> float:
            supervised_contrastive(anchors, torch.arange(size) % 13, temperature=given.temperature)[0].backward()
            return 0.0

        return size**2, run

    def latents(self, size: int, number: int) -> Work:
        """``size`` events embedded."""
        objects, event, encoder = self._encoder(size, self.config.embedding)
        noise = latent_noise(np.arange(size), self.latent, self.seed)
        return size, lambda: float(self.row * len(embed(encoder, (objects, event), noise)[0]))


class HaxadPilot(Pilot):
    """With the autoencoder of paper A."""

    EPOCHS = 2  # Of a small training

    def _features(self, size: int) -> np.ndarray:
        return continuous_features(self.column("features", size), np.arange(size), self.seed)

    def encoder(self, size: int, number: int) -> Work:
        """A training with ``size`` events."""
        given = self.config.embedding
        short = given.model_copy(update={"epochs": self.EPOCHS, "batch_size": min(given.batch_size, size)})
        values = self._features(size)
        check = values[: max(1, round(size * given.validation_fraction / given.train_fraction))]
        return size, lambda: _bytes(fit_vae(values, check, short, self.seed)[0])

    def latents(self, size: int, number: int) -> Work:
        """``size`` events embedded."""
        model = FeatureVae(len(FEATURES), self.latent, self.config.embedding.hidden)
        noise = latent_noise(np.arange(size), self.latent, self.seed)
        return size, lambda: float(self.row * len(embed(model, [self._features(size)], noise)[0]))


def _bytes(model: torch.nn.Module) -> float:
    """Bytes of the weights."""
    return float(sum(value.nbytes for value in model.state_dict().values()))


def stored(result: Result) -> float:
    """Bytes of a result, about: its rows as text, and its arrays."""
    arrays = sum(np.asarray(values).nbytes for values in result.arrays.values())
    return float(arrays + len(json.dumps(result.rows, default=str)))


def made_up_tables(config: Any, yields: dict[str, float], scale: float) -> Tables:
    """Gaussian latents with the numbers of events that ``config`` would simulate, and their yields, times ``scale``."""
    window, latent = config.window, getattr(config.embedding, "encoder", config.embedding).latent
    rng = seeds.generator(config.seed, "plan", "tables")

    def events_of(name: str, count: float, total: float, shift: float) -> Events:
        count = round(count)
        mass = window.low + (window.high - window.low) * rng.beta(1, 1.6, count)
        if name != CONTINUUM:
            mass = np.clip(rng.normal(125, 1.6, count), window.low, window.high)
        latents = (rng.standard_normal((count, latent)) + shift).astype(np.float32)
        ids = np.arange(count) + processes.get(name).number * 10**9
        posterior = np.stack([latents, np.full_like(latents, 0.2)], axis=1)
        features = np.zeros((count, len(FEATURES)), np.float32)
        return Events(ids, mass, np.full(count, total / count), latents, features, posterior)

    sizes, search, template = config.simulate.samples, {}, {}
    test = 1 - config.embedding.train_fraction - config.embedding.validation_fraction
    for name in config.pseudodata.background:
        total, events, embedded = yields[name] * scale, scale * sizes[name].events, sizes[name].embedding_fraction
        # Enough to draw from even where the configuration is short of events; the shape of a peak needs a few, too.
        count = max(20.0, (1 - embedded) * events, 1.5 * total * config.pseudodata.luminosity + 50)
        search[name] = events_of(name, count, total, float(name != CONTINUUM))
        if name != CONTINUUM and config.selection.include_higgs:
            template[name] = events_of(name, max(30.0, test * embedded * events), total, 1.0)
    for name in config.scan.signals[:1]:
        count = max(2000.0, scale * (1 - sizes[name].embedding_fraction) * sizes[name].events)
        search[name] = events_of(name, count, scale, 3.0)
    return Tables(search, template, search[CONTINUUM].mass if CONTINUUM in search else None)


def comparisons(search: Search, epochs: int) -> Probe:
    """A chunk of comparisons of ``size`` expected events, with so many epochs of their networks."""
    config = search.config

    def probe(size: int, number: int) -> Work:
        compare = config.compare.model_copy(update={"expected": float(size), "counts": "fixed"})
        networks = config.networks.model_copy(update={"epochs": epochs})
        scan = config.scan.model_copy(update={"signals": [], "calibration": 0})
        short = config.model_copy(update={"compare": compare, "networks": networks, "scan": scan})
        count = round(size * (compare.reference_ratio + 10))
        rng = seeds.generator(config.seed, "plan", "pool")
        shapes = [MASSES[k % len(MASSES)] for k in range(len(config.features))]
        values = np.column_stack([np.abs(rng.normal(mean, width, count)) for mean, width in shapes])
        pool = Pool(values, np.ones(count), np.zeros(count, dtype=int), ("background",))
        tables = divide(pool, None, {}, None, short)
        trials = [Trial(BOOTSTRAP, 0.0, config.chunk * number + k) for k in range(config.chunk)]
        return size, lambda: stored(type(search)(short).run([tables], trials, ALONE)[0])

    return probe
