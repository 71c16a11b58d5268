"""A trained ensemble of conditional flows: densities, samples and its state on disk."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from raypipe.errors import UserError
from raypipe.models.flow import FlowEnsemble


@dataclass
class ConditionalFlow:
    """A trained flow ensemble with its input scaling; latents (n, d) given masses (n,) in GeV.

    ``shape``: layers, hidden, blocks, bins, mixing. ``history``: per epoch, mean training and validation
    negative log-likelihood in nats. ``part``: (n,) of each fitted row. ``left_out``: for each member, the parts on
    which it was not trained.
    """

    ensemble: FlowEnsemble
    shape: dict[str, Any]
    mean: np.ndarray
    std: np.ndarray
    mass_low: float
    mass_high: float
    history: list[dict[str, float]] = field(default_factory=list)
    part: np.ndarray = field(default_factory=lambda: np.empty(0, np.int8))
    left_out: list[tuple[int, ...]] = field(default_factory=list)

    def _context(self, masses: np.ndarray) -> np.ndarray:
        masses = np.asarray(masses, dtype=np.float64)
        return (2 * (masses - self.mass_low) / (self.mass_high - self.mass_low) - 1)[:, None]

    def log_prob(self, latents: np.ndarray, masses: np.ndarray) -> np.ndarray:
        """Log-density of the member average (a mixture of the members): (n,) in nats of latent units."""
        x = torch.as_tensor((latents - self.mean) / self.std, dtype=torch.float64)
        c = torch.as_tensor(self._context(masses), dtype=torch.float64)
        members = self.ensemble.members
        with torch.no_grad():
            logs = self.ensemble.double().log_prob(x.expand(members, -1, -1), c.expand(members, -1, -1))
        return (torch.logsumexp(logs, 0) - math.log(members)).numpy() - np.log(self.std).sum()

    def pool(self, members: Sequence[int]) -> ConditionalFlow:
        """Some of the members as an ensemble of their own."""
        index = torch.as_tensor(list(members))
        some = {name: value[index] for name, value in self.ensemble.state_dict().items()}
        return replace(self, ensemble=self.ensemble.holding(some))

    def without(self, part: int) -> ConditionalFlow:
        """The members that were not trained on ``part`` of the data."""
        return self.pool([m for m, parts in enumerate(self.left_out) if part in parts])

    def sample(self, masses: np.ndarray, rng: np.random.Generator, chunk: int = 8192) -> np.ndarray:
        """One latent for each mass, the members taking turns: (n,) -> (n, d), float32.

        A draw that does not map back to its noise within 1e-3 is computed in float64, and if it still does not, drawn
        again; after ten rounds that is a `UserError`.
        """
        members, features = self.ensemble.members, self.ensemble.features
        out = np.empty((len(masses), features), np.float32)
        pending = np.arange(len(masses))
        for _ in range(10):
            if not len(pending):
                return out
            bad = []
            for start in range(0, len(pending), chunk * members):
                rows = pending[start : start + chunk * members]
                padded = np.resize(rows, math.ceil(len(rows) / members) * members)
                noise = torch.from_numpy(rng.standard_normal((len(padded), features))).view(members, -1, features)
                context = torch.from_numpy(self._context(masses[padded])).view(members, -1, 1)
                drawn, good = _inverted(self.ensemble.float(), noise.float(), context.float())
                if not good.all():
                    drawn, good = _inverted(self.ensemble.double(), noise, context)
                values = drawn.reshape(len(padded), -1).numpy()[: len(rows)]
                out[rows] = values * self.std + self.mean
                bad.append(rows[~good.reshape(-1).numpy()[: len(rows)]])
            pending = np.concatenate(bad)
        raise UserError(f"the background flow diverged: {len(pending)} of {len(masses)} samples do not invert")

    def state(self) -> dict[str, object]:
        """A state that `torch.load(weights_only=True)` reads back."""
        return {
            "model": self.ensemble.state_dict(),
            "shape": self.shape,
            "members": self.ensemble.members,
            "mean": torch.from_numpy(self.mean),
            "std": torch.from_numpy(self.std),
            "mass": [self.mass_low, self.mass_high],
            "part": torch.from_numpy(self.part.copy()),
            "left_out": [list(parts) for parts in self.left_out],
        }

    @staticmethod
    def from_state(state: dict) -> ConditionalFlow:
        """The inverse of `state`."""
        mean, std = state["mean"].numpy(), state["std"].numpy()
        ensemble = FlowEnsemble(features=len(mean), seeds=[0], **state["shape"]).holding(state["model"])
        left_out = [tuple(parts) for parts in state["left_out"]]
        return ConditionalFlow(
            ensemble, state["shape"], mean, std, *state["mass"], part=state["part"].numpy(), left_out=left_out
        )


def _inverted(ensemble: FlowEnsemble, noise: torch.Tensor, context: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Samples (M, n, d) of noise, and a mask (M, n) of those that map back to it."""
    with torch.no_grad():
        drawn = ensemble.inverse(noise, context)
        again = ensemble.noise(drawn, context)
    return drawn, ((again - noise).abs().amax(-1) < 1e-3) & torch.isfinite(drawn).all(-1)
