"""Many small fully connected networks as one: every layer of all of them is one batched matrix product.

Layout: ``weights[l]`` is (networks, outputs, inputs + 1), the last column the bias; activations are (networks,
features, events), so that the events of a batch lie contiguous in memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

LINKS = {"bce": torch.sigmoid, "mlc": torch.exp}
"""Loss -> derivative of its background term with respect to the network's output z (see `Backpropagation`)."""


def initial_weights(sizes: Sequence[int], rng: np.random.Generator) -> list[np.ndarray]:
    """Weights of one network, uniform in +-sqrt(6 / (inputs + outputs)) (Glorot & Bengio 2010), biases zero."""
    weights = []
    for inputs, outputs in itertools.pairwise(sizes):
        limit = np.sqrt(6.0 / (inputs + outputs))
        layer = np.zeros((outputs, inputs + 1))
        layer[:, :-1] = rng.uniform(-limit, limit, (outputs, inputs))
        weights.append(layer)
    return weights


class StackedMLP:
    """``networks`` multi-layer perceptrons of equal shape, ReLU inside, one linear output."""

    def __init__(self, weights: list[Tensor]) -> None:
        self.weights = weights

    @classmethod
    def initialise(
        cls,
        sizes: Sequence[int],
        generators: Sequence[np.random.Generator],
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> StackedMLP:
        """One network for each generator."""
        each = [initial_weights(sizes, rng) for rng in generators]
        return cls([torch.tensor(np.stack(layer), dtype=dtype, device=device) for layer in zip(*each, strict=True)])

    def __len__(self) -> int:
        return len(self.weights[0])

    @property
    def sizes(self) -> list[int]:
        """Inputs, hidden layers, 1."""
        return [self.weights[0].shape[2] - 1, *(w.shape[1] for w in self.weights)]

    def take(self, networks: Sequence[int] | Tensor) -> StackedMLP:
        """Copies of some of the networks."""
        index = torch.as_tensor(networks, device=self.weights[0].device)
        return StackedMLP([w[index] for w in self.weights])

    def outputs(self, x: Tensor) -> Tensor:
        """Linear outputs (networks, events) of every network for the same events ``x`` (events, features)."""
        h = x.T.expand(len(self), -1, -1)
        for layer, w in enumerate(self.weights):
            h = torch.baddbmm(w[:, :, -1:], w[:, :, :-1], h)
            if layer < len(self.weights) - 1:
                h = h.relu_()
        return h[:, 0]


class Backpropagation:
    """Gradients of a stack by hand, in buffers that are allocated once; ``batch``: events a step of one network.

    An event of weight w and network output z has the gradient ``a link(z) - b``, y = 1 for data, 0 for the reference:

        BCE  -w [ y log s(z) + (1-y) log(1 - s(z)) ]   ->  a = w,        b = w y,  link = sigmoid
        MLC   w [ (1-y) (e^z - 1) - y z ]              ->  a = w (1-y),  b = w y,  link = exp

    (paper B, equations 3.1 and 3.2, the latter with its sign mended: L = sum_reference (e^f - 1) - sum_data f).
    """

    def __init__(self, stack: StackedMLP, batch: int, loss: str) -> None:
        self.stack, self.link = stack, LINKS[loss]
        first = stack.weights[0]
        self.gradients = [torch.empty_like(w) for w in stack.weights]
        n, hidden = len(stack), stack.sizes[1:-1]
        # A hidden layer's activations with their row of ones, and the gradient with respect to them.
        self.hidden = [first.new_ones(n, width + 1, batch) for width in hidden]
        self.deltas = [first.new_empty(n, width, batch) for width in hidden]
        self.output = first.new_empty(n, 1, batch)
        self.use(n)

    def use(self, networks: int) -> None:
        """From now on only the first ``networks`` take part (views of the buffers, made once for many steps)."""
        k = networks
        self.w = [w[:k] for w in self.stack.weights]
        self.g = [g[:k] for g in self.gradients]
        self._w_in = [w[:, :, :-1].transpose(1, 2) for w in self.w]
        self._h = [h[:k] for h in self.hidden]
        self._h_out = [h[:, :-1] for h in self._h]
        self._h_t = [h.transpose(1, 2) for h in self._h]
        self._d = [d[:k] for d in self.deltas]
        self._z = self.output[:k]

    def step(self, x: Tensor, a: Tensor, b: Tensor, scale: Tensor) -> None:
        """Fill the gradients for one batch a network.

        ``x``: (networks, batch, features + 1), last column one. ``a``, ``b``: (networks, 1, batch). ``scale``:
        (networks, 1, 1), one over the number of events in the batch.
        """
        inputs = x.transpose(1, 2)
        for layer, out in enumerate(self._h_out):
            torch.bmm(self.w[layer], inputs, out=out)
            out.relu_()
            inputs = self._h[layer]
        z = self._z
        torch.bmm(self.w[-1], inputs, out=z)
        self.link(z, out=z)
        z.mul_(a).sub_(b).mul_(scale)
        torch.bmm(z, self._h_t[-1], out=self.g[-1])
        delta = torch.mul(self._w_in[-1], z, out=self._d[-1])
        for layer in range(len(self._d) - 1, -1, -1):
            # Zero where the ReLU was closed.
            torch.ops.aten.threshold_backward.grad_input(delta, self._h_out[layer], 0, grad_input=delta)
            torch.bmm(delta, self._h_t[layer - 1] if layer else x, out=self.g[layer])
            if layer:
                delta = torch.bmm(self._w_in[layer], delta, out=self._d[layer - 1])
