"""Stacked flow ensemble: `fit_flows`, against the same nflows models trained one after another.

Both sides do a whole fit: the same 20 initial weights, batches, Adam, clipping, cosine schedule, validation after every
epoch and best weights kept. The reference is nflows as it comes (`MaskedAffineAutoregressiveTransform` and
`MaskedPiecewiseRationalQuadraticAutoregressiveTransform`), in its own loop. Losses of both sides are in the detail.

Times are CPU seconds on one thread each: every core of a machine does the same, and a machine that others use stretches
wall time. A further row gives wall seconds of ours on two threads; the reference takes one or two, whichever is faster.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from nflows.distributions.normal import StandardNormal
from nflows.flows.base import Flow
from nflows.transforms.autoregressive import (
    MaskedAffineAutoregressiveTransform,
    MaskedPiecewiseRationalQuadraticAutoregressiveTransform,
)
from nflows.transforms.base import CompositeTransform
from nflows.transforms.permutations import ReversePermutation

from raypipe import seeds
from raypipe.bench.base import SEED, Measurement, compared, cpu_seconds, seconds, threads
from raypipe.config import Flow as FlowConfig
from raypipe.fit.flows import ConditionalFlow, fit_flows
from raypipe.models.flow import TAIL_BOUND

WINDOW = (105.0, 160.0)
MEMBERS = 20
FOLDS = 4
"""A quarter of the events of each member is held out."""


def latents(n: int, features: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Two clusters whose means move with the mass, and masses in GeV: as clustered as an encoder's latents."""
    rng = seeds.generator(SEED, "bench-flow")
    mass = rng.uniform(*WINDOW, n)
    centre = np.where(rng.random(n) < 0.4, 1.5, -1.0)[:, None] + 0.02 * (mass[:, None] - 130)
    x = centre * np.linspace(0.3, 1.0, features) + rng.normal(size=(n, features)) * np.linspace(0.5, 1.0, features)
    return x.astype(np.float32), mass


def reference_flow(config: FlowConfig, features: int, seed: int) -> Flow:
    """nflows' own modules with the weights that `FlowEnsemble` draws from ``seed``."""
    sizes = {"features": features, "hidden_features": config.hidden, "context_features": 1, "num_blocks": config.blocks}
    layers: list[torch.nn.Module] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in range(config.layers):
            layers += [ReversePermutation(features)] if layer else []
            if config.transform == "affine":
                layers.append(MaskedAffineAutoregressiveTransform(**sizes))
                continue
            tails = {"num_bins": config.bins, "tails": "linear", "tail_bound": TAIL_BOUND}
            layers.append(MaskedPiecewiseRationalQuadraticAutoregressiveTransform(**sizes, **tails))
            # As ours: nflows reads it, its MADE never sets it.
            layers[-1].autoregressive_net.hidden_features = config.hidden
        return Flow(CompositeTransform(layers), StandardNormal([features]))


def train_one(x: torch.Tensor, c: torch.Tensor, config: FlowConfig, member: int) -> list[float]:
    """Train one nflows flow as one would by hand, on the events of ``member``; its validation losses by epoch."""
    flow = reference_flow(config, x.shape[1], seeds.integer(SEED, "flow-init", member))
    stream = seeds.generator(SEED, "flow-batches", member)
    part = seeds.generator(SEED, "flow-parts").permutation(np.arange(len(x)) % FOLDS)
    outside = np.isin(part, config.left_out(FOLDS)[member])
    valid, train = np.flatnonzero(outside), np.flatnonzero(~outside)
    batch = min(config.batch_size, len(train))
    steps = len(train) // batch
    optimiser = torch.optim.Adam(flow.parameters(), lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=config.epochs * steps)
    losses, best = [], math.inf
    for _ in range(config.epochs):
        stream.shuffle(train)
        for step in range(steps):
            rows = torch.from_numpy(train[step * batch : (step + 1) * batch])
            loss = -flow.log_prob(x[rows], context=c[rows]).mean()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(flow.parameters(), 5.0)
            optimiser.step()
            schedule.step()
        with torch.no_grad():
            losses.append(float(-flow.log_prob(x[valid], context=c[valid]).mean()))
        if losses[-1] < best:
            best = losses[-1]
            {name: value.clone() for name, value in flow.state_dict().items()}  # kept, as ours keeps its best
    return losses


