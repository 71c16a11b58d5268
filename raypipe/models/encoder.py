"""Particle transformer with a VAE-like output block and a projection head (paper C, section III.1).

Input: ``objects`` (n, 11, 12) of the event table, zero where absent, and ``event`` (n, 2) = (pt_yy, dr_yy). The photons
never enter, so that the latent space cannot know m_yy.
If so configured their pair does, as one more object with the mass of the Higgs boson: (pt_yy, 0, 0, 125 GeV).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from raypipe.config import Encoder

PT, ETA, PHI, MASS, BTAG, TAU32, TAU43 = range(7)
N_OBJECT = 12
N_EVENT = 2
N_PAIR = 6
PAIR_MASS = 125.0
"""GeV; of the photon pair as the encoder sees it, whatever it is."""
MASKED = -1e4
"""Attention bias of absent objects."""


@dataclass(frozen=True)
class Scales:
    """Means and standard deviations that normalise the inputs, from the training events only.

    Of log pT and log(1 + mass/GeV) of present objects, of log pT_ij and log(1 + m_ij/GeV) of their pairs, and of log(1
    + pt_yy/GeV) and dr_yy.
    """

    object_mean: torch.Tensor
    object_std: torch.Tensor
    pair_mean: torch.Tensor
    pair_std: torch.Tensor
    event_mean: torch.Tensor
    event_std: torch.Tensor

    @staticmethod
    def measure(objects: torch.Tensor, event: torch.Tensor) -> Scales:
        """Statistics of a sample of events: objects (n, 11, 12), event (n, 2)."""
        present = objects[..., PT] > 0
        kinematics = torch.stack(_log_kinematics(objects), dim=-1)[present]
        event_index, first, second = _pairs(present)
        different = first != second
        chosen = [objects[event_index[different], slot[different]] for slot in (first, second)]
        log_pairs = pair_features(*chosen)[:, 4:]
        logs = _log_event(event)

        def std(x: torch.Tensor) -> torch.Tensor:
            return x.std(dim=0).clamp(min=1e-3)

        return Scales(kinematics.mean(0), std(kinematics), log_pairs.mean(0), std(log_pairs), logs.mean(0), std(logs))


def _log_kinematics(objects: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return objects[..., PT].clamp(min=1e-3).log(), objects[..., MASS].clamp(min=0).log1p()


def _log_event(event: torch.Tensor) -> torch.Tensor:
    return torch.stack([event[:, 0].clamp(min=0).log1p(), event[:, 1]], dim=1)


def _pairs(present: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Event, first and second slot of every ordered pair of present objects: (n, s) -> three (p,)."""
    return (present[:, :, None] & present[:, None, :]).nonzero(as_tuple=True)


def _sqrt(x: torch.Tensor) -> torch.Tensor:
    """Square root with a finite gradient at zero."""
    return (x + 1e-12).sqrt()


