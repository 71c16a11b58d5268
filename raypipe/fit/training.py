"""What all trainings have in common: epochs, and a state after each from which they go on as if never interrupted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
import torch.distributed as dist


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
