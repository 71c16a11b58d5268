"""Train the autoencoder of paper A and map events with it."""

import copy
import math
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import nn

from raypipe import seeds
from raypipe.config.haxad import Vae
from raypipe.errors import UserError
from raypipe.fit.training import OnEpoch, finish
from raypipe.models.losses import gaussian_kl


def _layers(sizes: list[int]) -> nn.Sequential:
    parts: list[nn.Module] = []
    for k, (a, b) in enumerate(pairwise(sizes)):
        parts += [nn.Linear(a, b)] + ([nn.GELU()] if k < len(sizes) - 2 else [])
    return nn.Sequential(*parts)


class FeatureVae(nn.Module):
    """Features (n, d) -> mean and log-variance of a latent Gaussian, and back; the standardisation is in buffers."""

    def __init__(self, features: int, latent: int, hidden: list[int]) -> None:
        super().__init__()
        self.latent = latent
        self.encoder = _layers([features, *hidden, 2 * latent])
        self.decoder = _layers([latent, *reversed(hidden), features])
        self.register_buffer("centre", torch.zeros(features))
        self.register_buffer("width", torch.ones(features))

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean (n, latent) and log-variance (n, latent) of standardised or raw features alike: ``x`` is raw."""
        mean, log_variance = self.encoder((x - self.centre) / self.width).chunk(2, dim=1)
        return mean, log_variance.clamp(-12, 6)

    def forward(self, x: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Mean, log-variance, and the squared reconstruction error (n,) in units of the features' variances."""
        mean, log_variance = self.encode(x)
        back = self.decoder(mean + (0.5 * log_variance).exp() * noise)
        return mean, log_variance, ((x - self.centre) / self.width - back).square().sum(1)


class VaeTraining:
    """Training on features (n, d); loss: squared error / 2 + beta KL(q(z|x), N(0, 1)); keeps the best epoch."""

    def __init__(self, train: np.ndarray, validation: np.ndarray, config: Vae, seed: int) -> None:
        if len(train) < config.batch_size or not len(validation):
            raise UserError(
                f"embedding.batch_size = {config.batch_size}: only {len(train)} training and {len(validation)} "
                "validation events: simulate more"
            )
        self.config = config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeds.integer(seed, "vae-init"))
            self.model = FeatureVae(train.shape[1], config.latent, config.hidden)
        self.model.centre.copy_(torch.from_numpy(train.mean(0)))
        self.model.width.copy_(torch.from_numpy(train.std(0) + 1e-6))
        self.x, self.check = (torch.as_tensor(a, dtype=torch.float32) for a in (train, validation))
        self.steps = len(train) // config.batch_size
        self.optimiser = torch.optim.Adam(self.model.parameters(), lr=config.learning_rate)
        total = config.epochs * self.steps
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimiser, T_max=total)
        self.rng = seeds.generator(seed, "vae-batches")
        fixed = seeds.generator(seed, "vae-check").standard_normal((len(validation), config.latent), dtype=np.float32)
        self.fixed = torch.from_numpy(fixed)
        self.epoch, self.best_loss, self.best = 0, math.inf, copy.deepcopy(self.model.state_dict())
        self.history: list[dict[str, float]] = []

    @property
    def finished(self) -> bool:
        """All epochs done."""
        return self.epoch >= self.config.epochs

    def run_epoch(self) -> dict[str, float]:
        """One pass over the events. Raises `UserError`: a loss that is not finite."""
        self.model.train()
        total = 0.0
        order = torch.from_numpy(self.rng.permutation(len(self.x)))
        for rows in order[: self.steps * self.config.batch_size].view(self.steps, -1):
            noise = torch.from_numpy(self.rng.standard_normal((len(rows), self.config.latent), dtype=np.float32))
            loss, _ = _loss(self.model, self.x[rows], noise, self.config.beta)
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            self.optimiser.step()
            self.schedule.step()
            total += float(loss.detach())
        self.model.eval()
        with torch.no_grad():
            loss, (error, kl) = _loss(self.model, self.check, self.fixed, self.config.beta)
        record = {"epoch": self.epoch, "train": total / self.steps, "loss": float(loss), "error": error, "kl": kl}
        if not math.isfinite(record["train"] + record["loss"]):
            raise UserError(f"the autoencoder diverged in epoch {self.epoch}: make embedding.learning_rate smaller")
        self.history.append(record)
        self.epoch += 1
        if record["loss"] < self.best_loss:
            self.best_loss, self.best = record["loss"], copy.deepcopy(self.model.state_dict())
        return record

    def state(self) -> dict[str, Any]:
        """Everything needed to go on; `torch.load(weights_only=True)` reads it."""
        parts = {name: getattr(self, name).state_dict() for name in ("model", "optimiser", "schedule")}
        own = {name: getattr(self, name) for name in ("epoch", "best_loss", "best", "history")}
        return parts | own | {"rng": self.rng.bit_generator.state}

    def load_state(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        for name in ("model", "optimiser", "schedule"):
            getattr(self, name).load_state_dict(state[name])
        for name in ("epoch", "best_loss", "best", "history"):
            setattr(self, name, state[name])
        self.rng.bit_generator.state = state["rng"]


def fit_vae(
    train: np.ndarray, validation: np.ndarray, config: Vae, seed: int, on_epoch: OnEpoch | None = None
) -> tuple[FeatureVae, list[dict[str, float]]]:
    """`VaeTraining` in this process: the autoencoder with the weights of its best epoch, and the history."""
    training = VaeTraining(train, validation, config, seed)
    finish(training, on_epoch)
    training.model.load_state_dict(training.best)
    return training.model.eval(), training.history


def _loss(
    model: FeatureVae, x: torch.Tensor, noise: torch.Tensor, beta: float
) -> tuple[torch.Tensor, tuple[float, float]]:
    mean, log_variance, error = model(x, noise)
    kl = gaussian_kl(mean, log_variance).mean()
    return error.mean() / 2 + beta * kl, (float(error.detach().mean()), float(kl.detach()))