def pair_features(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Two lists of objects (..., 12) -> (..., 6): dEta, dPhi, dR, pT asymmetry, log(1 + pT_ij), log(1 + m_ij)."""
    d_eta = a[..., ETA] - b[..., ETA]
    d_phi = torch.remainder(a[..., PHI] - b[..., PHI] + math.pi, 2 * math.pi) - math.pi
    asymmetry = (a[..., PT] - b[..., PT]) / (a[..., PT] + b[..., PT]).clamp(min=1e-3)

    def momentum(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        pt, phi, eta, mass = x[..., PT], x[..., PHI], x[..., ETA].clamp(-6, 6), x[..., MASS]
        px, py, pz = pt * phi.cos(), pt * phi.sin(), pt * eta.sinh()
        return _sqrt(px**2 + py**2 + pz**2 + mass**2), px, py, pz

    energy, px, py, pz = (x + y for x, y in zip(momentum(a), momentum(b), strict=True))
    pair_pt = _sqrt(px**2 + py**2)
    # Rounding can make a light pair's mass squared slightly negative.
    pair_mass = _sqrt((energy**2 - px**2 - py**2 - pz**2).clamp(min=0))
    d_r = _sqrt(d_eta**2 + d_phi**2)
    return torch.stack([d_eta, d_phi, d_r, asymmetry, pair_pt.log1p(), pair_mass.log1p()], dim=-1)


def with_photon_pair(objects: torch.Tensor, event: torch.Tensor) -> torch.Tensor:
    """Objects (n, s, 12) and the pair (n, 2) -> (n, s + 1, 12); angles of objects are measured from the pair."""
    pair = objects.new_zeros(len(objects), 1, objects.shape[2])
    pair[:, 0, PT], pair[:, 0, MASS] = event[:, 0], PAIR_MASS
    return torch.cat([objects, pair], dim=1)


class _Slots:
    """Where the objects of a batch are: a list of objects (t, w) to and from padded slots (n, s, w).

    On a CPU the list holds the present objects only (a third); on a GPU all, as data-dependent shapes make it wait.
    """

    def __init__(self, present: torch.Tensor, packed: bool) -> None:
        self.shape = present.shape
        self.index = present.flatten().nonzero()[:, 0] if packed else None

    def pack(self, padded: torch.Tensor) -> torch.Tensor:
        """(n, s, w) -> (t, w)."""
        flat = padded.reshape(-1, padded.shape[-1])
        return flat if self.index is None else flat[self.index]

    def pad(self, objects: torch.Tensor) -> torch.Tensor:
        """(t, w) -> (n, s, w), zero where absent."""
        if self.index is not None:
            slots = objects.new_zeros(self.shape[0] * self.shape[1], objects.shape[-1])
            objects = slots.index_copy(0, self.index, objects)
        return objects.view(*self.shape, objects.shape[-1])


class _Residual(nn.Module):
    """Feed-forward branch with LayerScale: ``x + scale * FFN(norm(x))``."""

    def __init__(self, config: Encoder) -> None:
        super().__init__()
        width, inner = config.width, config.feedforward * config.width
        self.net = nn.Sequential(
            nn.LayerNorm(width),
            *(nn.Linear(width, inner), nn.GELU(), nn.Dropout(config.dropout)),
            *(nn.Linear(inner, width), nn.Dropout(config.dropout)),
        )
        self.scale = nn.Parameter(torch.full((width,), config.layer_scale))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.scale * self.net(x)


class _Block(nn.Module):
    """What both kinds of attention blocks have: linear ``maps`` (name -> outputs in units of the width), LayerScale."""

    def __init__(self, config: Encoder, **maps: int) -> None:
        super().__init__()
        self.heads, self.dropout = config.heads, config.dropout
        self.norm = nn.LayerNorm(config.width)
        for name, outputs in maps.items():
            self.add_module(name, nn.Linear(config.width, outputs * config.width))
        self.scale = nn.Parameter(torch.full((config.width,), config.layer_scale))
        self.feedforward = _Residual(config)

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """Multi-head attention (n, q, w), (n, k, w), (n, k, w) with an additive bias (n, heads or 1, q or 1, k)."""
        q, k, v = (t.view(*t.shape[:2], self.heads, -1).transpose(1, 2) for t in (query, key, value))
        dropout = self.dropout if self.training else 0.0
        if query.is_cuda and torch.compiler.is_compiling():
            # A dozen objects fill a tenth of the tiles of attention kernels; written out, the compiler fuses it.
            logits = (q[:, :, :, None] * k[:, :, None]).sum(-1, dtype=torch.float32) / math.sqrt(q.shape[-1]) + bias
            share = F.dropout(logits.softmax(-1), dropout)
            mixed = (share[..., None] * v[:, :, None]).sum(-2).to(query.dtype)
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout)
        return mixed.transpose(1, 2).reshape(query.shape)


class _ParticleBlock(_Block):
    """Self-attention among objects, biased by pairwise features, then a feed-forward branch."""

    def __init__(self, config: Encoder) -> None:
        super().__init__(config, query_key_value=3, out=1)

    def forward(self, x: torch.Tensor, bias: torch.Tensor, slots: _Slots) -> torch.Tensor:
        query, key, value = slots.pad(self.query_key_value(self.norm(x))).chunk(3, dim=-1)
        return self.feedforward(x + self.scale * self.out(slots.pack(self.attend(query, key, value, bias))))


class _ClassBlock(_Block):
    """A class token (n, w) attends to itself and the objects (Touvron et al. 2103.17239)."""

    def __init__(self, config: Encoder) -> None:
        super().__init__(config, query=1, key_value=2, out=1)

    def forward(self, token: torch.Tensor, x: torch.Tensor, bias: torch.Tensor, slots: _Slots) -> torch.Tensor:
        normed = self.norm(token)
        memory = torch.cat([self.key_value(normed)[:, None], slots.pad(self.key_value(self.norm(x)))], dim=1)
        mixed = self.attend(self.query(normed)[:, None], *memory.chunk(2, dim=-1), bias)
        return self.feedforward(token + self.scale * self.out(mixed[:, 0]))


def _two_layers(inputs: int, inner: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, inner), nn.GELU(), nn.Linear(inner, outputs))


class ContrastiveEncoder(nn.Module):
    """Objects and two diphoton numbers -> mean and log-variance of a latent Gaussian, and a projection of its sample.

    ``scales``: input normalisation, kept as buffers. ``padded``: compute all slots on CPUs too (the same function).
    """

    def __init__(self, config: Encoder, scales: Scales | None = None) -> None:
        super().__init__()
        self.padded, self.latent = False, config.latent
        self.heads, self.photon_pair = config.heads, config.photon_pair
        for name in Scales.__dataclass_fields__:
            default = torch.zeros(2) if name.endswith("mean") else torch.ones(2)
            self.register_buffer(name, default if scales is None else getattr(scales, name).float().clone())
        width, event_width = config.width, config.event_width
        self.embed = _two_layers(N_OBJECT, width, width)
        self.pair_embed = _two_layers(N_PAIR, config.pair_width, config.heads)
        self.particle_blocks = nn.ModuleList(_ParticleBlock(config) for _ in range(config.particle_blocks))
        self.class_token = nn.Parameter(torch.randn(1, width) * 0.02)
        self.class_blocks = nn.ModuleList(_ClassBlock(config) for _ in range(config.class_blocks))
        self.event_branch = nn.Sequential(*_two_layers(N_EVENT, event_width, event_width), nn.GELU())
        together = width + event_width
        self.output = nn.Sequential(nn.LayerNorm(together), *_two_layers(together, width, 2 * config.latent))
        self.projection = _two_layers(config.latent, config.projection, config.projection)

    def encode(
        self, objects: torch.Tensor, event: torch.Tensor, packed: bool | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(n, 11, 12), (n, 2) -> mean and log-variance (n, latent); ``packed``: present objects only (same result)."""
        objects = with_photon_pair(objects, event) if self.photon_pair else objects
        present = objects[..., PT] > 0
        packed = objects.device.type == "cpu" and not self.padded if packed is None else packed
        slots = _Slots(present, packed)
        x = self.embed(self._inputs(slots.pack(objects)))
        # A finite mask value: with -inf a row without any object would turn into NaN.
        absent = (~present)[:, None, None, :].to(x.dtype) * MASKED
        bias = self._pair_bias(objects, present, packed)
        for particle_block in self.particle_blocks:
            x = particle_block(x, bias if packed else bias + absent, slots)
        token = self.class_token.expand(len(objects), -1)
        for class_block in self.class_blocks:
            token = class_block(token, x, F.pad(absent, (1, 0)), slots)
        logs = (_log_event(event) - self.event_mean) / self.event_std
        hidden = torch.cat([token, self.event_branch(logs)], dim=1)
        mean, log_variance = self.output(hidden).chunk(2, dim=1)
        # Bounds that a sensible fit never reaches; they keep exp() finite in the first steps.
        return mean, log_variance.clamp(-12, 6)

    def _inputs(self, objects: torch.Tensor) -> torch.Tensor:
        """Objects (t, 12) normalised; an absent one (pT zero) gives zeros."""
        log_pt, log_mass = _log_kinematics(objects)
        kinematics = (torch.stack([log_pt, log_mass], dim=-1) - self.object_mean) / self.object_std
        columns = [kinematics[:, :1], objects[:, ETA : PHI + 1], kinematics[:, 1:]]
        columns += [objects[:, BTAG : BTAG + 1].clamp(0, 1), objects[:, TAU32:]]
        return torch.cat(columns, dim=-1) * (objects[:, PT : PT + 1] > 0)

    def _pair_bias(self, objects: torch.Tensor, present: torch.Tensor, packed: bool) -> torch.Tensor:
        """Attention bias (n, heads, s, s) from pairwise features; `MASKED` for absent pairs if ``packed``."""
        n, s = present.shape
        if packed:
            event_index, first, second = _pairs(present)
            pairs = pair_features(objects[event_index, first], objects[event_index, second])
        else:
            pairs = pair_features(objects[:, :, None], objects[:, None, :])
        scaled = (pairs[..., 4:] - self.pair_mean) / self.pair_std
        bias = self.pair_embed(torch.cat([pairs[..., :4], scaled], dim=-1))
        if packed:
            index = (event_index * s + first) * s + second
            bias = bias.new_full((n * s * s, self.heads), MASKED).index_copy(0, index, bias)
        return bias.view(n, s, s, self.heads).permute(0, 3, 1, 2)

    def forward(
        self, objects: torch.Tensor, event: torch.Tensor, noise: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Mean, log-variance and the l2-normalised projection (n, projection) of ``mean + sigma * noise``."""
        mean, log_variance = self.encode(objects, event)
        latent = mean + (0.5 * log_variance).exp() * noise
        return mean, log_variance, F.normalize(self.projection(latent), dim=1)
