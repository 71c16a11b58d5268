"""What all trainings have in common: epochs, and a state after each from which they go on as if never interrupted."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Parameter
from torch.optim.adam import adam


class _GatherWithGradient(torch.autograd.Function):
    """Concatenate every worker's tensor; the gradient of each piece is summed over workers and sent home."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor) -> torch.Tensor:
        pieces = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
        dist.all_gather(pieces, tensor.contiguous())
        ctx.rows = len(tensor)
        return torch.cat(pieces)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        gradient = gradients[0].contiguous()
        dist.all_reduce(gradient)
        start = dist.get_rank() * ctx.rows
        return gradient[start : start + ctx.rows]


class Workers:
    """This process's place among the workers; one worker when torch.distributed is not initialised."""

    def __init__(self) -> None:
        together = dist.is_available() and dist.is_initialized()
        self.size = dist.get_world_size() if together else 1
        self.rank = dist.get_rank() if together else 0

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """All workers' rows, in rank order, with gradients; every worker must hold the same number of rows."""
        return tensor if self.size == 1 else _GatherWithGradient.apply(tensor)

    def total(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum over workers, without gradient."""
        tensor = tensor.detach().clone()
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def objects(self, value: Any) -> list[Any]:
        """Every worker's value, in rank order; anything that pickles."""
        found: list[Any] = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(found, value)
        return found


OnEpoch = Callable[[dict[str, float]], None]  # Called with each epoch's record


class Training(Protocol):
    """A training in progress."""

    epoch: int  # Epochs done

    @property
    def finished(self) -> bool:
        """Whether there is no further epoch."""

    def run_epoch(self) -> dict[str, float]:
        """Train for one epoch; its record."""

    def state(self) -> dict[str, Any]:
        """Tensors and plain values, as `torch.load(weights_only=True)` reads them."""

    def load_state(self, state: dict[str, Any]) -> None:
        """The inverse of `state`, in a training that was just made of the same inputs."""


def finish(training: Training, on_epoch: OnEpoch | None = None) -> None:
    """Run all epochs that are left."""
    while not training.finished:
        record = training.run_epoch()
        if on_epoch:
            on_epoch(record)


def adam_step(parameters: list[Tensor], gradients: list[Tensor], state: Sequence[list[Tensor]], rate: float) -> None:
    """Move the parameters by PyTorch's fused kernel, with its defaults; ``state``: both moments and step counts."""
    how = {"fused": True, "amsgrad": False, "maximize": False, "weight_decay": 0.0}
    first, second, counts = state
    adam(parameters, gradients, first, second, [], counts, beta1=0.9, beta2=0.999, eps=1e-8, lr=rate, **how)


class CosineAdam:
    """Adam (1412.6980) whose ``rate`` falls to zero after ``steps`` as half a cosine (1608.03983, one period)."""

    def __init__(self, parameters: Iterable[Parameter], rate: float, steps: int) -> None:
        self.parameters = list(parameters)
        self.rate, self.steps, self.taken = rate, steps, 0
        counts = [torch.zeros((), dtype=torch.float32, device=p.device) for p in self.parameters]
        self._state = *([torch.zeros_like(p) for p in self.parameters] for _ in range(2)), counts

    def state(self) -> dict[str, Any]:
        """Everything needed to go on; no copies."""
        moments = dict(zip(("first", "second", "counts"), self._state, strict=True))
        return moments | {"rate": self.rate, "taken": self.taken}

    @torch.no_grad()
    def load_state(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        self.rate, self.taken = state["rate"], state["taken"]
        for own, name in zip(self._state, ("first", "second", "counts"), strict=True):
            for mine, value in zip(own, state[name], strict=True):
                mine.copy_(value)

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter; all must have a gradient."""
        gradients = [p.grad for p in self.parameters]
        adam_step(self.parameters, gradients, self._state, self.rate)
        self.taken += 1
        # By recursion, as PyTorch has it: the closed form rounds differently.
        before, now = (1 + math.cos(math.pi * t / self.steps) for t in (self.taken - 1, self.taken))
        self.rate = now / before * self.rate if before else 0.0
