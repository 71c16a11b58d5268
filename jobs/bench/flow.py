"""Stacked flow ensembles against the same nflows models one after another: whole fits, and sampling.

A fit: the same 20 initial weights, batches, Adam, clipping, cosine schedule, validation after every epoch and best
weights kept; losses of both in the detail. CPU seconds on one thread, or wall seconds on two, of which the reference
uses one where that is faster. Sampling: ours checks that every draw maps back to its noise; both in double precision.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from nflows import transforms
from nflows.distributions import StandardNormal
from nflows.flows import Flow

from bench.base import CPU, SEED, WALL, Measurement, compared, faster, in_turn, threads, timed
from raypipe import seeds
from raypipe.config import Flow as FlowConfig
from raypipe.fit.flows import ConditionalFlow, FlowSet, Sidebands
from raypipe.models.flow import TAIL_BOUND

WINDOW = (105.0, 160.0)
FOLDS = 4
"""A quarter of the events of each member is held out."""
CHUNK = 8192
SHAPE = {"members": 20, "leave_out": 1, "layers": 6, "hidden": 64, "blocks": 2, "bins": 8}
TINY = {"leave_out": 1, "layers": 2, "hidden": 8, "blocks": 1, "bins": 4, "epochs": 1, "batch_size": 64}


def latents(n: int, features: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Two clusters whose means move with the mass, and masses in GeV: as clustered as an encoder's latents."""
    rng = seeds.generator(SEED, "bench-flow")
    mass = rng.uniform(*WINDOW, n)
    centre = np.where(rng.random(n) < 0.4, 1.5, -1.0)[:, None] + 0.02 * (mass[:, None] - 130)
    x = centre * np.linspace(0.3, 1.0, features) + rng.normal(size=(n, features)) * np.linspace(0.5, 1.0, features)
    return x.astype(np.float32), mass


def fit_flows(
    events: tuple[np.ndarray, np.ndarray], config: FlowConfig, folds: int, seed: int = SEED
) -> ConditionalFlow:
    """Whole fits of latents and masses."""
    return FlowSet(Sidebands(*events, seed), WINDOW, config, folds).fit()


def reference_flow(config: FlowConfig, features: int, seed: int) -> Flow:
    """nflows' own modules with the weights that `FlowEnsemble` draws from ``seed``."""
    sizes = {"features": features, "hidden_features": config.hidden, "context_features": 1, "num_blocks": config.blocks}
    tails = {"num_bins": config.bins, "tails": "linear", "tail_bound": TAIL_BOUND}
    layers: list[torch.nn.Module] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in range(config.layers):
            layers += [transforms.ReversePermutation(features)] if layer else []
            layers.append(transforms.MaskedPiecewiseRationalQuadraticAutoregressiveTransform(**sizes, **tails))
            # As ours: nflows reads it, its MADE never sets it.
            layers[-1].autoregressive_net.hidden_features = config.hidden
        return Flow(transforms.CompositeTransform(layers), StandardNormal([features]))


def train_one(x: torch.Tensor, c: torch.Tensor, config: FlowConfig, member: int) -> float:
    """Train one nflows flow as one would by hand, on the events of ``member``; its best validation loss."""
    flow = reference_flow(config, x.shape[1], seeds.integer(SEED, "flow-init", member))
    stream = seeds.generator(SEED, "flow-batches", member)
    part = seeds.generator(SEED, "flow-parts").permutation(np.arange(len(x)) % FOLDS)
    outside = np.isin(part, config.left_out(FOLDS)[member])
    valid, train = np.flatnonzero(outside), np.flatnonzero(~outside)
    batch = min(config.batch_size, len(train))
    steps = len(train) // batch
    optimiser = torch.optim.Adam(flow.parameters(), lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=config.epochs * steps)
    best = math.inf
    for _ in range(config.epochs):
        stream.shuffle(train)
        for step in range(steps):
            rows = torch.from_numpy(train[step * batch : (step + 1) * batch])
            loss = -flow.log_prob(x[rows], context=c[rows]).mean()
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(flow.parameters(), 5.0)
            optimiser.step()
            schedule.step()
        with torch.no_grad():
            loss = float(-flow.log_prob(x[valid], context=c[valid]).mean())
        if loss < best:
            best = loss
            {name: value.clone() for name, value in flow.state_dict().items()}  # kept, as ours keeps its best
    return best


@torch.no_grad()
def best_loss(fitted: ConditionalFlow, x: torch.Tensor, c: torch.Tensor, member: int) -> float:
    """Validation loss of a member of ours at its best epoch, nats."""
    rows, one = np.flatnonzero(np.isin(fitted.part, fitted.left_out[member])), fitted.pool([member]).ensemble
    return float(-one.log_prob(x[rows][None], c[rows][None]).mean())


