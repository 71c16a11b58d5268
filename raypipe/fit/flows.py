"""Train an ensemble of conditional flows on sideband latents, and draw background from it (CATHODE, 2109.00546)."""

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from raypipe.config import Flow as FlowConfig
from raypipe.errors import UserError
from raypipe.files import code_of, digest
from raypipe.fit.conditional import ConditionalFlow
from raypipe.fit.flow_stack import MIN_EVENTS, FlowStack, Member, Sidebands, blocks_of, scale_of, shape_of, steps_of
from raypipe.fit.training import Workers, finish
from raypipe.models import native
from raypipe.models.flow import FlowEnsemble


class FlowTraining:
    """The flows of several pseudo-data sets in training; None for a set of which no member is trained here.

    The data of a set fall into ``folds`` parts, of which each of its members leaves out ``config.leave_out`` (see
    `Flow.left_out`). All members keep the weights of one epoch, the best in the mean of their losses on what they left
    out. In a process group (torch.distributed) each process trains some of the members, and all know all losses.
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
        self.best_loss = torch.full((len(sets),), math.inf, dtype=torch.float64)
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
        """(sets,) mask: a set is final when the mean of its members was not better for ``patience`` epochs."""
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
        losses = torch.zeros(2, len(self.trained))
        for stack, places in zip(self.stacks, self.places, strict=True):
            if self.active[stack.sets].any():
                losses[0, places], losses[1, places] = stack.train_epoch().cpu(), stack.judge().cpu()
        return losses

    def finish_epoch(self, train: torch.Tensor, valid: torch.Tensor) -> dict[str, float]:
        """Keep the best, given the losses (sets x members,) of all; their means over sets that are not final."""
        active = self.active
        counted = active.repeat_interleave(self.config.members) & self.trained
        found = torch.where(counted, valid.double(), 0.0).view(len(self.sets), -1).sum(1)
        mean = found / counted.view(len(self.sets), -1).sum(1)  # of a final set NaN, which is not better
        better = mean < self.best_loss
        self.best_loss = torch.where(better, mean, self.best_loss)
        for stack, places in zip(self.stacks, self.places, strict=True):
            stack.keep(better.repeat_interleave(self.config.members)[places])
        self.stale = torch.where(better, torch.zeros_like(self.stale), self.stale + active)
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
        """Whether the members of a set, here and elsewhere, have reached a finite loss."""
        return bool(torch.isfinite(self.best_loss[k]))

    def piece(self, k: int) -> dict[str, torch.Tensor]:
        """Best weights and buffers (members, ...) of a set trained here; a `UserError` unless it has `converged`."""
        if not self.converged(k):
            raise UserError("the background flow diverged: its members reached no finite validation loss")
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
        (mean, std), shape, parts = scale_of(data), shape_of(self.config), data.parts(self.folds)
        ensemble = FlowEnsemble(features=len(mean), seeds=[0], **shape).holding(model)
        left_out = self.config.left_out(self.folds)
        return ConditionalFlow(ensemble, shape, mean, std, *self.window, self.history[k], parts, left_out)


__all__ = ["MIN_EVENTS", "ConditionalFlow", "FlowSet", "FlowTraining"]


@dataclass(frozen=True)
class FlowSet:
    """The flows of one pseudo-data set, before they are trained; masses of ``window`` (GeV) are mapped to [-1, 1]."""

    sidebands: Sidebands
    window: tuple[float, float]
    config: FlowConfig
    folds: int = 5
    device: str = "cpu"

    @property
    def key(self) -> str:
        """Hash of the events, the window, the configuration, the seed and the code."""
        data, arrays = self.sidebands, hashlib.sha256()
        for values in (data.latents, data.masses, *(() if data.posterior is None else (data.posterior,))):
            arrays.update(np.ascontiguousarray(values).tobytes())
        made_of = {"events": arrays.hexdigest(), "window": list(self.window), "seed": data.seed, "folds": self.folds}
        made_of |= {"flow": self.config.model_dump(mode="json"), "device": self.device}
        made_with = {"torch": torch.__version__, "kernel": native.name(), "code": code_of("raypipe.fit.flows")}
        return digest(made_of | made_with)

    @property
    def blocks(self) -> list[list[int]]:
        """See `raypipe.fit.flow_stack.blocks_of`."""
        return blocks_of(self.sidebands, self.config, self.folds)

    def kept(self, stage: Callable[..., dict[str, Any]] | None) -> tuple[ConditionalFlow, str | None]:
        """`fit` once for all that share the ``stage`` (`raypipe.search.result.Stage`), and the key of the state there;
        without one in this process, and no key."""
        if stage is None:
            return self.fit(), None
        return ConditionalFlow.from_state(stage("flow", key := self.key, lambda: self.fit().state())), key

    def fit(self) -> ConditionalFlow:
        """Train ``config.members`` flows in this process. Raises `UserError`: a flow that diverged."""
        training = FlowTraining([self.sidebands], self.window, self.config, folds=self.folds, device=self.device)
        finish(training)
        return training.flow(0)
