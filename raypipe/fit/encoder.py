"""Training of the contrastive encoder: the step, the schedule, early stopping and the state to resume from."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from scipy.special import ndtri
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from raypipe import seeds
from raypipe.config import Embedding
from raypipe.errors import UserError
from raypipe.fit.batches import PARTS, BatchPlan, dealt, prefetched
from raypipe.fit.training import OnEpoch, Workers, finish
from raypipe.models.encoder import ETA, PHI, ContrastiveEncoder, Scales
from raypipe.models.losses import gaussian_kl, supervised_contrastive

CHUNK = 4096  # Events embedded at a time


@dataclass(frozen=True)
class EncoderInputs:
    """What the encoder learns from: objects (n, 11, 12), event (n, 2) = (pt_yy, dr_yy) and group (n,) of each event."""

    event_id: np.ndarray
    objects: np.ndarray
    event: np.ndarray
    group: np.ndarray

    def batch(self, rows: np.ndarray, noise: np.ndarray, reflections: np.ndarray | None = None) -> dict[str, Any]:
        """One batch as the training step takes it; ``reflections`` (n, 2): signs for eta and phi of all objects."""
        signs = None
        if reflections is not None:
            signs = np.ones((len(rows), 1, self.objects.shape[2]), np.float32)
            signs[:, 0, ETA], signs[:, 0, PHI] = reflections.T
        if torch.is_tensor(self.objects):
            rows, noise, signs = (None if a is None else _on(a, self.objects.device) for a in (rows, noise, signs))
            objects = self.objects[rows]
        else:  # take copies whole rows, which indexing by an array does not: two thirds of the time.
            objects = np.take(self.objects, rows, axis=0)
        objects = objects if signs is None else objects * signs
        return {"objects": objects, "event": self.event[rows], "group": self.group[rows], "noise": noise}

    def on(self, device: torch.device | str) -> EncoderInputs:
        """The same events as tensors on a device."""
        moved = {k: torch.as_tensor(np.array(getattr(self, k)), device=device) for k in ("objects", "event", "group")}
        return EncoderInputs(self.event_id, **moved)


def _on(values: np.ndarray, device: torch.device) -> torch.Tensor:
    """A small array on a device; the copy to a GPU waits for nothing that runs there."""
    here = torch.from_numpy(values)
    return here.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else here.to(device)


@dataclass(frozen=True)
class EncoderPlan:
    """Everything that fixes a training before it starts."""

    train: BatchPlan
    validation: BatchPlan
    validation_steps: int
    scales: Scales

    @staticmethod
    def of(inputs: EncoderInputs, config: Embedding, seed: int) -> EncoderPlan:
        """Split the events, plan the balanced batches and measure the input normalisation on training events."""
        parts = dealt(inputs.event_id, config, seed)
        rows = [np.flatnonzero(parts == p) for p in range(len(PARTS))]
        plans = [BatchPlan.of(inputs.group, config.batch_size, seed, PARTS[p], rows[p]) for p in (0, 1)]
        # Enough validation batches to use every group's events about once, within reason.
        smallest = min(len(r) for r in plans[1].rows) * len(plans[1].rows)
        # The normalisation too sees every group equally, as training does; 20k events fix it to a per cent.
        n_scale = max(1, min(20_000 // config.batch_size, config.steps_per_epoch))
        sample = np.concatenate([plans[0].batch(step) for step in range(n_scale)])
        scales = Scales.measure(torch.from_numpy(inputs.objects[sample]), torch.from_numpy(inputs.event[sample]))
        return EncoderPlan(plans[0], plans[1], int(np.clip(smallest // config.batch_size, 1, 8)), scales)


def build_encoder(config: Embedding, scales: Scales | None = None, seed: int | None = None) -> ContrastiveEncoder:
    """The encoder of ``config``, its weights drawn from ``seed`` without touching torch's global state."""
    with torch.random.fork_rng(devices=[]):
        if seed is not None:
            torch.manual_seed(seeds.integer(seed, "encoder-init"))
        return ContrastiveEncoder(config.encoder, scales)


def wrapped(encoder: ContrastiveEncoder, config: Embedding, device: torch.device | str) -> nn.Module:
    """The encoder, compiled if ``config.compile``; a GPU then gets a step's hundreds of kernels as one graph."""
    if not config.compile:
        return encoder
    return torch.compile(encoder, mode="reduce-overhead" if torch.device(device).type == "cuda" else None)


def learning_rate_factor(step: int, config: Embedding) -> float:
    """Linear warm-up, then a cosine to the floor, as a factor of ``config.learning_rate`` (paper C, III.1)."""
    warmup, total = config.warmup_epochs * config.steps_per_epoch, config.epochs * config.steps_per_epoch
    if step < warmup:
        return (step + 1) / warmup
    floor = config.learning_rate_floor / config.learning_rate
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))


