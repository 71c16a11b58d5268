"""Which change of the encoder keeps more of what its inputs know: each on its own, several trainings of each.

Judged by `supervised` trees in the latent space, with one draw from an event's posterior and with its mean. Trees on
the inputs themselves bound what any encoder can keep.
"""

from __future__ import annotations

import os
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gpurecord import events
from gpurecord.events import MEASURED
from gpurecord.sensitivity import Keep, Source, averaged, judged, searched, tables
from raypipe import seeds
from raypipe.config import Config
from raypipe.events.latents import Events
from raypipe.events.schema import SLOTS
from raypipe.fit.encoder import embed, fit_encoder, latent_noise
from raypipe.models.encoder import PT, pair_features, with_photon_pair
from raypipe.search.case import Tables
from raypipe.search.result import Trial

Changes = dict[str, Any]
_LONG: Changes = {"epochs": 80, "patience": 80}
_PAIR: Changes = {**_LONG, "encoder.photon_pair": True}
_BEST: Changes = {**_PAIR, "encoder.dropout": 0.1}
_WIDE = {"width": 128, "heads": 8, "particle_blocks": 4, "class_blocks": 2, "pair_width": 128, "feedforward": 3}
_WIDE |= {"dropout": 0.1}
_LARGE: Changes = {"batch_size": 4160, "epochs": 40, "patience": 40, "precision": "bf16"}
LADDER: dict[str, Changes] = {
    "study": {},
    "four times the steps": _LONG,
    "and the photon pair as an object": _PAIR,
    "and latent 8": {**_PAIR, "encoder.latent": 8},
    "and beta 0.003": {**_PAIR, "beta": 0.003},
    "and temperature 0.05": {**_PAIR, "temperature": 0.05},
    "and temperature 0.2": {**_PAIR, "temperature": 0.2},
    "and half of the events": {**_PAIR, "train_fraction": 0.3},
    "and a quarter of the events": {**_PAIR, "train_fraction": 0.15},
    "and dropout 0.1": _BEST,
    "and batches of 4160, 2400 steps": {**_PAIR, **_LARGE},
    "the same, the paper's size": {**_PAIR, **_LARGE, **{f"encoder.{name}": value for name, value in _WIDE.items()}},
    "the photon pair alone": {"encoder.photon_pair": True},
    "the photon pair, beta 0.003": {"encoder.photon_pair": True, "beta": 0.003},
    "the same, twice the steps": {**_PAIR, "beta": 0.003, "epochs": 40, "patience": 40},
    "four times the steps, the photon pair, beta 0.003, dropout 0.1": {**_BEST, "beta": 0.003},
    "the same, beta 0.001": {**_BEST, "beta": 0.001},
}
"""Step -> what it changes in `embedding` of study.yaml."""
SIGNALS = ("wn_150", "xsh_500_100")
JETS = sum(slot == "jet" for slot in SLOTS)
SEEDS = (0, 1, 2)
TRAINERS = 4
VIEWS = ("draw", "mean")
INPUTS = "trees on the inputs"


@dataclass(frozen=True)
class Rung:
    """One training: a step of the ladder and a seed."""

    step: str
    seed: int

    def config(self, source: Source, on_gpu: bool) -> Config:
        """The laptop's configuration with the changes of the step."""
        config = source.config("laptop")
        given = config.embedding.model_dump()
        for name, value in ({} if source.tiny else LADDER.get(self.step, {})).items():
            section, _, key = name.rpartition(".")
            (given[section] if section else given)[key] = value
        given["compile"] = on_gpu
        embedding = type(config.embedding).model_validate(given)
        few = {"ensemble": 1 if source.tiny else 2, "rotate": self.step != INPUTS}
        classifier = config.classifier.model_copy(update=few)
        return config.model_copy(update={"embedding": embedding, "classifier": classifier})

    def latents(self, out: Path, view: str) -> Path:
        """Where the latents of the search split are, in one of `VIEWS`."""
        return out / "ladder" / f"{view}-{self.seed}-{self.step.replace(' ', '_')}.npz"


@cache
def _all(source: Source) -> events.PackedEvents:
    return events.load(source.events)


