"""One training step of the encoder, against the same model in plain PyTorch: eager, single precision, all slots.

The reference is the loop one would write, over padded objects with a mask. Equal initial weights, batches and noise
give equal losses (in the detail). CPU seconds on one thread.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from bench.base import CPU, SEED, Measurement, compared, in_turn, threads
from bench.samples import arrays
from raypipe.config import Embedding
from raypipe.fit.encoder import EncoderPlan, EncoderTraining, build_encoder, learning_rate_factor, rank_batches
from raypipe.models.losses import gaussian_kl, supervised_contrastive


class PlainTraining:
    """The plain loop."""

    def __init__(self, config: Embedding, plan: EncoderPlan, device: str = "cpu") -> None:
        self.config, self.model = config, build_encoder(config, plan.scales, SEED).to(device).train()
        self.optimiser = torch.optim.Adam(self.model.parameters(), lr=config.learning_rate)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimiser, lambda s: learning_rate_factor(s, config))

    def step(self, batch: dict[str, Any]) -> float:
        objects, event, noise, labels = (torch.as_tensor(batch[k]) for k in ("objects", "event", "noise", "group"))
        mean, log_variance = self.model.encode(objects, event, packed=False)
        projection = F.normalize(self.model.projection(mean + (0.5 * log_variance).exp() * noise), dim=1)
        summed, anchors = supervised_contrastive(
            projection, labels, projection, labels, first=0, temperature=self.config.temperature
        )
        loss = summed / anchors + self.config.beta * gaussian_kl(mean, log_variance).mean()
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.gradient_clip)
        self.optimiser.step()
        self.schedule.step()
        return float((summed / anchors).detach())


def measure(config: Embedding, events: int, repeats: int, name: str, target: float | None) -> Measurement:
    """One row: ``steps_per_epoch`` steps a repetition."""
    inputs, steps = arrays(events), config.steps_per_epoch
    plan = EncoderPlan.of(inputs, config, SEED)
    ours, plain = EncoderTraining(build_encoder(config, plan.scales, SEED), config), PlainTraining(config, plan)
    epochs = [list(rank_batches(inputs, plan.train, range(k * steps, (k + 1) * steps), config)) for k in range(repeats)]
    mine, same = iter(epochs), iter(epochs)
    with threads(1):
        times, losses = in_turn(
            repeats,
            CPU,
            lambda: ours.train_epoch(next(mine))["train_contrastive"],
            lambda: float(np.mean([plain.step(batch) for batch in next(same)])),
        )
    detail = {"parameters": sum(p.numel() for p in ours.encoder.parameters()), "batch": config.batch_size}
    detail |= {"steps": steps, "losses": dict(zip(("ours", "plain"), losses, strict=True))}
    return compared(name, *times, target, unit="CPU s", **detail)


def run(smoke: bool) -> list[Measurement]:
    """The paper's encoder (1.1 M parameters) at batches of 512, without dropout so that both sides agree."""
    if smoke:
        size = {"width": 16, "heads": 2, "particle_blocks": 1, "class_blocks": 1, "pair_width": 8, "dropout": 0.0}
        tiny = Embedding(samples=["yy"], encoder=size, batch_size=40, steps_per_epoch=1)
        return [measure(tiny, 400, 1, "encoder: training step, tiny", None)]
    config = Embedding(samples=["yy"], encoder={"dropout": 0.0}, batch_size=512, steps_per_epoch=2)
    return [measure(config, 8000, 4, "encoder: training step at paper size, one core", 1.0)]
