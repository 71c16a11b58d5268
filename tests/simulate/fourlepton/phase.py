"""Flat phase-space points for tests of the matrix element."""

from __future__ import annotations

import numpy as np


def flat_points(n: int, rng: np.random.Generator, low: float = 60.0, high: float = 400.0) -> np.ndarray:
    """(n, 6, 4): two partons along z and four massless leptons, flat in phase space (RAMBO, CPC 40 (1986) 359)."""
    root = rng.uniform(low, high, n)
    u = rng.random((n, 4, 4))
    cosine, phi, energy = 2 * u[..., 0] - 1, 2 * np.pi * u[..., 1], -np.log(u[..., 2] * u[..., 3])
    sine = np.sqrt(1 - cosine**2)
    q = energy[..., None] * np.stack([np.ones_like(phi), sine * np.cos(phi), sine * np.sin(phi), cosine], axis=-1)
    total = q.sum(axis=1)
    mass = np.sqrt(total[:, 0] ** 2 - (total[:, 1:] ** 2).sum(axis=1))
    leptons = boost(q, -total[:, 1:] / total[:, :1]) * (root / mass)[:, None, None]
    partons = np.zeros((n, 2, 4))
    partons[..., 0] = root[:, None] / 2
    partons[:, 0, 3], partons[:, 1, 3] = root / 2, -root / 2
    return np.concatenate([partons, leptons], axis=1)


def boost(p: np.ndarray, velocity: np.ndarray) -> np.ndarray:
    """Momenta (n, k, 4) boosted by ``velocity`` (n, 3)."""
    gamma = 1 / np.sqrt(1 - (velocity**2).sum(axis=1))
    along = np.einsum("nki,ni->nk", p[..., 1:], velocity)
    energy = gamma[:, None] * (p[..., 0] + along)
    factor = (gamma**2 / (gamma + 1))[:, None] * along + gamma[:, None] * p[..., 0]
    return np.concatenate([energy[..., None], p[..., 1:] + factor[..., None] * velocity[:, None]], axis=-1)
