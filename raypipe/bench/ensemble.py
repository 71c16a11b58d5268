"""Many small networks: trained as stacks, against the same networks trained one after another in plain PyTorch.

Same events, initial weights, batches, epochs, batch size and optimiser on both sides, and both may use the same two
cores: ours as two threads that each train stacks, the reference with one or with two threads inside PyTorch, whichever
is faster. One after another takes the better part of an hour for a thousand networks, so it is measured on a subsample
and scaled by the number of networks.
"""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import nn

from raypipe import seeds
from raypipe.bench.base import Measurement, compared, seconds, threads
from raypipe.config.multilepton import Networks
from raypipe.fit.stacked import (
    LabelledSample,
    Network,
    ensemble_scores,
    initial_generator,
    network_order,
    train_stack,
)
from raypipe.models.stacked import StackedMLP, initial_weights
from raypipe.stats.comparison import mean_loss

ROOT = 20220301
CORES = 2


def train_one(
    sample: LabelledSample,
    key: tuple[str | int, ...],
    config: Networks,
    loss: str,
    root: int,
    dtype: torch.dtype = torch.float32,
) -> StackedMLP:
    """One network as one would write it in PyTorch (`nn.Sequential`, autograd, `torch.optim.Adam`), same streams."""
    sizes = [sample.features.shape[1], *config.hidden, 1]
    layers: list[nn.Module] = []
    for layer, w in enumerate(initial_weights(sizes, initial_generator(root, key))):
        linear = nn.Linear(w.shape[1] - 1, w.shape[0], dtype=dtype)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(w[:, :-1]))
            linear.bias.copy_(torch.from_numpy(w[:, -1]))
        layers += [linear] + ([nn.ReLU()] if layer < len(sizes) - 2 else [])
    model = nn.Sequential(*layers)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    x, y, w = (torch.tensor(v, dtype=dtype) for v in (sample.features, sample.is_data, sample.weights))
    for batch in network_order(len(x), config, root, key):
        rows = torch.from_numpy(batch[batch >= 0])
        z = model(x[rows])[:, 0]
        if loss == "bce":
            values = nn.functional.binary_cross_entropy_with_logits(z, y[rows], weight=w[rows])
        else:
            values = (w[rows] * ((1 - y[rows]) * (z.exp() - 1) - y[rows] * z)).mean()
        optimizer.zero_grad()
        values.backward()
        optimizer.step()
    linears = [layer for layer in model if isinstance(layer, nn.Linear)]
    return StackedMLP([torch.cat([m.weight, m.bias[:, None]], 1).detach()[None] for m in linears])


def toy_samples(count: int, events: int) -> list[LabelledSample]:
    """Two equal Gaussians in three dimensions, a different draw for every sample."""
    draws = [seeds.generator(ROOT, "bench-ensemble", k).normal(size=(2 * events, 3)) for k in range(count)]
    return [LabelledSample(x, np.arange(2 * events) < events, np.ones(2 * events)) for x in draws]


def train_on_cores(
    samples: list[LabelledSample], networks: list[Network], config: Networks, loss: str, cores: int
) -> StackedMLP:
    """Stacks of `train_stack`, one thread of the pool a core."""
    parts = [networks[k::cores] for k in range(cores)]
    with ThreadPoolExecutor(cores) as pool:
        done = list(pool.map(lambda part: train_stack(samples, part, config, loss, ROOT), parts))
    where = np.argsort(np.concatenate([np.arange(len(networks))[k::cores] for k in range(cores)]))
    return StackedMLP([w[where] for w in _joined(done).weights])


def _joined(stacks: list[StackedMLP]) -> StackedMLP:
    return StackedMLP([torch.cat(w) for w in zip(*(s.weights for s in stacks), strict=True)])


def _losses(samples: list[LabelledSample], networks: list[Network], stack: StackedMLP, loss: str) -> np.ndarray:
    """Mean training loss of every network."""
    own = [samples[network.sample] for network in networks]
    scores = [ensemble_scores(stack.take([k]), sample.features, loss) for k, sample in enumerate(own)]
    return np.array([mean_loss(f, s.is_data, s.weights, loss) for f, s in zip(scores, own, strict=True)])


def _faster_threads(sample: LabelledSample, config: Networks, loss: str) -> int:
    """Threads with which PyTorch trains one network fastest, by one epoch each after a warm-up."""
    short, times = config.model_copy(update={"epochs": 1}), []
    for number in (1, *range(1, CORES + 1)):
        with threads(number):
            times.append(seconds(lambda: train_one(sample, ("warm-up",), short, loss, ROOT)))
    return 1 + int(np.argmin(times[1:]))


def _timed_share(
    samples: list[LabelledSample], share: list[Network], few: int, config: Networks, loss: str
) -> tuple[float, float, np.ndarray, np.ndarray]:
    """Seconds a network of both ways, and their networks' losses; the reference trains the first ``few`` only."""
    stacks: list[StackedMLP] = []
    one: list[StackedMLP] = []
    with threads(1):
        ours = seconds(lambda: stacks.append(train_on_cores(samples, share, config, loss, CORES)))
    with threads(_faster_threads(samples[0], config, loss)):
        chosen = share[:few]
        alone = seconds(lambda: one.extend(train_one(samples[n.sample], n.key, config, loss, ROOT) for n in chosen))
    losses = _losses(samples, share, stacks[0], loss), _losses(samples, chosen, _joined(one), loss)
    return ours / len(share), alone / few, *losses


def _measure(config: Networks, loss: str, events: int, many: int, few: int, repeats: int) -> Measurement:
    """One row: ours in ``repeats`` shares, the reference in between: a busy machine then hurts both."""
    samples = toy_samples(max(1, many // config.members), events)
    networks = [Network(i % len(samples), ("bench", i)) for i in range(many)]
    cuts = [many * k // repeats for k in range(repeats + 1)]
    shares = [networks[a:b] for a, b in itertools.pairwise(cuts)]
    ours, alone, stacked, single = zip(*(_timed_share(samples, s, few, config, loss) for s in shares), strict=True)
    same, reference = np.concatenate([losses[:few] for losses in stacked]), np.concatenate(single)

    def mean(values: np.ndarray) -> list[float]:
        return [float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))]

    detail = {"events": 2 * events, "epochs": config.epochs, "batch_size": config.batch_size, "cores": CORES}
    detail |= {"networks_per_second": 1 / float(np.median(ours))}
    detail |= {"reference_networks_per_second": 1 / float(np.median(alone))}
    detail |= {"reference_measured_on": few * repeats, "reference_scaled_to": many}
    detail |= {"loss_stacked": mean(np.concatenate(stacked)), "loss_reference": mean(reference)}
    detail |= {"loss_stacked_of_the_same_networks": mean(same)}
    detail["largest_loss_difference_same_network"] = float(np.abs(same - reference).max())
    name = f"networks: {many} stacked 3x50, {loss}, against one after another"
    total = ([many * t for t in way] for way in (ours, alone))
    return compared(name, *total, 15.0 if config.epochs == 20 else None, **detail)


def run(smoke: bool) -> list[Measurement]:
    """Networks a second, 3 x 50 nodes, 20 epochs, 2500 + 2500 events, batches of 32 (paper B's sizes)."""
    if smoke:
        return [_measure(Networks(epochs=1), "mlc", events=200, many=64, few=2, repeats=1)]
    return [
        _measure(Networks(), "mlc", events=2500, many=1000, few=2, repeats=3),
        _measure(Networks(), "bce", events=2500, many=200, few=2, repeats=2),
    ]
