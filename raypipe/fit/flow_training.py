"""Training of conditional flows: all members of all pseudo-data sets as one stack, epoch by epoch.

No flow touches another: each has its own initialisation, shuffling and best epoch, keyed by the seed of its set and its
number, and one Adam updates all, element by element. A set therefore gets the same flows whatever else is in the stack.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from raypipe import seeds
from raypipe.config import Flow as FlowConfig
from raypipe.errors import UserError
from raypipe.fit.adam import CosineAdam
from raypipe.fit.conditional import ConditionalFlow
from raypipe.models.flow import FlowEnsemble

MIN_EVENTS = 200
"""Fewer sideband events than this cannot constrain a density in six dimensions."""
GRADIENT_CLIP = 5.0
"""Largest gradient norm of a member."""


@dataclass(frozen=True)
class Sidebands:
    """What the flows of one pseudo-data set learn from.

    Raises:
        UserError: too few events, or NaN or infinite latents.
    """

    latents: np.ndarray
    """(n, d)."""
    masses: np.ndarray
    """(n,) GeV."""
    seed: int
    posterior: np.ndarray | None = None
    """(n, 2, d) mean and standard deviation of the Gaussians from which the latents were drawn. With them a flow sees
    another draw of an event in each epoch. The latents are one draw of the density E[N(mean, sigma)] over events that
    flows are to learn; many draws show more of it, and overfit less. Best epochs are selected with the latents."""

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


class FlowTraining:
    """The flows of several pseudo-data sets in training.

    The data of a set fall into ``folds`` parts, of which each of its members leaves out ``config.leave_out`` (see
    `Flow.left_out`): for every part there are members that know nothing of it. A member keeps the weights of its best
    epoch on the parts that it leaves out.

    Args:
        sets: with equal steps an epoch (see `steps_of`).
        window: masses (GeV) mapped to [-1, 1].
        members: (set, member) of the flows to train; all of all sets when not given.
    """

    def __init__(
        self,
        sets: Sequence[Sidebands],
        window: tuple[float, float],
        config: FlowConfig,
        *,
        folds: int = 5,
        device: str = "cpu",
        members: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        self.sets, self.window, self.config, self.folds, self.device = list(sets), window, config, folds, device
        self.shape = config.model_dump(include={"layers", "hidden", "blocks", "transform", "bins", "mixing"})
        every = [(k, m) for k in range(len(sets)) for m in range(config.members)]
        members = every if members is None else list(members)
        self.set_of = torch.tensor([k for k, _ in members], device=device)
        self.complete = members == every
        keys = [seeds.integer(sets[k].seed, "flow-init", m) for k, m in members]
        self.ensemble = FlowEnsemble(features=sets[0].latents.shape[1], seeds=keys, **self.shape).to(device)
        fuse = config.compile and torch.device(device).type == "cuda"
        self._log_prob = torch.compile(self.ensemble.log_prob) if fuse else self.ensemble.log_prob
        self._scale()
        self._plan(members)
        self.optimiser = CosineAdam(self.ensemble.parameters(), config.learning_rate, config.epochs * self.steps)
        self.epoch = 0
        self.stale = torch.zeros(len(sets), dtype=torch.int64, device=device)
        self.best_loss = torch.full((len(members),), math.inf, device=device)
        self.best = {name: value.detach().clone() for name, value in self.ensemble.named_parameters()}
        self.history: list[list[dict[str, float]]] = [[] for _ in sets]

    def _scale(self) -> None:
        """The standardised latents, masses and posteriors of all sets, one behind the other, on the device."""
        self.scales = [
            (s.latents.mean(0, dtype=np.float64), s.latents.std(0, dtype=np.float64) + 1e-9) for s in self.sets
        ]
        scaled = [(s.latents - mean) / std for s, (mean, std) in zip(self.sets, self.scales, strict=True)]
        low, high = self.window
        context = np.concatenate([2 * (np.asarray(s.masses, np.float64) - low) / (high - low) - 1 for s in self.sets])
        self.x = self._tensor(np.concatenate(scaled))
        self.c = self._tensor(context[:, None])
        self.centre = self.width = None
        if self.sets[0].posterior is not None:
            pairs = [(s.posterior, *scale) for s, scale in zip(self.sets, self.scales, strict=True)]
            self.centre = self._tensor(np.concatenate([(p[:, 0] - mean) / std for p, mean, std in pairs]))
            self.width = self._tensor(np.concatenate([p[:, 1] / std for p, _, std in pairs]))

    def _tensor(self, values: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(values, dtype=torch.float32, device=self.device)

    def _plan(self, members: Sequence[tuple[int, int]]) -> None:
        """Which rows each member trains on and is judged by, and its random streams."""
        self.parts = [s.parts(self.folds) for s in self.sets]
        self.left_out = self.config.left_out(self.folds)
        first = np.cumsum([0, *(len(s.latents) for s in self.sets)])
        outside = [np.isin(self.parts[k], self.left_out[m]) for k, m in members]
        starts = [first[k] for k, _ in members]
        self.train = _even([np.flatnonzero(~o) + f for o, f in zip(outside, starts, strict=True)])
        held_out = _even([np.flatnonzero(o) + f for o, f in zip(outside, starts, strict=True)])
        self.held_out = torch.from_numpy(held_out).to(self.device)
        self.batch, self.steps = steps_of(self.sets[0], self.config, self.folds)
        if any(steps_of(s, self.config, self.folds) != (self.batch, self.steps) for s in self.sets):
            raise ValueError("flows trained as one stack need equal numbers of steps an epoch")
        self.streams = [seeds.generator(self.sets[k].seed, "flow-batches", m) for k, m in members]
        self.noise = [
            torch.Generator(self.device).manual_seed(seeds.integer(self.sets[k].seed, "flow-redraw", m))
            for k, m in members
        ]

    @property
    def finished(self) -> bool:
        """All epochs done, or no member of any set better for ``patience`` epochs."""
        return self.epoch >= self.config.epochs or bool((self.stale >= self.config.patience).all())

    def train_epoch(self) -> torch.Tensor:
        """One pass of every member over its events; the mean loss of each (members,), nats."""
        total = torch.zeros(len(self.train), device=self.device)
        for rows, stream in zip(self.train, self.streams, strict=True):
            stream.shuffle(rows)
        used = self.train[:, : self.steps * self.batch]
        plan = torch.from_numpy(used.reshape(len(used), self.steps, self.batch)).to(self.device)
        for step in range(self.steps):
            total += self.train_step(plan[:, step])
        return total / self.steps

    def train_step(self, rows: torch.Tensor) -> torch.Tensor:
        """One step of every member on its ``rows`` (members, batch); losses (members,)."""
        losses = -self._log_prob(self._seen(rows), self.c[rows]).mean(1)
        self.optimiser.forget_gradients()
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

    def finish_epoch(self, train: torch.Tensor) -> dict[str, float]:
        """Judge every member on what it left out, keep the best; the mean losses of the epoch, nats."""
        valid = _evaluate(self.ensemble, self.x, self.c, self.held_out)
        active = self.stale < self.config.patience  # a set whose patience is spent is final
        better = (valid < self.best_loss) & active[self.set_of]
        self.best_loss = torch.where(better, valid, self.best_loss)
        for name, value in self.ensemble.named_parameters():
            self.best[name][better] = value.detach()[better]
        some = self._of_sets(better.float()) > 0
        self.stale = torch.where(some, torch.zeros_like(self.stale), self.stale + active)
        for history, a, b in zip(self.history, *(self._of_sets(v).tolist() for v in (train, valid)), strict=True):
            history.append({"epoch": self.epoch, "train": a, "validation": b})
        self.epoch += 1
        return {"epoch": self.epoch - 1, "train": float(train.mean()), "validation": float(valid.mean())}

    def _of_sets(self, values: torch.Tensor) -> torch.Tensor:
        """Mean over the members of every set: (members,) -> (sets,)."""
        count = torch.bincount(self.set_of, minlength=len(self.sets))
        return torch.bincount(self.set_of, values.double(), minlength=len(self.sets)) / count

    def flows(self) -> list[ConditionalFlow]:
        """The flows of every set with the weights of their best epochs, on the CPU.

        Raises:
            UserError: a member that never reached a finite loss.
            ValueError: not all members of all sets were trained here.
        """
        if not self.complete:
            raise ValueError("some members were trained elsewhere")
        if not torch.isfinite(self.best_loss).all():
            raise UserError("the background flow diverged: no member reached a finite validation loss")
        state = {name: value.cpu() for name, value in (self.ensemble.state_dict() | self.best).items()}
        found = []
        for k, (mean, std) in enumerate(self.scales):
            mine = slice(k * self.config.members, (k + 1) * self.config.members)
            given: dict[str, Any] = {
                "model": {name: value[mine].clone() for name, value in state.items()},
                "shape": self.shape,
                "members": self.config.members,
                "mean": torch.from_numpy(mean),
                "std": torch.from_numpy(std),
                "mass": list(self.window),
                "part": torch.from_numpy(self.parts[k]),
                "left_out": self.left_out,
            }
            flow = ConditionalFlow.from_state(given)
            flow.history = self.history[k]
            found.append(flow)
        return found


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


@torch.no_grad()
def _evaluate(
    ensemble: FlowEnsemble, x: torch.Tensor, c: torch.Tensor, rows: torch.Tensor, chunk: int = 8192
) -> torch.Tensor:
    """Mean negative log-likelihood of every member on its own rows (M, n)."""
    total = torch.zeros(len(rows), device=x.device)
    for part in rows.split(chunk, dim=1):
        total -= ensemble.log_prob(x[part], c[part]).sum(1)
    return total / rows.shape[1]