def measure(
    config: FlowConfig, events: int, *, members: int, share: int, repeats: int, cores: int, target: float | None
) -> Measurement:
    """One row: whole fits of ``members`` flows; the reference trains ``share`` of them a repetition, and is scaled."""
    values, mass = latents(events)
    x = torch.as_tensor((values - values.mean(0, dtype=np.float64)) / (values.std(0, dtype=np.float64) + 1e-9)).float()
    c = torch.as_tensor(2 * (mass - WINDOW[0]) / (WINDOW[1] - WINDOW[0]) - 1, dtype=torch.float32)[:, None]
    config = config.model_copy(update={"members": members, "leave_out": 1})
    clock, unit = (cpu_seconds, "CPU s") if cores == 1 else (seconds, "s")
    warm = config.model_copy(update={"members": FOLDS, "epochs": 1})
    fit_flows(values[:300], mass[:300], WINDOW, warm, seed=SEED, folds=FOLDS)  # imports, and the compiled spline
    train_one(x[:300], c[:300], warm, 0)
    ours, theirs, fits, alone = [], [], [], {}
    queue = itertools.cycle(range(members))
    for _ in range(repeats):
        with threads(cores):
            ours.append(clock(lambda: fits.append(fit_flows(values, mass, WINDOW, config, seed=SEED, folds=FOLDS))))
        part, tries = [next(queue) for _ in range(share)], []
        for number in range(1, cores + 1):  # small operations may be faster on one thread than on two
            with threads(number):
                took = clock(lambda part=part: alone.update({m: train_one(x, c, config, m) for m in part}))
            tries.append(took * members / share)
        theirs.append(min(tries))
    stacked = _best_losses(fits[0], x, c)
    pairs = np.array([(stacked[member], min(losses)) for member, losses in alone.items()])
    shape, many = f"{config.layers}x{config.hidden}x{config.blocks}", "s" if cores > 1 else ""
    name = f"flow: {members} {config.transform} flows {shape}, batch {config.batch_size}, {cores} thread{many}"
    detail = {"events": events, "config": config.model_dump(mode="json"), "nflows_members_trained": len(alone)}
    detail |= {"nll_stacked": float(pairs[:, 0].mean()), "nll_nflows": float(pairs[:, 1].mean())}
    detail["largest_nll_difference"] = float(np.abs(pairs[:, 0] - pairs[:, 1]).max())
    return compared(name, ours, theirs, target, unit=unit, **detail)


@torch.no_grad()
def _best_losses(fitted: ConditionalFlow, x: torch.Tensor, c: torch.Tensor) -> list[float]:
    """Validation loss of every member at its best epoch, nats."""
    losses = []
    for member, parts in enumerate(fitted.left_out):
        rows, one = np.flatnonzero(np.isin(fitted.part, parts)), fitted.pool([member]).ensemble
        losses.append(float(-one.log_prob(x[rows][None], c[rows][None]).mean()))
    return losses


def run(smoke: bool) -> list[Measurement]:
    """20 flows of 6 layers x 64 x 2 blocks and 8 bins (the defaults), and of the demo's shape."""
    if smoke:
        tiny = FlowConfig(layers=2, hidden=8, blocks=1, bins=4, epochs=1, batch_size=64)
        return [measure(tiny, 300, members=FOLDS, share=1, repeats=1, cores=1, target=None)]
    full = {"layers": 6, "hidden": 64, "blocks": 2, "bins": 8, "learning_rate": 1e-3}
    rows = []
    for transform, batch, cores, target in (
        ("spline", 320, 1, 5.0),
        ("spline", 320, 2, 5.0),
        ("spline", 2048, 1, None),
        ("affine", 320, 1, None),
        ("affine", 2048, 1, None),
    ):
        epochs, events = (4, 8 * batch) if batch < 1000 else (2, 4 * batch)
        config = FlowConfig(**full, epochs=epochs, transform=transform, batch_size=batch)
        rows.append(measure(config, events, members=MEMBERS, share=2, repeats=3, cores=cores, target=target))
    demo = FlowConfig(layers=3, hidden=32, blocks=1, bins=6, epochs=4, batch_size=320, learning_rate=2e-3)
    return [*rows, measure(demo, 4000, members=MEMBERS, share=4, repeats=3, cores=1, target=None)]
