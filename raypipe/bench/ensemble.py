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
from raypipe.bench.base import Measurement, seconds
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
    x = torch.tensor(sample.features, dtype=dtype)
    y = torch.tensor(sample.is_data, dtype=dtype)
    w = torch.tensor(sample.weights, dtype=dtype)
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
    out = []
    for number in range(count):
        x = seeds.generator(ROOT, "bench-ensemble", number).normal(size=(2 * events, 3))
        out.append(LabelledSample(x, np.arange(2 * events) < events, np.ones(2 * events)))
    return out


def train_on_cores(
    samples: list[LabelledSample], networks: list[Network], config: Networks, loss: str, cores: int
) -> StackedMLP:
    """Stacks of `train_stack`, one thread of the pool a core."""
    parts = [networks[k::cores] for k in range(cores)]
    with ThreadPoolExecutor(cores) as pool:
        done = list(pool.map(lambda part: train_stack(samples, part, config, loss, ROOT), parts))
    where = np.argsort(np.concatenate([np.arange(len(networks))[k::cores] for k in range(cores)]))
    return StackedMLP([torch.cat(w)[where] for w in zip(*(d.weights for d in done), strict=True)])


def _losses(samples: list[LabelledSample], networks: list[Network], stack: StackedMLP, loss: str) -> np.ndarray:
    """Mean training loss of every network."""
    values = []
    for number, network in enumerate(networks):
        sample = samples[network.sample]
        score = ensemble_scores(stack.take([number]), sample.features, loss)
        values.append(mean_loss(score, sample.is_data, sample.weights, loss))
    return np.array(values)


def _faster_threads(sample: LabelledSample, config: Networks, loss: str) -> int:
    """Threads with which PyTorch trains one network fastest, by one epoch each after a warm-up."""
    short = config.model_copy(update={"epochs": 1})
    train_one(sample, ("warm-up",), short, loss, ROOT)
    times = []
    for threads in range(1, CORES + 1):
        torch.set_num_threads(threads)
        times.append(seconds(lambda: train_one(sample, ("warm-up",), short, loss, ROOT)))
    return 1 + int(np.argmin(times))


def _timed_share(
    samples: list[LabelledSample], share: list[Network], few: int, config: Networks, loss: str
) -> tuple[float, float, np.ndarray, np.ndarray]:
    """Seconds a network of both ways, and their networks' losses; the reference trains the first ``few`` only."""
    trained: list[StackedMLP] = []
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    ours = seconds(lambda: trained.append(train_on_cores(samples, share, config, loss, CORES)))
    chosen, one = share[:few], []
    torch.set_num_threads(_faster_threads(samples[0], config, loss))
    alone = seconds(lambda: one.extend(train_one(samples[n.sample], n.key, config, loss, ROOT) for n in chosen))
    torch.set_num_threads(before)
    single = StackedMLP([torch.cat(w) for w in zip(*(o.weights for o in one), strict=True)])
    losses = _losses(samples, share, trained[0], loss), _losses(samples, chosen, single, loss)
    return ours / len(share), alone / few, *losses


def _measure(config: Networks, loss: str, events: int, many: int, few: int, repeats: int) -> Measurement:
    samples = toy_samples(max(1, many // config.members), events)
    networks = [Network(i % len(samples), ("bench", i)) for i in range(many)]
    # Ours in shares, the reference in between: a busy machine then hurts both.
    cuts = [many * k // repeats for k in range(repeats + 1)]
    shares = [networks[a:b] for a, b in itertools.pairwise(cuts)]
    done = [_timed_share(samples, share, few, config, loss) for share in shares]
    ours, alone = [d[0] for d in done], [d[1] for d in done]
    stacked_loss, single_loss = np.concatenate([d[2] for d in done]), np.concatenate([d[3] for d in done])
    same = np.concatenate([d[2][:few] for d in done])

    def mean(values: np.ndarray) -> list[float]:
        return [float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))]

    detail = {
        "events": 2 * events,
        "epochs": config.epochs,
        "batch_size": config.batch_size,
        "cores": CORES,
        "networks_per_second": 1 / float(np.median(ours)),
        "reference_networks_per_second": 1 / float(np.median(alone)),
        "reference_measured_on": few * repeats,
        "reference_scaled_to": many,
        "loss_stacked": mean(stacked_loss),
        "loss_reference": mean(single_loss),
        "loss_stacked_of_the_same_networks": mean(same),
        "largest_loss_difference_same_network": float(np.abs(same - single_loss).max()),
    }
    name = f"networks: {many} stacked 3x50, {loss}, against one after another"
    medians = float(np.median(ours)) * many, float(np.median(alone)) * many
    target = 15.0 if config.epochs == 20 else None
    return Measurement(
        name, *medians, "s", [b / a for a, b in zip(ours, alone, strict=True)], "speed-up", target, detail=detail
    )


def run(smoke: bool) -> list[Measurement]:
    """Networks a second, 3 x 50 nodes, 20 epochs, 2500 + 2500 events, batches of 32 (paper B's sizes)."""
    if smoke:
        return [_measure(Networks(epochs=1), "mlc", events=200, many=64, few=2, repeats=1)]
    return [
        _measure(Networks(), "mlc", events=2500, many=1000, few=2, repeats=3),
        _measure(Networks(), "bce", events=2500, many=200, few=2, repeats=2),
    ]
