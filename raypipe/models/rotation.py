"""A fixed random rotation between the layers of a flow."""

from __future__ import annotations

from typing import Any

import torch
from nflows.transforms.base import Transform


class Rotation(Transform):
    """Turns (n, features) by a random orthogonal matrix, uniform over all (Haar); drawn once and never trained.

    An autoregressive layer treats its dimensions in turn. In a space whose axes mean nothing, layers that see it from
    several sides learn more than layers that see the same axes forwards and backwards.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        q, r = torch.linalg.qr(torch.randn(features, features, dtype=torch.float64))
        self.register_buffer("matrix", (q * r.diagonal().sign()).to(torch.get_default_dtype()))

    def forward(self, inputs: torch.Tensor, context: Any = None) -> tuple[torch.Tensor, torch.Tensor]:
        return inputs @ self.matrix.mT, inputs.new_zeros(len(inputs))

    def inverse(self, inputs: torch.Tensor, context: Any = None) -> tuple[torch.Tensor, torch.Tensor]:
        return inputs @ self.matrix, inputs.new_zeros(len(inputs))
