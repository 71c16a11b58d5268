"""Ensembles of conditional masked autoregressive flows, stacked along a leading axis.

The members are nflows MAFs (1705.07057) with nflows' parameter names. On CPUs they are computed by
`raypipe.models.maf_stack`; the plain form, for GPUs and tests, maps nflows' own modules by `torch.func`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from nflows.distributions.normal import StandardNormal
from nflows.flows.base import Flow
from nflows.transforms.base import CompositeTransform
from nflows.transforms.permutations import ReversePermutation
from torch import nn
from torch.func import functional_call, stack_module_state

from raypipe.models import maf_stack
from raypipe.models.maf import Masks, Shape
from raypipe.models.maf_stack import StackedFlow
from raypipe.models.spline import Rotation, SplineAutoregressive

TAIL_BOUND = 5.0  # Standard deviations within which a spline layer acts; beyond it is the identity


def build_maf(
    features: int, *, layers: int, hidden: int, blocks: int, bins: int = 8, mixing: str = "reverse"
) -> nn.Module:
    """One conditional MAF of ``features`` dimensions given one number: an `nflows.flows.Flow`.

    A layer maps each dimension by a rational-quadratic spline of ``bins`` pieces. Between layers their order is
    reversed (``mixing="reverse"``), or they are turned by a fixed random orthogonal matrix (``"rotate"``).
    """
    sizes = {"features": features, "hidden_features": hidden, "context_features": 1, "num_blocks": blocks}
    transforms: list[nn.Module] = []
    for layer in range(layers):
        if layer:
            transforms.append(Rotation(features) if mixing == "rotate" else ReversePermutation(features))
        transforms.append(SplineAutoregressive(**sizes, num_bins=bins, tails="linear", tail_bound=TAIL_BOUND))
    return Flow(CompositeTransform(transforms), StandardNormal([features]))


class _Way(nn.Module):
    """A flow with one of its ways as the forward that functional_call needs."""

    def __init__(self, flow: nn.Module, way: Callable[[nn.Module, torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.flow, self.way = flow, way

    def forward(self, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        return self.way(self.flow, x, context)


WAYS = {
    "_log_prob": lambda flow, x, context: flow.log_prob(x, context=context),
    "_forward": lambda flow, x, context: flow._transform(x, context=context)[0],
    "_inverse": lambda flow, x, context: flow._transform.inverse(x, context=context)[0],
}
"""Log-density, samples to noise, and back; nflows' own `sample` draws float32 noise whatever the flow's precision."""


class FlowEnsemble(nn.Module):
    """M flows with stacked parameters (M, ...), a seed each; ``plain``: by nflows' own modules on CPUs too, slower."""

    def __init__(self, *, features: int, seeds: list[int], **shape: Any) -> None:
        super().__init__()
        self.features = features
        self.plain = False
        built = []
        for seed in seeds:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                built.append(build_maf(features, **shape))
        parameters, buffers = stack_module_state(built)
        # Neither is registered: they hold no parameters of their own, only the shape of the computation.
        template = copy.deepcopy(built[0]).to("meta")
        self.__dict__.update({name: _Way(template, way) for name, way in WAYS.items()})
        bins, scale = shape.get("bins", 8), math.sqrt(shape["hidden"])
        self.__dict__["shape"] = Shape(shape["layers"], shape["blocks"], features, bins, scale, TAIL_BOUND)
        self._names = {name.replace(".", "/"): name for name in [*parameters, *buffers]}
        for name, value in parameters.items():
            self.register_parameter(name.replace(".", "/"), nn.Parameter(value.detach().clone()))
        for name, value in buffers.items():
            self.register_buffer(name.replace(".", "/"), value)

    def holding(self, state: Mapping[str, torch.Tensor]) -> FlowEnsemble:
        """Flows of the same shape with the weights and buffers (members, ...) of a ``state_dict``."""
        if state.keys() != self.state_dict().keys():
            raise ValueError("the state is one of flows of another shape")
        other = copy.copy(self)
        other.__dict__["_parameters"] = {name: nn.Parameter(state[name]) for name in self._parameters}
        other.__dict__["_buffers"] = {name: state[name] for name in self._buffers}
        return other

    @property
    def members(self) -> int:
        """Number of flows."""
        return len(next(self.parameters()))

    def _state(self) -> dict[str, torch.Tensor]:
        own = dict(self.named_parameters()) | dict(self.named_buffers())
        return {f"flow.{name}": own[key] for key, name in self._names.items()}

    def log_prob(self, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Log-densities of member-wise batches: (M, n, d), (M, n, 1) -> (M, n)."""
        if not self._by_hand(x):
            return self._map(self._log_prob, x, context)
        noise, logs = self._stacked(x, context)
        return logs - 0.5 * (noise.square().sum(-1) + self.features * math.log(2 * math.pi))

    def noise(self, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """The noise that each sample comes from, the inverse of `inverse`: (M, n, d), (M, n, 1) -> (M, n, d)."""
        if not self._by_hand(x):
            return self._map(self._forward, x, context)
        return self._stacked(x, context)[0]

    def inverse(self, noise: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Samples from standard-normal noise: (M, n, d), (M, n, 1) -> (M, n, d)."""
        if not self._by_hand(noise) or torch.is_grad_enabled():
            return self._map(self._inverse, noise, context)
        return maf_stack.inverse(noise, context, self.shape, self._masks(), self._turns(), self._ordered())

    def _by_hand(self, x: torch.Tensor) -> bool:
        """On CPUs the hand-written form is the faster; a GPU's kernels are better served by the mapped one."""
        return x.device.type == "cpu" and not self.plain

    def _stacked(self, x: torch.Tensor, context: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        parameters = self._ordered()
        keep = torch.is_grad_enabled()
        return StackedFlow.apply(x, context, self.shape, self._masks(), self._turns(), keep, *parameters)

    def _ordered(self) -> list[torch.Tensor]:
        own = dict(self.named_parameters())
        return [own[name.replace(".", "/")] for name in self.shape.names()]

    def _masks(self) -> Masks:
        return Masks.of({name: getattr(self, key) for key, name in self._names.items()})

    def _turns(self) -> list[torch.Tensor] | None:
        """For each step between two layers a matrix (M, d, d); None where the order is reversed."""
        own = dict(self.named_buffers())
        found = [own[key] for key, name in self._names.items() if name.endswith(".matrix")]
        return found or None

    def _map(self, module: nn.Module, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        def one(state: dict[str, torch.Tensor], xs: torch.Tensor, cs: torch.Tensor) -> torch.Tensor:
            return functional_call(module, state, (xs, cs))

        return torch.vmap(one)(self._state(), x, context)
