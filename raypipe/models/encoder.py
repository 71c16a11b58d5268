"""Particle transformer with a VAE-like output block and a projection head (paper C, section III.1).

Input: ``objects`` (n, 11, 12) of the event table, zero where absent, and ``event`` (n, 2) = (pt_yy, dr_yy). Output: a
Gaussian in a six-dimensional latent space. The photons never enter, so that the latent space cannot know m_yy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

PT, ETA, PHI, MASS, BTAG, TAU32, TAU43 = range(7)
N_OBJECT = 12
N_EVENT = 2
N_PAIR = 6


@dataclass(frozen=True)
class Scales:
    """Means and standard deviations that normalise the inputs, from the training events only."""

    object_mean: torch.Tensor
    """(2,) of log pT and log(1 + mass/GeV), pooled over all present objects."""
    object_std: torch.Tensor
    pair_mean: torch.Tensor
    """(2,) of log pT_ij and log(1 + m_ij/GeV), pooled over pairs of present objects."""
    pair_std: torch.Tensor
    event_mean: torch.Tensor
    """(2,) of log(1 + pt_yy/GeV) and dr_yy."""
    event_std: torch.Tensor

    @staticmethod
    def measure(objects: torch.Tensor, event: torch.Tensor) -> Scales:
        """Statistics of a sample of events: objects (n, 11, 12), event (n, 2)."""
        present = objects[..., PT] > 0
        kinematics = torch.stack(_log_kinematics(objects), dim=-1)[present]
        pairs = present[:, :, None] & present[:, None, :] & ~torch.eye(objects.shape[1], dtype=torch.bool)
        log_pairs = _pair_features(objects)[..., 4:][pairs]
        logs = _log_event(event)

        def std(x: torch.Tensor) -> torch.Tensor:
            return x.std(dim=0).clamp(min=1e-3)

        return Scales(
            kinematics.mean(0), std(kinematics), log_pairs.mean(0), std(log_pairs), logs.mean(0), std(logs)
        )  # fmt: skip


def _log_kinematics(objects: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return objects[..., PT].clamp(min=1e-3).log(), objects[..., MASS].clamp(min=0).log1p()


def _log_event(event: torch.Tensor) -> torch.Tensor:
    return torch.stack([event[:, 0].clamp(min=0).log1p(), event[:, 1]], dim=1)


def _pair_features(objects: torch.Tensor) -> torch.Tensor:
    """(n, s, 12) -> (n, s, s, 6): dEta, dPhi, dR, pT asymmetry, log pT_ij, log(1 + m_ij)."""
    pt, eta, phi, mass = (objects[..., k] for k in (PT, ETA, PHI, MASS))
    d_eta = eta[:, :, None] - eta[:, None, :]
    d_phi = torch.remainder(phi[:, :, None] - phi[:, None, :] + math.pi, 2 * math.pi) - math.pi
    asymmetry = (pt[:, :, None] - pt[:, None, :]) / (pt[:, :, None] + pt[:, None, :]).clamp(min=1e-3)
    px, py, pz = pt * phi.cos(), pt * phi.sin(), pt * eta.clamp(-6, 6).sinh()
    energy = (px**2 + py**2 + pz**2 + mass**2).sqrt()
    sums = [c[:, :, None] + c[:, None, :] for c in (energy, px, py, pz)]
    pair_pt = (sums[1] ** 2 + sums[2] ** 2).sqrt()
    # Rounding can make a light pair's mass squared slightly negative.
    pair_mass = (sums[0] ** 2 - sums[1] ** 2 - sums[2] ** 2 - sums[3] ** 2).clamp(min=0).sqrt()
    d_r = (d_eta**2 + d_phi**2).sqrt()
    return torch.stack([d_eta, d_phi, d_r, asymmetry, pair_pt.log1p(), pair_mass.log1p()], dim=-1)


class _Residual(nn.Module):
    """Feed-forward branch with LayerScale: ``x + scale * FFN(norm(x))``."""

    def __init__(self, width: int, feedforward: int, dropout: float, layer_scale: float) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, feedforward * width), nn.GELU(), nn.Dropout(dropout),
            nn.Linear(feedforward * width, width), nn.Dropout(dropout),
        )  # fmt: skip
        self.scale = nn.Parameter(torch.full((width,), layer_scale))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.scale * self.net(x)


class _Attention(nn.Module):
    """Multi-head attention of queries on keys with an additive bias (n, heads, q, k)."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: torch.Tensor, memory: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        n, q, width = x.shape
        split = (n, -1, self.heads, width // self.heads)
        query = self.query(x).view(split).transpose(1, 2)
        key, value = (t.reshape(split).transpose(1, 2) for t in self.key_value(memory).chunk(2, dim=-1))
        mixed = F.scaled_dot_product_attention(
            query, key, value, attn_mask=bias, dropout_p=self.dropout if self.training else 0.0
        )
        return self.out(mixed.transpose(1, 2).reshape(n, q, width))


class _ParticleBlock(nn.Module):
    """Self-attention among objects, biased by pairwise features, then a feed-forward branch."""

    def __init__(self, width: int, heads: int, feedforward: int, dropout: float, layer_scale: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = _Attention(width, heads, dropout)
        self.scale = nn.Parameter(torch.full((width,), layer_scale))
        self.feedforward = _Residual(width, feedforward, dropout, layer_scale)

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        normed = self.norm(x)
        return self.feedforward(x + self.scale * self.attention(normed, normed, bias))


class _ClassBlock(nn.Module):
    """A class token attends to itself and the objects (Touvron et al. 2103.17239)."""

    def __init__(self, width: int, heads: int, feedforward: int, dropout: float, layer_scale: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = _Attention(width, heads, dropout)
        self.scale = nn.Parameter(torch.full((width,), layer_scale))
        self.feedforward = _Residual(width, feedforward, dropout, layer_scale)

    def forward(self, token: torch.Tensor, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        memory = self.norm(torch.cat([token, x], dim=1))
        return self.feedforward(token + self.scale * self.attention(memory[:, :1], memory, bias))


class ContrastiveEncoder(nn.Module):
    """Objects and two diphoton numbers -> mean and log-variance of a latent Gaussian, and a projection of its sample.

    Args:
        scales: input normalisation, kept as buffers so that a state dict is self-contained.
        Others as in `raypipe.config.Encoder`.
    """

    def __init__(
        self, *, width: int, heads: int, particle_blocks: int, class_blocks: int, pair_width: int, feedforward: int,
        event_width: int, latent: int, projection: int, dropout: float, layer_scale: float,
        scales: Scales | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        for name in Scales.__dataclass_fields__:
            default = torch.zeros(2) if name.endswith("mean") else torch.ones(2)
            self.register_buffer(name, default if scales is None else getattr(scales, name).float().clone())
        block = (width, heads, feedforward, dropout, layer_scale)
        self.embed = nn.Sequential(nn.Linear(N_OBJECT, width), nn.GELU(), nn.Linear(width, width))
        self.pair_embed = nn.Sequential(nn.Linear(N_PAIR, pair_width), nn.GELU(), nn.Linear(pair_width, heads))
        self.particle_blocks = nn.ModuleList(_ParticleBlock(*block) for _ in range(particle_blocks))
        self.class_token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.class_blocks = nn.ModuleList(_ClassBlock(*block) for _ in range(class_blocks))
        self.event_branch = nn.Sequential(
            nn.Linear(N_EVENT, event_width), nn.GELU(), nn.Linear(event_width, event_width), nn.GELU()
        )
        self.output = nn.Sequential(
            nn.LayerNorm(width + event_width), nn.Linear(width + event_width, width), nn.GELU(),
            nn.Linear(width, 2 * latent),
        )  # fmt: skip
        self.projection = nn.Sequential(nn.Linear(latent, projection), nn.GELU(), nn.Linear(projection, projection))

    def encode(self, objects: torch.Tensor, event: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(n, 11, 12), (n, 2) -> mean (n, latent), log-variance (n, latent)."""
        present = objects[..., PT] > 0
        log_pt, log_mass = _log_kinematics(objects)
        kinematics = (torch.stack([log_pt, log_mass], dim=-1) - self.object_mean) / self.object_std
        inputs = torch.cat(
            [
                kinematics[..., :1], objects[..., ETA : PHI + 1], kinematics[..., 1:],
                objects[..., BTAG : BTAG + 1].clamp(0, 1), objects[..., TAU32:],
            ], dim=-1,
        )  # fmt: skip
        x = self.embed(inputs * present[..., None])
        pairs = _pair_features(objects)
        pairs = torch.cat([pairs[..., :4], (pairs[..., 4:] - self.pair_mean) / self.pair_std], dim=-1)
        # A finite mask value: with -inf a row without any object would turn into NaN.
        absent = (~present)[:, None, None, :].to(x.dtype) * -1e4
        bias = self.pair_embed(pairs).permute(0, 3, 1, 2) + absent
        for particle_block in self.particle_blocks:
            x = particle_block(x, bias)
        token = self.class_token.expand(len(x), -1, -1)
        class_bias = F.pad(absent, (1, 0))
        for class_block in self.class_blocks:
            token = class_block(token, x, class_bias)
        logs = (_log_event(event) - self.event_mean) / self.event_std
        hidden = torch.cat([token[:, 0], self.event_branch(logs)], dim=1)
        mean, log_variance = self.output(hidden).chunk(2, dim=1)
        # Bounds that a sensible fit never reaches; they keep exp() finite in the first steps.
        return mean, log_variance.clamp(-12, 6)

    def forward(
        self, objects: torch.Tensor, event: torch.Tensor, noise: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Mean, log-variance and the l2-normalised projection (n, projection) of ``mean + sigma * noise``."""
        mean, log_variance = self.encode(objects, event)
        latent = mean + (0.5 * log_variance).exp() * noise
        return mean, log_variance, F.normalize(self.projection(latent), dim=1)
