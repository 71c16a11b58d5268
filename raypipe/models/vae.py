"""A small variational autoencoder (Kingma and Welling 1312.6114) of a row of continuous features."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn


def _layers(sizes: list[int]) -> nn.Sequential:
    parts: list[nn.Module] = []
    for k, (a, b) in enumerate(pairwise(sizes)):
        parts += [nn.Linear(a, b)] + ([nn.GELU()] if k < len(sizes) - 2 else [])
    return nn.Sequential(*parts)


class FeatureVae(nn.Module):
    """Features (n, d) -> mean and log-variance of a latent Gaussian, and back; the standardisation is in buffers."""

    def __init__(self, features: int, latent: int, hidden: list[int]) -> None:
        super().__init__()
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
