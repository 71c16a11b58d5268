"""What a stack of conditional flows learns from, and its steps: flows that are computed as one."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from raypipe import seeds
from raypipe.config import Flow as FlowConfig
from raypipe.errors import UserError
from raypipe.fit.training import CosineAdam
from raypipe.models.flow import FlowEnsemble

MIN_EVENTS = 200  # Fewer sideband events than this cannot constrain a density in six dimensions
GRADIENT_CLIP = 5.0  # Largest gradient norm of a member
BLOCK = 500_000
"""Activations (members x hidden x events) of a step below which a CPU spends its time on starting operations."""

Member = tuple[int, int]  # (set, member)


@dataclass(frozen=True)
class Sidebands:
    """What the flows of one pseudo-data set learn from: latents (n, d) and masses (n,) GeV, finite, else a `UserError`.

    ``posterior``: (n, 2, d), mean and deviation of the latents' Gaussians, from which every epoch then draws anew.
    """

    latents: np.ndarray
    masses: np.ndarray
    seed: int
    posterior: np.ndarray | None = None

    def __post_init__(self) -> None:
        if len(self.latents) < MIN_EVENTS:
            raise UserError(
                f"the sidebands hold {len(self.latents)} events, at least {MIN_EVENTS} are needed to learn a background"
            )
        if not np.isfinite(self.latents).all():
            row, column = np.argwhere(~np.isfinite(self.latents))[0]
            raise UserError(f"latents, row {row}, dimension {column}: {self.latents[row, column]} is not finite")

    def parts(self, folds: int) -> np.ndarray:
        """(n,) int8: the part of the data, of ``folds``, that each row belongs to."""
        balanced = (np.arange(len(self.latents)) % folds).astype(np.int8)
        return seeds.generator(self.seed, "flow-parts").permutation(balanced)


class FlowStack:
    """Flows that are computed as one, of ``sets`` with equal steps an epoch (see `steps_of`); one Adam updates all."""

    def __init__(
        self,
        sets: Sequence[Sidebands | None] | Mapping[int, Sidebands],
        members: Sequence[Member],
        window: tuple[float, float],
        config: FlowConfig,
        folds: int = 5,
        device: str = "cpu",
    ) -> None:
        self.members, self.window, self.config, self.device = list(members), window, config, device
        self.sets = list(dict.fromkeys(k for k, _ in members))
        self.data: dict[int, Sidebands] = {k: sets[k] for k in self.sets}  # type: ignore[misc]
        self.batch, self.steps = steps_of(self.data[self.sets[0]], config, folds)
        if any(steps_of(s, config, folds) != (self.batch, self.steps) for s in self.data.values()):
            raise ValueError("flows trained as one stack need equal numbers of steps an epoch")
        keys = [seeds.integer(self.data[k].seed, "flow-init", m) for k, m in members]
        features = self.data[self.sets[0]].latents.shape[1]
        self.ensemble = FlowEnsemble(features=features, seeds=keys, **shape_of(config)).to(device)
        fuse = config.compile and torch.device(device).type == "cuda"
        self._log_prob = torch.compile(self.ensemble.log_prob) if fuse else self.ensemble.log_prob
        self._scale()
        self._plan(folds)
        self.optimiser = CosineAdam(self.ensemble.parameters(), config.learning_rate, config.epochs * self.steps)
        self.best = {name: value.detach().clone() for name, value in self.ensemble.named_parameters()}

    def _scale(self) -> None:
        """The standardised latents, masses and posteriors of all sets, one behind the other, on the device."""
        every = self.data.values()
        scales = [scale_of(s) for s in every]
        low, high = self.window
        context = np.concatenate([2 * (np.asarray(s.masses, np.float64) - low) / (high - low) - 1 for s in every])
        self.x = self._tensor([(s.latents - mean) / std for s, (mean, std) in zip(every, scales, strict=True)])
        self.c = self._tensor([context[:, None]])
        self.centre = self.width = None
        pairs = [(s.posterior, *scale) for s, scale in zip(every, scales, strict=True) if s.posterior is not None]
        if pairs:
            self.centre = self._tensor([(p[:, 0] - mean) / std for p, mean, std in pairs])
            self.width = self._tensor([p[:, 1] / std for p, _, std in pairs])

    def _tensor(self, parts: list[np.ndarray]) -> torch.Tensor:
        return torch.as_tensor(np.concatenate(parts), dtype=torch.float32, device=self.device)

    def _plan(self, folds: int) -> None:
        """Which rows each member trains on and is judged by, and its random streams."""
        left_out = self.config.left_out(folds)
        parts = {k: s.parts(folds) for k, s in self.data.items()}
        first = dict(zip(self.sets, np.cumsum([0, *(len(s.latents) for s in self.data.values())]), strict=False))
        outside = [(np.isin(parts[k], left_out[m]), first[k]) for k, m in self.members]
        self.train = _even([np.flatnonzero(~rows) + start for rows, start in outside])
        held_out = _even([np.flatnonzero(rows) + start for rows, start in outside])
        self.held_out = torch.from_numpy(held_out).to(self.device)
        own = [(self.data[k].seed, m) for k, m in self.members]
        self.streams = [seeds.generator(seed, "flow-batches", m) for seed, m in own]
        self.noise = [
            torch.Generator(self.device).manual_seed(seeds.integer(seed, "flow-redraw", m)) for seed, m in own
        ]

    def _shuffle(self) -> None:
        for rows, stream in zip(self.train, self.streams, strict=True):
            stream.shuffle(rows)

    def train_epoch(self) -> torch.Tensor:
        """One pass of every member over its events; the mean loss of each (members,), nats."""
        total = torch.zeros(len(self.train), device=self.device)
        self._shuffle()
        used = self.train[:, : self.steps * self.batch]
        plan = torch.from_numpy(used.reshape(len(used), self.steps, self.batch)).to(self.device)
        for step in range(self.steps):
            total += self.train_step(plan[:, step])
        return total / self.steps

    def train_step(self, rows: torch.Tensor) -> torch.Tensor:
        """One step of every member on its ``rows`` (members, batch); losses (members,)."""
        losses = -self._log_prob(self._seen(rows), self.c[rows]).mean(1)
        for parameter in self.optimiser.parameters:
            parameter.grad = None
        losses.sum().backward()
        _clip_each_member(self.ensemble, GRADIENT_CLIP)
        self.optimiser.step()
        return losses.detach()

    def _seen(self, rows: torch.Tensor) -> torch.Tensor:
        """Latents (members, batch, d) of ``rows``, drawn anew from their posteriors where there are."""
        if self.centre is None or self.width is None:
            return self.x[rows]
        size = (rows.shape[1], self.x.shape[1])
        normal = torch.stack([torch.randn(size, generator=g, device=self.device) for g in self.noise])
        return torch.addcmul(self.centre[rows], self.width[rows], normal)

    @torch.no_grad()
    def judge(self, chunk: int = 8192) -> torch.Tensor:
        """Mean negative log-likelihood (members,) of every member on the events that it leaves out, nats."""
        total = torch.zeros(len(self.held_out), device=self.device)
        for part in self.held_out.split(chunk, dim=1):
            total -= self.ensemble.log_prob(self.x[part], self.c[part]).sum(1)
        return total / self.held_out.shape[1]

    def keep(self, better: torch.Tensor) -> None:
        """Take the weights of those members (mask) for their best."""
        better = better.to(self.device)
        for name, value in self.ensemble.named_parameters():
            self.best[name][better] = value.detach()[better]

    def state(self) -> dict[str, Any]:
        """Everything needed to go on after an epoch; the order of the events follows from the number of epochs."""
        return {
            "model": dict(self.ensemble.named_parameters()),
            "best": self.best,
            "optimiser": self.optimiser.state(),
            "noise": [g.get_state() for g in self.noise],
        }

    def load_state(self, state: dict[str, Any], epochs: int) -> None:
        """The inverse of `state`, in a stack that was just made."""
        with torch.no_grad():
            for name, value in self.ensemble.named_parameters():
                value.copy_(state["model"][name])
                self.best[name].copy_(state["best"][name])
        self.optimiser.load_state(state["optimiser"])
        for generator, saved in zip(self.noise, state["noise"], strict=True):
            generator.set_state(saved)
        for _ in range(epochs):
            self._shuffle()


def shape_of(config: FlowConfig) -> dict[str, Any]:
    """What `FlowEnsemble` needs of a configuration."""
    return config.model_dump(include={"layers", "hidden", "blocks", "bins", "mixing"})


def scale_of(data: Sidebands) -> tuple[np.ndarray, np.ndarray]:
    """Centre and width (d,) of the latents of a set."""
    return data.latents.mean(0, dtype=np.float64), data.latents.std(0, dtype=np.float64) + 1e-9


def blocks_of(data: Sidebands, config: FlowConfig, folds: int) -> list[list[int]]:
    """The members of a set in blocks: what a CPU computes as one, and what is divided over workers."""
    size = math.ceil(BLOCK / (config.hidden * steps_of(data, config, folds)[0]))
    return [part.tolist() for part in np.array_split(np.arange(config.members), math.ceil(config.members / size))]


def steps_of(data: Sidebands, config: FlowConfig, folds: int) -> tuple[int, int]:
    """Batch size and steps an epoch of the flows of one set: those of the member that trains on the fewest events."""
    counts = np.bincount(data.parts(folds), minlength=folds)
    smallest = min(len(data.latents) - counts[list(parts)].sum() for parts in config.left_out(folds))
    batch = min(config.batch_size, int(smallest))
    return batch, int(smallest) // batch


def _even(rows: list[np.ndarray]) -> np.ndarray:
    """(members, n) rows, as many of each as the shortest has: parts may differ by one event."""
    length = min(map(len, rows))
    return np.stack([r[:length] for r in rows])


def _clip_each_member(ensemble: FlowEnsemble, largest: float) -> None:
    """Clip the gradient norm of every member by itself; a joint norm would couple them."""
    gradients = [p.grad for p in ensemble.parameters() if p.grad is not None]
    norms = torch.stack([g.flatten(1).square().sum(1) for g in gradients]).sum(0).sqrt()
    scale = (largest / (norms + 1e-12)).clamp(max=1.0)
    for g in gradients:
        g.mul_(scale.view(-1, *[1] * (g.ndim - 1)))
