"""Layers of stacked masked autoregressive flows written out by hand: forward, gradient and inverse of m members.

The function is nflows' (MADE of Germain et al. 1502.03509 with residual blocks, see `raypipe.models.flow.build_maf`).
Events lie along the last axis, (M, features, n); biases and the context ride in the matrix products as extra columns.
The inverse computes every hidden unit once: units of degree i are known as soon as dimension i is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from raypipe.models.spline import apply_rows, gradient_rows


@dataclass(frozen=True)
class Shape:
    """What the stacked parameters do not tell by themselves."""

    layers: int
    blocks: int
    features: int
    bins: int
    scale: float  # Divisor of a spline's unnormalised widths and heights: the root of the hidden features
    bound: float

    @property
    def width(self) -> int:
        """Parameters of one dimension."""
        return 3 * self.bins - 1

    @property
    def spline(self) -> dict[str, float]:
        """Of every dimension."""
        return {"bins": self.bins, "bound": self.bound, "scale": self.scale}

    def parts(self) -> list[str]:
        """The linear maps of a layer, in nflows' names."""
        maps = ("context_layer", "linear_layers.0", "linear_layers.1")
        inner = [f"blocks.{block}.{part}" for block in range(self.blocks) for part in maps]
        return ["initial_layer", "context_layer", *inner, "final_layer"]

    def names(self) -> list[str]:
        """nflows' parameter names, layer after layer: weight and bias of every part."""
        nets = [f"_transform._transforms.{2 * layer}.autoregressive_net" for layer in range(self.layers)]
        return [f"{net}.{part}.{kind}" for net in nets for part in self.parts() for kind in ("weight", "bias")]


@dataclass(frozen=True)
class Masks:
    """Which weights exist, equal in every layer and member; hidden units have degrees 0..features-1."""

    initial: torch.Tensor
    inner: torch.Tensor
    final: torch.Tensor
    degrees: torch.Tensor

    @staticmethod
    def of(buffers: Mapping[str, torch.Tensor]) -> Masks:
        """Read from nflows' stacked buffers."""
        net = "_transform._transforms.0.autoregressive_net."
        initial, final = buffers[net + "initial_layer.mask"][0], buffers[net + "final_layer.mask"][0]
        degrees = buffers[net + "initial_layer.degrees"][0]
        return Masks(initial, (degrees[:, None] >= degrees).to(initial), final, degrees)


@dataclass
class Layer:
    """Weights of one layer, masked, biases in front: (m, out, in).

    ``initial``: (m, h, 1 + d). ``context``: (m, h, 2). ``blocks``: context with first bias (m, h, 2), first map, second
    map (m, h, h), second bias (m, h, 1).
    """

    initial: torch.Tensor
    context: torch.Tensor
    blocks: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]]
    final: torch.Tensor
    bias: torch.Tensor

    def members(self, part: slice) -> Layer:
        blocks = [(a[part], b[part], c[part], d[part]) for a, b, c, d in self.blocks]
        return Layer(self.initial[part], self.context[part], blocks, self.final[part], self.bias[part])


def layers_of(
    shape: Shape, masks: Masks, parameters: Sequence[torch.Tensor], order: torch.Tensor | None
) -> list[Layer]:
    """Masked weights of every layer; ``order`` sorts the hidden units (the function stays the same)."""

    def take(weight: torch.Tensor, *dims: int) -> torch.Tensor:
        for dim in () if order is None else dims:
            weight = weight.index_select(dim, order)
        return weight

    made, each = [], 2 * len(shape.parts())
    for layer in range(shape.layers):
        values = iter(parameters[layer * each : (layer + 1) * each])
        weight, bias = next(values), next(values)
        initial = take(torch.cat([bias[..., None], weight * masks.initial], -1), 1)
        weight, bias = next(values), next(values)
        context = take(torch.cat([bias[..., None], weight], -1), 1)
        blocks = []
        for _ in range(shape.blocks):
            cw, cb, w1, b1, w2, b2 = (next(values) for _ in range(6))
            c1 = take(torch.cat([(cb + b1)[..., None], cw], -1), 1)
            w1, w2 = (take(w * masks.inner, 1, 2) for w in (w1, w2))
            blocks.append((c1, w1, w2, take(b2[..., None], 1)))
        weight, bias = next(values), next(values)
        made.append(Layer(initial, context, blocks, take(weight * masks.final, 2), bias[..., None]))
    return made