PROGRESS = ("epoch", "stale", "best_loss", "best", "history")
"""What a training knows beside its weights, optimiser and schedule."""


class EncoderTraining:
    """A training in progress on one worker, of a wrapped (DDP) or bare ``model``."""

    def __init__(self, model: nn.Module, config: Embedding, device: torch.device | str = "cpu") -> None:
        self.model, self.config, self.device = model, config, device
        self.workers = Workers()
        on_gpu = torch.device(device).type == "cuda"
        self.graphs = config.compile and on_gpu
        self.optimiser = torch.optim.Adam(model.parameters(), lr=config.learning_rate, fused=on_gpu or None)
        # On a GPU the loss of a large batch takes long if each of its operations passes over the memory alone.
        self.contrastive = torch.compile(supervised_contrastive) if self.graphs else supervised_contrastive
        self.schedule = LambdaLR(self.optimiser, lambda step: learning_rate_factor(step, config))
        self.epoch = self.stale = 0
        self.best_loss = math.inf
        self.best: dict[str, torch.Tensor] | None = None
        self.history: list[dict[str, float]] = []
        self.stream: Iterator[dict[str, Any]] = iter(())
        self.validation: list[dict[str, Any]] = []

    def feed(self, stream: Iterator[dict[str, Any]], validation: Iterable[dict[str, Any]]) -> None:
        """Give it this worker's slices of the global batches: of all steps from this epoch on, and for validation."""
        self.stream, self.validation = stream, list(validation)

    @property
    def encoder(self) -> ContrastiveEncoder:
        """The bare encoder."""
        bare = getattr(self.model, "module", self.model)  # DDP's wrapper
        return getattr(bare, "_orig_mod", bare)  # torch.compile's

    @property
    def finished(self) -> bool:
        """All epochs done, or no better validation loss for ``patience`` epochs."""
        return self.epoch >= self.config.epochs or self.stale >= self.config.patience

    def loss(self, batch: dict[str, np.ndarray]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """This worker's loss, scaled so that the mean over workers (DDP) is the loss of the global batch; its parts."""
        tensors = {k: torch.as_tensor(v, device=self.device) for k, v in batch.items()}
        half = self.config.precision == "bf16"
        if self.graphs:
            torch.compiler.cudagraph_mark_step_begin()  # what the last step returned may be overwritten
        with torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=half):
            outputs = self.model(tensors["objects"], tensors["event"], tensors["noise"])
        # The loss exponentiates similarities over a temperature: always in single precision.
        mean, log_variance, projection = (value.float() for value in outputs)
        labels = tensors["group"].long()
        others = self.workers.gather(projection), self.workers.gather(labels)
        how = {"first": self.workers.rank * len(labels), "temperature": self.config.temperature}
        summed, anchors = self.contrastive(projection, labels, *others, **how)
        contrastive = summed * self.workers.size / self.workers.total(anchors.float())
        kl = gaussian_kl(mean, log_variance).mean()
        return contrastive + self.config.beta * kl, {"contrastive": contrastive.detach(), "kl": kl.detach()}

    def _mean_over_workers(self, values: torch.Tensor) -> list[float]:
        return [float(v) for v in self.workers.total(values) / self.workers.size]

    def train_epoch(self, batches: Iterable[dict[str, np.ndarray]]) -> dict[str, float]:
        """One epoch over this worker's slices of the global batches; mean losses over the epoch."""
        self.model.train()
        total, steps = torch.zeros(2, device=self.device), 0
        for batch in batches:
            loss, parts = self.loss(batch)
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.gradient_clip)
            self.optimiser.step()
            self.schedule.step()
            total += torch.stack([parts["contrastive"], parts["kl"]])
            steps += 1
        if steps != self.config.steps_per_epoch:
            raise RuntimeError(f"epoch {self.epoch}: the stream gave {steps} of {self.config.steps_per_epoch} batches")
        contrastive, kl = self._mean_over_workers(total / steps)
        if not math.isfinite(contrastive + kl):
            raise UserError(f"the encoder diverged in epoch {self.epoch}: make embedding.learning_rate smaller")
        return {"train_contrastive": contrastive, "train_kl": kl}

    @torch.no_grad()
    def validate(self, batches: Iterable[dict[str, np.ndarray]]) -> dict[str, float]:
        """Mean losses over the validation batches, latents sampled as in training."""
        self.model.eval()
        parts = [torch.stack([p["contrastive"], p["kl"]]) for _, p in map(self.loss, batches)]
        contrastive, kl = self._mean_over_workers(torch.stack(parts).mean(0))
        return {"contrastive": contrastive, "kl": kl, "loss": contrastive + self.config.beta * kl}

    def run_epoch(self) -> dict[str, float]:
        """One epoch of what `feed` gave; its record."""
        train = self.train_epoch(islice(self.stream, self.config.steps_per_epoch))
        return self.finish_epoch(train, self.validate(self.validation))

    def finish_epoch(self, train: dict[str, float], validation: dict[str, float]) -> dict[str, float]:
        """Book-keep one epoch: history, best weights, early stopping."""
        record = {"epoch": self.epoch, **train, **validation, "learning_rate": self.schedule.get_last_lr()[0]}
        self.history.append(record)
        self.epoch += 1
        if validation["loss"] < self.best_loss:
            self.best_loss, self.stale = validation["loss"], 0
            self.best = {k: v.detach().cpu().clone() for k, v in self.encoder.state_dict().items()}
        else:
            self.stale += 1
        return record

    def state(self) -> dict[str, Any]:
        """Everything needed to go on as if never interrupted; `torch.load(weights_only=True)` reads it."""
        return {
            "model": self.encoder.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": {k: v for k, v in self.schedule.state_dict().items() if k != "lr_lambdas"},
        } | {name: getattr(self, name) for name in PROGRESS}

    def load_state(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        self.encoder.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"] | {"lr_lambdas": [None]})
        for name in PROGRESS:
            setattr(self, name, state[name])


def rank_batches(
    inputs: EncoderInputs, plan: BatchPlan, steps: Iterable[int], config: Embedding, rank: int = 0, workers: int = 1
) -> Iterator[dict[str, Any]]:
    """Worker ``rank``'s slices of global batches; for events on a GPU another thread draws the numbers ahead."""
    share = plan.batch_size // workers
    mine = slice(rank * share, (rank + 1) * share)

    def draw(step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        reflections = plan.reflections(step)[mine] if config.reflect and plan.part == "train" else None
        return plan.batch(step)[mine], plan.noise(step, config.encoder.latent)[mine], reflections

    draws = map(draw, steps)
    ahead = torch.is_tensor(inputs.objects) and inputs.objects.is_cuda
    return (inputs.batch(*numbers) for numbers in (prefetched(draws) if ahead else draws))


def fit_encoder(
    inputs: EncoderInputs, config: Embedding, seed: int, *, device: str = "cpu", on_epoch: OnEpoch | None = None
) -> tuple[ContrastiveEncoder, list[dict[str, float]]]:
    """Train an encoder in this process; returns it with the best epoch's weights, and the history."""
    plan = EncoderPlan.of(inputs, config, seed)
    bare = build_encoder(config, plan.scales, seed).to(device)
    training = EncoderTraining(wrapped(bare, config, device), config, device)
    inputs = inputs if torch.device(device).type == "cpu" else inputs.on(device)
    stream = rank_batches(inputs, plan.train, range(config.epochs * config.steps_per_epoch), config)
    training.feed(stream, rank_batches(inputs, plan.validation, range(plan.validation_steps), config))
    finish(training, on_epoch)
    encoder = copy.deepcopy(training.encoder).cpu()
    encoder.load_state_dict(training.best or training.encoder.state_dict())
    return encoder.eval(), training.history


def latent_noise(event_ids: np.ndarray, dimensions: int, seed: int) -> np.ndarray:
    """Standard-normal noise (n, dimensions) that belongs to each event by its id, whatever batch it is in."""
    columns = [ndtri(seeds.uniform_by_id(event_ids, seed, "latent", k)) for k in range(dimensions)]
    return np.stack(columns, axis=1).astype(np.float32)


@torch.no_grad()
def embed(model: Any, inputs: Sequence[np.ndarray], noise: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Latents (n, d), means or samples with ``noise``, and posteriors (n, 2, d), mean and deviation; float32."""
    model.eval()
    device = next(model.parameters()).device
    out = [np.empty((0, 2, model.latent), np.float32)]
    for i in range(0, len(inputs[0]), CHUNK):
        chunk = (torch.as_tensor(np.array(a[i : i + CHUNK], np.float32), device=device) for a in inputs)
        mean, log_variance = model.encode(*chunk)
        out.append(torch.stack([mean, (0.5 * log_variance).exp()], dim=1).cpu().numpy())
    return drawn(np.concatenate(out), noise)


def drawn(posterior: np.ndarray, noise: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Latents (n, d) from posteriors (n, 2, d): ``mean + sigma * noise``; without noise the means, with no width."""
    if noise is None:
        return posterior[:, 0], posterior * np.array([1, 0], np.float32)[:, None]
    return posterior[:, 0] + posterior[:, 1] * noise.astype(np.float32), posterior
