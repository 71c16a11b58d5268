"""Training of conditional flows: all members of several pseudo-data sets together, epoch by epoch.

No flow touches another: each has its own initialisation, shuffling and best epoch, keyed by the seed of its set and its
number. On CPUs the last bits of a flow depend on which others are computed with it; those are always the same few of
its own set (`blocks_of`), so that a set gets the same flows whatever else is trained, and on however many workers.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from raypipe import seeds
from raypipe.config import Flow as FlowConfig
from raypipe.errors import UserError
from raypipe.fit.adam import CosineAdam
from raypipe.fit.conditional import ConditionalFlow
from raypipe.fit.distributed import Workers
from raypipe.models.flow import FlowEnsemble

MIN_EVENTS = 200
"""Fewer sideband events than this cannot constrain a density in six dimensions."""
GRADIENT_CLIP = 5.0
"""Largest gradient norm of a member."""
BLOCK = 500_000
"""Activations (members x hidden x events) of a step below which a CPU spends its time on starting operations."""

Member = tuple[int, int]
"""(set, member)."""


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


class FlowStack:
    """Flows that are computed as one, of sets with equal steps an epoch (see `steps_of`); one Adam updates all.

    Args:
        sets: sidebands by number.
        members: the flows.
        window: masses (GeV) mapped to [-1, 1].
    """

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


class FlowTraining:
    """The flows of several pseudo-data sets in training.

    The data of a set fall into ``folds`` parts, of which each of its members leaves out ``config.leave_out`` (see
    `Flow.left_out`): for every part there are members that know nothing of it. A member keeps the weights of its best
    epoch on the parts that it leaves out.

    In a process group (torch.distributed) all processes train the same sets, each some of the members, and know the
    losses of all after every epoch.

    Args:
        sets: None for a set of which no member is trained here.
        window: masses (GeV) mapped to [-1, 1].
        members: to train here; all of all sets when not given.
    """

    def __init__(
        self,
        sets: Sequence[Sidebands | None],
        window: tuple[float, float],
        config: FlowConfig,
        *,
        folds: int = 5,
        device: str = "cpu",
        members: Sequence[Member] | None = None,
    ) -> None:
        self.sets, self.window, self.config, self.folds, self.device = list(sets), window, config, folds, device
        self.workers = Workers()
        every = [(k, m) for k in range(len(sets)) for m in range(config.members)]
        self.stacks = [
            FlowStack(self.sets, some, window, config, folds, device)
            for some in self._as_one(every if members is None else members)
        ]
        self.places = [torch.tensor([k * config.members + m for k, m in stack.members]) for stack in self.stacks]
        here = torch.zeros(len(every))
        for places in self.places:
            here[places] = 1
        self.trained = self.workers.total(here) > 0
        self.epoch = 0
        self.stale = torch.zeros(len(sets), dtype=torch.int64)
        self.best_loss = torch.full((len(every),), math.inf)
        self.history: list[list[dict[str, float]]] = [[] for _ in sets]

    def _as_one(self, members: Sequence[Member]) -> list[list[Member]]:
        """The members in groups that are computed as one: on a GPU all with equal steps, else those of a block."""
        gpu, groups, group = torch.device(self.device).type == "cuda", defaultdict(list), {}
        for k in dict.fromkeys(k for k, _ in members):
            steps = steps_of(self.sets[k], self.config, self.folds)
            for number, block in enumerate(blocks_of(self.sets[k], self.config, self.folds)):
                group |= {(k, m): steps if gpu else (k, number) for m in block}
        for member in members:
            groups[group[member]].append(member)
        return list(groups.values())

    @property
    def active(self) -> torch.Tensor:
        """(sets,) mask: a set is final when no member of it was better for ``patience`` epochs."""
        return self.stale < self.config.patience

    @property
    def finished(self) -> bool:
        """All epochs done, or all sets final."""
        return self.epoch >= self.config.epochs or not self.active.any()

    def run_epoch(self) -> dict[str, float]:
        """One epoch of all members; the mean losses, nats."""
        return self.finish_epoch(*self.workers.total(self.train_epoch()))

    def train_epoch(self) -> torch.Tensor:
        """Train and judge the members that are here, of sets that are not final: (2, sets x members) losses, else 0."""
        losses = torch.zeros(2, len(self.best_loss))
        for stack, places in zip(self.stacks, self.places, strict=True):
            if self.active[stack.sets].any():
                losses[0, places], losses[1, places] = stack.train_epoch().cpu(), stack.judge().cpu()
        return losses

    def finish_epoch(self, train: torch.Tensor, valid: torch.Tensor) -> dict[str, float]:
        """Keep the best, given the losses (sets x members,) of all; their means over sets that are not final."""
        active = self.active
        counted = active.repeat_interleave(self.config.members) & self.trained
        better = (valid < self.best_loss) & counted
        self.best_loss = torch.where(better, valid, self.best_loss)
        for stack, places in zip(self.stacks, self.places, strict=True):
            stack.keep(better[places])
        some = better.view(len(self.sets), -1).any(1)
        self.stale = torch.where(some, torch.zeros_like(self.stale), self.stale + active)
        for k in active.nonzero().flatten().tolist():
            mine = slice(k * self.config.members, (k + 1) * self.config.members)
            means = (float(v[mine][self.trained[mine]].double().mean()) for v in (train, valid))
            self.history[k].append({"epoch": self.epoch, **dict(zip(("train", "validation"), means, strict=True))})
        self.epoch += 1
        means = {"train": float(train[counted].mean()), "validation": float(valid[counted].mean())}
        return {"epoch": self.epoch - 1, **means}

    def state(self) -> dict[str, Any]:
        """Everything needed to go on with the same members; `torch.load(weights_only=True)` reads it."""
        own = {name: getattr(self, name) for name in ("epoch", "stale", "best_loss", "history")}
        return own | {"stacks": [stack.state() for stack in self.stacks]}

    def load_state(self, state: dict[str, Any]) -> None:
        """The inverse of `state`, in a training that was just made."""
        for name in ("epoch", "stale", "best_loss", "history"):
            setattr(self, name, state[name])
        for stack, saved in zip(self.stacks, state["stacks"], strict=True):
            stack.load_state(saved, self.epoch)

    def converged(self, k: int) -> bool:
        """Whether every member of a set, here or elsewhere, has reached a finite loss."""
        mine = slice(k * self.config.members, (k + 1) * self.config.members)
        return bool(torch.isfinite(self.best_loss[mine]).all())

    def piece(self, k: int) -> dict[str, torch.Tensor]:
        """Weights at their best epochs, and buffers, of those members of a set that were trained here: (members, ...).

        Raises:
            UserError: the set has not `converged`.
        """
        if not self.converged(k):
            raise UserError("the background flow diverged: no member reached a finite validation loss")
        found: dict[int, dict[str, torch.Tensor]] = {}
        for stack in self.stacks:
            state = stack.ensemble.state_dict() | stack.best
            for at, (of, member) in enumerate(stack.members):
                if of == k:
                    found[member] = {name: value[at].cpu() for name, value in state.items()}
        first = found[min(found)]
        return {name: torch.stack([found[m][name] for m in sorted(found)]) for name in first}

    def flow(self, k: int, pieces: Sequence[dict[str, torch.Tensor]] | None = None) -> ConditionalFlow:
        """The flows of a set on the CPU; ``pieces`` (see `piece`) of all its members if not all were trained here."""
        pieces = [self.piece(k)] if pieces is None else pieces
        data = self.sets[k]
        model = {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}
        if data is None or len(next(iter(model.values()))) != self.config.members:
            raise ValueError("some members were trained elsewhere")
        mean, std = scale_of(data)
        given: dict[str, Any] = {
            "model": model,
            "shape": shape_of(self.config),
            "members": self.config.members,
            "mean": torch.from_numpy(mean),
            "std": torch.from_numpy(std),
            "mass": list(self.window),
            "part": torch.from_numpy(data.parts(self.folds)),
            "left_out": self.config.left_out(self.folds),
        }
        flow = ConditionalFlow.from_state(given)
        flow.history = self.history[k]
        return flow


def shape_of(config: FlowConfig) -> dict[str, Any]:
    """What `FlowEnsemble` needs of a configuration."""
    return config.model_dump(include={"layers", "hidden", "blocks", "transform", "bins", "mixing"})


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
