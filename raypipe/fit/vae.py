"""Train the autoencoder of paper A and map events with it. No Ray: it takes seconds."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import numpy as np
import torch

from raypipe import seeds
from raypipe.config.haxad import Vae
from raypipe.errors import UserError
from raypipe.fit.encoder import drawn
from raypipe.models.losses import gaussian_kl
from raypipe.models.vae import FeatureVae


def fit_vae(
    train: np.ndarray,
    validation: np.ndarray,
    config: Vae,
    seed: int,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
) -> tuple[FeatureVae, list[dict[str, float]]]:
    """Train on continuous features (n, d) float64 of background events; the best validation epoch is kept.

    Loss: reconstruction error / 2 + beta x KL(q(z|x), N(0, 1)), means over events.

    Raises:
        UserError: fewer events than a batch, or a loss that is not finite.
    """
    if len(train) < config.batch_size or not len(validation):
        raise UserError(
            f"embedding.batch_size = {config.batch_size}: only {len(train)} training and {len(validation)} validation "
            "events: simulate more"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.integer(seed, "vae-init"))
        model = FeatureVae(train.shape[1], config.latent, config.hidden)
    model.centre.copy_(torch.from_numpy(train.mean(0)))
    model.width.copy_(torch.from_numpy(train.std(0) + 1e-6))
    x, check = (torch.as_tensor(a, dtype=torch.float32) for a in (train, validation))
    steps = len(x) // config.batch_size
    optimiser = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=config.epochs * steps)
    rng = seeds.generator(seed, "vae-batches")
    fixed = torch.from_numpy(
        seeds.generator(seed, "vae-check").standard_normal((len(check), config.latent), dtype=np.float32)
    )
    best_loss, best, history = math.inf, copy.deepcopy(model.state_dict()), []
    for epoch in range(config.epochs):
        model.train()
        total = 0.0
        order = torch.from_numpy(rng.permutation(len(x)))
        for rows in order[: steps * config.batch_size].view(steps, -1):
            noise = torch.from_numpy(rng.standard_normal((len(rows), config.latent), dtype=np.float32))
            loss, _ = _loss(model, x[rows], noise, config.beta)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            total += float(loss.detach())
        model.eval()
        with torch.no_grad():
            loss, (error, kl) = _loss(model, check, fixed, config.beta)
        record = {"epoch": epoch, "train": total / steps, "loss": float(loss), "error": error, "kl": kl}
        if not math.isfinite(record["train"] + record["loss"]):
            raise UserError(f"the autoencoder diverged in epoch {epoch}: make embedding.learning_rate smaller")
        history.append(record)
        if on_epoch:
            on_epoch(record)
        if record["loss"] < best_loss:
            best_loss, best = record["loss"], copy.deepcopy(model.state_dict())
    model.load_state_dict(best)
    return model.eval(), history


def _loss(
    model: FeatureVae, x: torch.Tensor, noise: torch.Tensor, beta: float
) -> tuple[torch.Tensor, tuple[float, float]]:
    mean, log_variance, error = model(x, noise)
    kl = gaussian_kl(mean, log_variance).mean()
    return error.mean() / 2 + beta * kl, (float(error.detach().mean()), float(kl.detach()))


@torch.no_grad()
def embed_features(
    model: FeatureVae, features: np.ndarray, noise: np.ndarray, chunk: int = 4096
) -> tuple[np.ndarray, np.ndarray]:
    """Latents (n, latent) float32, one draw from each event's Gaussian, and the Gaussians (n, 2, latent).

    Chunks are fixed, so that an event's bits do not depend on who embeds it.
    """
    model.eval()
    out = [np.empty((0, 2, noise.shape[1]), np.float32)]
    for start in range(0, len(features), chunk):
        mean, log_variance = model.encode(torch.as_tensor(features[start : start + chunk], dtype=torch.float32))
        out.append(torch.stack([mean, (0.5 * log_variance).exp()], dim=1).numpy())
    return drawn(np.concatenate(out), noise)
