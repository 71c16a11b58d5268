"""What an encoder of the paper's size sees that a laptop's does not: SIC of all signals with both, on the same events.

The encoders are trained on the embedding split and judged by `supervised` and `idealised` on the search split, which
need no flow. Errors are of the finite evaluation sample (a bootstrap by event id), common to all instances.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from gpurecord import events
from gpurecord.speed import clocked
from raypipe import seeds
from raypipe.config import Config, load_config
from raypipe.events.latents import Events
from raypipe.events.schema import FEATURES
from raypipe.fit.encoder import embed, fit_encoder, latent_noise
from raypipe.search import contrastive
from raypipe.search.case import Case, Tables
from raypipe.search.contrastive import draw_case
from raypipe.search.evaluate import true_background
from raypipe.search.result import ALONE, Trial
from raypipe.stats.roc import bootstrapped_efficiency, poisson_weights, replicated_sic, sic

ENCODERS = {"paper": "gpu.yaml", "laptop": "study.yaml"}
"""Encoder -> the configuration, beside that of the events, whose `embedding` says how it is trained."""
Keep = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Source:
    """The carried events, and how they are searched."""

    events: Path
    configs: Path
    """Folder of `ENCODERS`."""
    tiny: bool = False

    def config(self, encoder: str) -> Config:
        """The configuration of the events with the embedding of one encoder."""
        config = load_config(self.configs / ENCODERS["paper"])
        own = load_config(self.configs / ENCODERS[encoder]).embedding
        own = own.model_copy(update={"samples": config.embedding.samples})
        classifier, scan, selection = config.classifier, config.scan, config.selection
        if self.tiny:
            size = {"width": 16, "heads": 2, "particle_blocks": 1, "class_blocks": 1, "pair_width": 8}
            own = own.model_copy(
                update={
                    "encoder": own.encoder.model_copy(update=size),
                    "batch_size": 60,
                    "steps_per_epoch": 3,
                    "epochs": 2,
                    "warmup_epochs": 1,
                    "compile": False,
                }
            )
            classifier = classifier.model_copy(update={"ensemble": 1, "rounds": 10, "folds": 2})
            scan = scan.model_copy(update={"instances": 1})
            selection = selection.model_copy(update={"working_points": [0.3, 0.1]})
        changed = {"embedding": own, "classifier": classifier, "scan": scan, "selection": selection}
        return config.model_copy(update=changed)


def encoders(device: str, source: Source, out: Path, keep: Keep) -> dict[str, Any]:
    """Train both encoders and leave the latents of the search split in ``out``."""
    packed = events.load(source.events)
    record: dict[str, Any] = {"events": len(packed.event_id)}
    for name in reversed(ENCODERS):  # the quick one first
        config = source.config(name)
        inputs = packed.training(config.embedding.samples)
        fitted: list[Any] = []

        def told(epoch: dict[str, float], name: str = name) -> None:
            if not epoch["epoch"] % 5:
                print(f"  encoder {name}: epoch {epoch['epoch']}, loss {epoch['loss']:.4f}", flush=True)

        def train(config: Config = config, inputs: Any = inputs, fitted: list[Any] = fitted) -> None:
            fitted.extend(fit_encoder(inputs, config.embedding, config.seed, device=device, on_epoch=told))

        took = clocked(train, device)
        model, history = fitted
        model.to(device)
        noise = latent_noise(packed.event_id, config.embedding.encoder.latent, config.seed)
        latent, posterior = embed(model, (packed.objects, packed.event), noise)
        np.savez_compressed(out / f"latents_{name}.npz", latent=latent[packed.search].astype(np.float32))
        steps = len(history) * config.embedding.steps_per_epoch
        record[name] = {
            "parameters": sum(p.numel() for p in model.parameters()),
            "training_events": len(inputs.event_id),
            "steps": steps,
            "seconds": took,
            "batch": config.embedding.batch_size,
            "events_per_second": steps * config.embedding.batch_size / took,
            "best_loss": min(h["loss"] for h in history),
            "history": history[:: max(1, len(history) // 10)],
            "mean_posterior_width": float(posterior[:, 1].mean()),
        }
        keep(record)
    return record


@cache
def tables(source: Source, latents: Path) -> Tables:
    """The search split as one encoder sees it; read once a process."""
    packed = searched(source)
    latent = np.load(latents)["latent"]
    whole = Events(
        packed.event_id,
        packed.mass,
        packed.weight,
        latent,
        np.zeros((len(latent), len(FEATURES)), np.float32),
        np.zeros((len(latent), 2, latent.shape[1]), np.float32),
    )
    names = np.unique(packed.sample)
    return Tables({str(name): whole.take(np.flatnonzero(packed.sample == name)) for name in names}, {})


@cache
def searched(source: Source) -> events.PackedEvents:
    """The events of the search split."""
    packed = events.load(source.events)
    return events.PackedEvents(**{name: values[packed.search] for name, values in vars(packed).items()})


def judge(source: Source, out: Path, job: tuple[str, Trial]) -> list[dict[str, Any]]:
    """One search with one encoder: for every working point the SIC and its bootstrap replicas."""
    encoder, trial = job
    whole = tables(source, out / f"latents_{encoder}.npz")
    rows = judged(whole, source.config(encoder), trial, 20 if source.tiny else 200)
    return [{"encoder": encoder, **row} for row in rows]


def judged(whole: Tables, config: Config, trial: Trial, replicas: int) -> list[dict[str, Any]]:
    """A search that needs no flow: for every working point the SIC and its bootstrap replicas."""
    case = draw_case(whole, config, trial)
    seed = seeds.integer(config.seed, "gpu-record", trial.signal, trial.instance, trial.method)
    scores = contrastive.judge(trial.method, case, config, seed, ALONE).scores[0]
    real = ~case.data.is_signal[case.inside]
    drawn_s, drawn_b = (poisson_weights(ids, config.seed, replicas) for ids in _ids(case, real))
    rows = []
    for point in config.selection.working_points:
        passes = partial(scores.passes, point=point)
        background, weight = true_background(case, passes)
        signal = np.r_[passes("data")[~real], passes("signal")]
        eff_s, eff_b = signal.mean(), weight[background].sum() / weight.sum()
        drawn = replicated_sic(
            bootstrapped_efficiency(signal, drawn_s), bootstrapped_efficiency(background, drawn_b, weight)
        )
        rows.append(
            {
                "signal": trial.signal,
                "method": trial.method,
                "instance": trial.instance,
                "point": point,
                "sic": sic(float(eff_s), float(eff_b)),
                "signal_efficiency": float(eff_s),
                "replicas": drawn,
            }
        )
    return rows


def _ids(case: Case, real: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Event ids of the signal and of the background, in the order in which they were judged."""
    inside = case.data.events.event_id[case.inside]
    spare = np.empty(0, np.int64) if case.signal is None else case.signal.event_id
    return np.r_[inside[~real], spare], np.r_[inside[real], case.left.event_id]