def train(device: str, source: Source, out: Path, rung: Rung) -> dict[str, Any]:
    """Train one encoder and leave its latents; what is to be known of the training."""
    config, packed, search = rung.config(source, device == "cuda"), _all(source), searched(source)
    seed = seeds.integer(config.seed, "ladder", rung.seed)
    inputs = packed.training(config.embedding.samples)
    torch.compiler.reset()  # a process that compiled eight networks compiles no ninth
    encoder, history = fit_encoder(inputs, config.embedding, seed, device=device)
    noise = latent_noise(search.event_id, config.embedding.encoder.latent, seed)
    drawn, posterior = embed(encoder.to(device), (search.objects, search.event), noise)
    rung.latents(out, "draw").parent.mkdir(exist_ok=True)
    for view, latent in zip(VIEWS, (drawn, posterior[:, 0]), strict=True):
        np.savez(rung.latents(out, view), latent=latent)
    best = min(history, key=lambda epoch: epoch["loss"])
    told = {name: best[name] for name in ("epoch", "contrastive", "kl", "train_contrastive")}
    return {"parameters": sum(p.numel() for p in encoder.parameters()), "last": history[-1]["contrastive"], **told}


def rows_of(source: Source, out: Path, rung: Rung, view: str, signal: str) -> list[dict[str, Any]]:
    """SIC of one signal with the latents of one training, or with the inputs themselves."""
    config = rung.config(source, False)
    trial = Trial(signal, config.scan.strengths[0], 0, "id", "supervised")
    whole = inputs_as_latents(source) if rung.step == INPUTS else tables(source, rung.latents(out, view))
    found = judged(whole, config, trial, 20 if source.tiny else 100)
    return [{"step": rung.step, "seed": rung.seed, "view": view, **row} for row in found]


def inputs_as_latents(source: Source) -> Tables:
    """The search split with what the encoder is shown in place of latents: objects, pT_yy and masses of pairs."""
    packed = searched(source)
    shown = with_photon_pair(torch.from_numpy(packed.objects), torch.from_numpy(packed.event))
    first, second = torch.tensor(
        [(i, j) for i in range(len(SLOTS)) for j in range(i) if i < JETS] + [(i, len(SLOTS)) for i in range(len(SLOTS))]
    ).T
    there = (shown[:, first, PT] > 0) & (shown[:, second, PT] > 0)
    masses = pair_features(shown[:, first], shown[:, second])[..., -1] * there
    inputs = np.column_stack([packed.objects[:, :, :MEASURED].reshape(len(shown), -1), packed.event[:, :1], masses])
    blank = np.zeros((len(inputs), 1), np.float32)
    whole = Events(packed.event_id, packed.mass, packed.weight, inputs, blank, blank[:, :, None])
    names = np.unique(packed.sample)
    return Tables({str(name): whole.take(np.flatnonzero(packed.sample == name)) for name in names}, {})


def run(device: str, source: Source, out: Path, keep: Keep) -> dict[str, Any]:
    """Train and judge all rungs, seed by seed, so that a run that is cut off knows every step as well as the others."""
    steps, numbers = (list(LADDER)[:2], SEEDS[:1]) if source.tiny else (list(LADDER), SEEDS)
    rungs = [Rung(step, seed) for seed in numbers for step in steps]
    cores = len(os.sched_getaffinity(0))
    record: dict[str, Any] = {"trainings": [], "sic": []}
    context = get_context("spawn")
    with (
        ProcessPoolExecutor(1 if source.tiny else TRAINERS, mp_context=context) as trainers,
        ProcessPoolExecutor(max(1, cores - TRAINERS), mp_context=context) as judges,
    ):
        training: dict[Future[Any], Rung] = {trainers.submit(train, device, source, out, r): r for r in rungs}
        judging = {judges.submit(rows_of, source, out, Rung(INPUTS, 0), "inputs", signal) for signal in SIGNALS}
        while training or judging:
            done, _ = wait([*training, *judging], return_when=FIRST_COMPLETED)
            for future in done:
                if future in judging:
                    judging.remove(future)
                    record["sic"] += future.result()
                    continue
                rung = training.pop(future)
                record["trainings"].append({"step": rung.step, "seed": rung.seed, **future.result()})
                print(f"  {rung.step}, seed {rung.seed}: {record['trainings'][-1]}", flush=True)
                judging |= {judges.submit(rows_of, source, out, rung, v, s) for v in VIEWS for s in SIGNALS}
            keep({**record, "sic": summary(record["sic"])})
    return {**record, "sic": summary(record["sic"])}


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each step, view, signal and cut: the mean SIC over trainings, and its errors."""
    out = averaged(rows, ("step", "view", "signal", "point"))
    return [row | {"error_training": row.pop("spread"), "trainings": row.pop("number")} for row in out]