def forward_layer(shape: Shape, w: Layer, x: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, tuple]:
    """x: (m, d, n) and c: (m, 2, n), ones over masses; returns output, log-determinant, what the gradient needs."""
    x1 = torch.cat([c[:, :1], x], 1)
    gate = torch.bmm(w.context, c).relu_()
    h = torch.baddbmm(gate, w.initial, x1)
    kept = []
    for context, first, second, bias in w.blocks:
        r = h.relu()
        t = torch.bmm(context, c).baddbmm_(first, r).relu_()
        h.baddbmm_(second, t).add_(bias)
        kept.append((r, t))
    params = torch.baddbmm(w.bias, w.final, h)
    y, logs = apply_rows(x, params, **shape.spline)
    return y, logs, (x1, gate, kept, h, params)


def backward_layer(
    shape: Shape, w: Layer, c: torch.Tensor, kept: tuple, gy: torch.Tensor, gl: torch.Tensor
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Gradient of the input (m, d, n), and of weight and bias of every part, not yet masked."""
    x1, gate, blocks, h, params = kept
    cut = torch.ops.aten.threshold_backward
    gx, gp = gradient_rows(x1[:, 1:].contiguous(), params, gy, gl, **shape.spline)
    found = [torch.bmm(gp, h.mT), gp.sum(-1)]
    gh = torch.bmm(w.final.mT, gp)
    for (_, first, second, _), (r, t) in zip(reversed(w.blocks), reversed(blocks), strict=True):
        gt = cut(torch.bmm(second.mT, gh), t, 0)
        gc = torch.bmm(gt, c.mT)
        found = [gc[..., 1:], gc[..., 0], torch.bmm(gt, r.mT), gc[..., 0], torch.bmm(gh, t.mT), gh.sum(-1), *found]
        gh += cut(torch.bmm(first.mT, gt), r, 0)
    g1 = torch.bmm(gh, x1.mT)
    gc = torch.bmm(cut(gh, gate, 0), c.mT)
    found = [g1[..., 1:], g1[..., 0], gc[..., 1:], gc[..., 0], *found]
    return gx.baddbmm_(w.initial[..., 1:].mT, gh), found


def inverse_layer(
    shape: Shape, w: Layer, ends: list[int], y: torch.Tensor, c: torch.Tensor, work: list[torch.Tensor]
) -> torch.Tensor:
    """(m, d, n) -> (m, d, n). Hidden units sorted by degree; ``ends[i]``: units of degree <= i; ``work``: buffers."""
    d, hidden = shape.features, work[0]
    x1 = torch.cat([c[:, :1], torch.zeros_like(y)], 1)
    start = 0
    for i in range(d):
        end = ends[i]
        if end > start:
            new = slice(start, end)
            h = torch.bmm(w.context[:, new], c).relu_()
            h.baddbmm_(w.initial[:, new, : i + 1], x1[:, : i + 1])
            for (context, first, second, bias), r, t in zip(w.blocks, work[1::2], work[2::2], strict=True):
                r[:, new] = h.relu()
                fresh = torch.bmm(context[:, new], c).baddbmm_(first[:, new, :end], r[:, :end])
                t[:, new] = fresh.relu_()
                h.baddbmm_(second[:, new, :end], t[:, :end]).add_(bias[:, new])
            hidden[:, new] = h
        rows = slice(i * shape.width, (i + 1) * shape.width)
        params = torch.baddbmm(w.bias[:, rows], w.final[:, rows, :end], hidden[:, :end])
        x1[:, i + 1 : i + 2] = apply_rows(y[:, i : i + 1].contiguous(), params, **shape.spline, inverse=True)[0]
        start = end
    return x1[:, 1:]