def run(source: Source, out: Path, keep: Keep) -> dict[str, Any]:
    """SIC of every signal with both encoders and methods, means over instances, on as many cores as there are."""
    scan = source.config("paper").scan
    signals = scan.signals[:2] if source.tiny else scan.signals
    jobs = [
        (encoder, Trial(signal, scan.strengths[0], instance, "id", method))
        for encoder, signal, method, instance in product(ENCODERS, signals, scan.methods, range(scan.instances))
    ]
    cores = 1 if source.tiny else len(os.sched_getaffinity(0))
    rows: list[dict[str, Any]] = []
    work = partial(judge, source, out)
    with ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as pool:
        for number, found in enumerate(map(work, jobs) if cores == 1 else pool.map(work, jobs), 1):
            rows += found
            if not number % 16 or number == len(jobs):
                keep({"sic": summary(rows)})
                print(f"  {number} of {len(jobs)} searches", flush=True)
    return {"sic": summary(rows), "instances": scan.instances, "strength": scan.strengths[0]}


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each encoder, signal, method and working point: the mean SIC over instances and its errors."""
    out = averaged(rows, ("encoder", "signal", "method", "point"))
    return [row | {"error_instances": row.pop("spread"), "instances": row.pop("number")} for row in out]


def averaged(rows: list[dict[str, Any]], named: tuple[str, ...]) -> list[dict[str, Any]]:
    """Mean SIC of the ``number`` of rows that are alike in the columns ``named``, and its errors.

    ``spread`` from the spread over them, ``error_events`` from the event bootstrap that is common to all.
    """
    out = []
    for key in dict.fromkeys(tuple(row[name] for name in named) for row in rows):
        same = [row for row in rows if tuple(row[name] for name in named) == key]
        values = np.array([row["sic"] for row in same])
        means = np.mean([row["replicas"] for row in same], axis=0)
        found = dict(zip(named, key, strict=True)) | {"number": len(values), "values": values.tolist()}
        found["sic"] = float(values.mean()) if np.isfinite(values).all() else None
        found["spread"] = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
        found["error_events"] = float(np.nanstd(means, ddof=1)) if np.isfinite(means).sum() > 1 else None
        out.append(found | {"signal_efficiency": float(np.mean([row["signal_efficiency"] for row in same]))})
    return out