def measure(config: FlowConfig, events: int, share: int, repeats: int, cores: int, target: float | None) -> Measurement:
    """One row: whole fits; the reference trains ``share`` of the flows a repetition, and is scaled."""
    values, mass = latents(events)
    x = torch.as_tensor((values - values.mean(0, dtype=np.float64)) / (values.std(0, dtype=np.float64) + 1e-9)).float()
    c = torch.as_tensor(2 * (mass - WINDOW[0]) / (WINDOW[1] - WINDOW[0]) - 1, dtype=torch.float32)[:, None]
    clock, unit, many = (CPU, "CPU s", "") if cores == 1 else (WALL, "s", "s")
    warm = config.model_copy(update={"members": FOLDS, "epochs": 1})
    fit_flows((values[:300], mass[:300]), warm, FOLDS)  # imports, and the compiled spline
    train_one(x[:300], c[:300], warm, 0)
    ours, theirs, alone = [], [], {}
    queue = itertools.cycle(range(config.members))
    for _ in range(repeats):
        with threads(cores):
            took, fitted = timed(lambda: fit_flows((values, mass), config, FOLDS), clock)
            ours.append(took)
        part = list(itertools.islice(queue, share))
        took, losses = faster(clock, cores, lambda part=part: {m: train_one(x, c, config, m) for m in part})
        theirs.append(took * config.members / share)
        alone |= losses
    pairs = np.array([(best_loss(fitted, x, c, member), loss) for member, loss in alone.items()])
    shape = f"{config.layers}x{config.hidden}x{config.blocks}"
    name = f"flow: {config.members} flows {shape}, batch {config.batch_size}, {cores} thread{many}"
    detail = {"events": events, "config": config.model_dump(mode="json"), "nflows_members_trained": len(alone)}
    detail |= dict(zip(("nll_stacked", "nll_nflows"), pairs.mean(0).tolist(), strict=True))
    detail["largest_nll_difference"] = float(np.abs(pairs[:, 0] - pairs[:, 1]).max())
    return compared(name, ours, theirs, target, unit=unit, **detail)


def run(smoke: bool) -> list[Measurement]:
    """20 flows of 6 layers x 64 x 2 blocks and 8 bins (the defaults), and of the demo's shape."""
    if smoke:
        return [measure(FlowConfig(**TINY, members=FOLDS), 300, 1, 1, 1, None)]
    rows = []
    for batch, cores in ((320, 1), (320, 2), (2048, 1)):
        epochs, events = (4, 8 * batch) if batch < 1000 else (2, 4 * batch)
        config = FlowConfig(**SHAPE, epochs=epochs, batch_size=batch, learning_rate=1e-3)
        rows.append(measure(config, events, 2, 3, cores, 5.0 if batch == 320 else None))
    demo = {"layers": 3, "hidden": 32, "blocks": 1, "bins": 6, "epochs": 4, "batch_size": 320, "learning_rate": 2e-3}
    return [*rows, measure(FlowConfig(**SHAPE | demo), 4000, 4, 3, 1, None)]


def measure_sampling(config: FlowConfig, samples: int, repeats: int, target: float | None) -> Measurement:
    """One row."""
    flow = fit_flows(latents(2000), config, 5)
    flow.ensemble.double()
    masses = seeds.generator(SEED, "bench-sampling").uniform(*WINDOW, samples)
    members = []
    for member in range(config.members):
        weights = {name.replace("/", "."): value[member] for name, value in flow.ensemble.state_dict().items()}
        members.append(reference_flow(config, flow.ensemble.features, 0).double())
        members[-1].load_state_dict(weights, strict=False)

    @torch.no_grad()
    def theirs() -> np.ndarray:
        torch.set_default_dtype(torch.float64)  # nflows draws its noise in the default precision
        parts = []
        for member, part in zip(members, np.array_split(flow._context(masses), len(members)), strict=True):
            for context in torch.from_numpy(part).split(CHUNK):
                parts.append(member.sample(1, context=context)[:, 0])
        torch.set_default_dtype(torch.float32)
        return (torch.cat(parts).numpy() * flow.std + flow.mean).astype(np.float32)

    with threads(1):
        noise = seeds.integer(SEED, "bench-noise")
        times, drawn = in_turn(repeats, CPU, lambda: flow.sample(masses, np.random.default_rng(noise)), theirs)
    # Quartiles: nflows keeps draws from tails that do not invert, and a handful of those owns every mean.
    own, other = (np.quantile(values[-1], [0.25, 0.5, 0.75], axis=0) for values in drawn)
    detail = {"largest_shift_of_a_quartile_in_their_range": float((np.abs(own - other) / (other[2] - other[0])).max())}
    detail |= {"config": config.model_dump(mode="json"), "samples_per_second": samples / float(np.median(times[0]))}
    name = f"flow sampling: {samples} samples of {config.members} members"
    return compared(name, *times, target, unit="CPU s", **detail)


def run_sampling(smoke: bool) -> list[Measurement]:
    """20 members at full shape; 20k samples stand for a million, since cost is linear in them but for a fixed part of
    ours that counts against us."""
    if smoke:
        return [measure_sampling(FlowConfig(**TINY, members=5), 500, 1, None)]
    return [measure_sampling(FlowConfig(**SHAPE, epochs=1, batch_size=320), 20_000, 3, 3.0)]
