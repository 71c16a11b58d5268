"""Adam with a cosine schedule, from PyTorch's functional kernel.

`torch.optim.Optimizer` imports PyTorch's compiler, and SymPy with it, when the first one is made: a core second of
every worker process, as much as the whole training of a small flow. The numbers are those of `torch.optim.Adam` with
``fused=True`` under `torch.optim.lr_scheduler.CosineAnnealingLR`, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch.nn import Parameter
from torch.optim.adam import adam

BETAS = (0.9, 0.999)
"""Memory of the two moments; PyTorch's default."""
EPSILON = 1e-8
"""PyTorch's default."""


class CosineAdam:
    """Adam (Kingma and Ba, 1412.6980) whose rate falls to zero as half a cosine (1608.03983, one period).

    Args:
        parameters: floating-point parameters of one device.
        rate: at the first step.
        steps: after which the rate is zero.
    """

    def __init__(self, parameters: Iterable[Parameter], rate: float, steps: int) -> None:
        self.parameters = list(parameters)
        self.rate, self.steps, self.taken = rate, steps, 0
        self._first, self._second = ([torch.zeros_like(p) for p in self.parameters] for _ in range(2))
        self._counts = [torch.zeros((), dtype=torch.float32, device=p.device) for p in self.parameters]

    def state(self) -> dict[str, Any]:
        """Everything needed to go on; no copies."""
        moments = {"first": self._first, "second": self._second, "counts": self._counts}
        return moments | {"rate": self.rate, "taken": self.taken}

    @torch.no_grad()
    def load_state(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        self.rate, self.taken = state["rate"], state["taken"]
        for own, name in ((self._first, "first"), (self._second, "second"), (self._counts, "counts")):
            for mine, value in zip(own, state[name], strict=True):
                mine.copy_(value)

    def forget_gradients(self) -> None:
        """Before a backward pass."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter; all must have a gradient."""
        adam(
            self.parameters,
            [p.grad for p in self.parameters],
            self._first,
            self._second,
            [],
            self._counts,  # type: ignore[misc]
            fused=True,
            amsgrad=False,
            beta1=BETAS[0],
            beta2=BETAS[1],
            lr=self.rate,
            weight_decay=0.0,
            eps=EPSILON,
            maximize=False,
        )
        self.taken += 1
        # By recursion, as PyTorch has it: the closed form rounds differently.
        before, now = (1 + math.cos(math.pi * t / self.steps) for t in (self.taken - 1, self.taken))
        self.rate = now / before * self.rate if before else 0.0
