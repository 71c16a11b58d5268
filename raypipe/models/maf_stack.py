"""Stacked masked autoregressive flows: all members through `raypipe.models.maf` on threads, with their gradient."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import torch

from raypipe.models.maf import Masks, Shape, backward_layer, forward_layer, inverse_layer, layers_of

GROUP = 80_000
"""Activations (members x hidden x events) of a group of members: about the size of a core's second-level cache."""
TILE = 1024  # Events that the inverse takes at a time

Turns = Sequence[torch.Tensor] | None
"""What lies between two layers: a matrix (M, d, d) for each such step, or nothing where the order is reversed."""


class StackedFlow(torch.autograd.Function):
    """(x (M, n, d), context (M, n, 1), shape, masks, turns, keep, *parameters) -> noise (M, n, d), log-det (M, n)."""

    @staticmethod
    def forward(ctx: Any, x, context, shape: Shape, masks: Masks, turns: Turns, keep: bool, *parameters: torch.Tensor):
        layers = layers_of(shape, masks, parameters, None)
        rows, c = x.mT.contiguous(), _context(context)
        noise, logs = torch.empty_like(rows), x.new_zeros(x.shape[:2])
        groups = _groups(x, layers[0].initial.shape[1])
        kept: list[list[tuple]] = [[] for _ in groups]

        def one(index: int) -> None:
            part = groups[index]
            value = rows[part]
            for at, layer in enumerate(layers):
                if at:
                    value = _mix(value, turns, at, part)
                value, log, save = forward_layer(shape, layer.members(part), value, c[part])
                logs[part] += log
                if keep:
                    kept[index].append(save)
            noise[part] = value

        run_all(one, len(groups))
        ctx.state = (shape, masks, turns, layers, c, groups, kept, [p.shape for p in parameters])
        return noise.mT, logs

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g_noise: torch.Tensor, g_logs: torch.Tensor):
        shape, masks, turns, layers, c, groups, kept, shapes = ctx.state
        g_rows, g_logs = g_noise.mT.contiguous(), g_logs.contiguous()
        gx = torch.empty_like(g_rows)
        gradients = [g_rows.new_empty(size) for size in shapes]
        each = len(gradients) // shape.layers
        mask = [masks.initial, None, None, None, *[None, None, masks.inner, None, masks.inner, None] * shape.blocks]
        mask += [masks.final, None]

        def one(index: int) -> None:
            part = groups[index]
            g = g_rows[part]
            for at in reversed(range(shape.layers)):
                own = layers[at].members(part)
                g, found = backward_layer(shape, own, c[part], kept[index][at], g.contiguous(), g_logs[part])
                for out, value, m in zip(gradients[at * each : (at + 1) * each], found, mask, strict=True):
                    if m is None:
                        out[part] = value
                    else:
                        torch.mul(value, m, out=out[part])
                if at:
                    g = _mix(g, turns, at, part, back=True)
            gx[part] = g

        run_all(one, len(groups))
        return gx.mT, None, None, None, None, None, *gradients


def _mix(value: torch.Tensor, turns: Turns, at: int, part: slice, back: bool = False) -> torch.Tensor:
    """(m, d, n) from the layer before ``at`` to the next, or ``back``, which is also the way of a gradient."""
    if turns is None:
        return value.flip(1)
    matrix = turns[at - 1][part]
    return torch.bmm(matrix.mT if back else matrix, value)


@torch.no_grad()
def inverse(
    noise: torch.Tensor,
    context: torch.Tensor,
    shape: Shape,
    masks: Masks,
    turns: Turns,
    parameters: Sequence[torch.Tensor],
) -> torch.Tensor:
    """Samples (M, n, d) from noise (M, n, d) at masses (M, n, 1)."""
    degrees, order = masks.degrees.sort(stable=True)
    ends = [int((degrees <= i).sum()) for i in range(shape.features)]
    layers = layers_of(shape, masks, parameters, order)
    out = torch.empty_like(noise)
    parts = [
        (group, slice(start, start + TILE))
        for group in _groups(noise[:, :TILE], len(order))
        for start in range(0, noise.shape[1], TILE)
    ]

    def one(index: int) -> None:
        part, events = parts[index]
        value, c = noise[part, events].mT, _context(context[part, events])
        work = [value.new_empty(len(value), len(order), value.shape[2]) for _ in range(1 + 2 * shape.blocks)]
        for at in reversed(range(shape.layers)):
            value = inverse_layer(shape, layers[at].members(part), ends, value, c, work)
            if at:
                value = _mix(value, turns, at, part, back=True)
        out[part, events] = value.mT

    run_all(one, len(parts))
    return out


def _context(context: torch.Tensor) -> torch.Tensor:
    """(M, n, 1) -> (M, 2, n): a row of ones over the masses."""
    masses = context.mT
    return torch.cat([torch.ones_like(masses), masses], 1)


def _groups(x: torch.Tensor, hidden: int) -> list[slice]:
    """Neighbouring members whose activations fit together."""
    size = max(1, GROUP // max(1, hidden * x.shape[1]))
    return [slice(start, start + size) for start in range(0, len(x), size)]


_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}


def run_all(task: Callable[[int], None], count: int) -> None:
    """Call ``task(0..count-1)``, on as many threads as torch has here, each of which computes alone."""
    threads = torch.get_num_threads()
    if threads == 1 or count == 1:
        for index in range(count):
            task(index)
        return

    def alone(index: int) -> None:
        with torch.no_grad():  # a thread's own switch
            task(index)

    list(_pool(threads).map(alone, range(count)))


def _pool(threads: int) -> ThreadPoolExecutor:
    key = os.getpid(), threads  # threads do not survive a fork
    if key not in _pools:
        pool = ThreadPoolExecutor(threads, "raypipe-flow", initializer=torch.set_num_threads, initargs=(1,))
        meet = Barrier(threads)
        list(pool.map(lambda _: meet.wait(), range(threads)))
        torch.set_num_threads(threads)  # the setting above holds for its own thread and for threads not yet born
        _pools[key] = pool
    return _pools[key]
