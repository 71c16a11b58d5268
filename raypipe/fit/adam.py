"""Adam with a cosine schedule, bit for bit `torch.optim.Adam` with ``fused=True`` under `CosineAnnealingLR`.

`torch.optim.Optimizer` imports PyTorch's compiler, a core second of every worker process.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim.adam import adam


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

    def forget_gradients(self) -> None:
        """Before a backward pass."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter; all must have a gradient."""
        gradients = [p.grad for p in self.parameters]
        adam_step(self.parameters, gradients, self._state, self.rate)
        self.taken += 1
        # By recursion, as PyTorch has it: the closed form rounds differently.
        before, now = (1 + math.cos(math.pi * t / self.steps) for t in (self.taken - 1, self.taken))
        self.rate = now / before * self.rate if before else 0.0
