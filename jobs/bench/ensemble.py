"""Many small networks: trained as stacks, against the same networks trained one after another in plain PyTorch.

Same events, initial weights, batches, epochs and optimiser. Both may use the same two cores: ours as two threads that
each train stacks, the reference as one or two threads of PyTorch, whichever is faster. The reference is measured on a
subsample and scaled by the number of networks: a thousand take the better part of an hour.
"""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import nn

from bench.base import WALL, Measurement, compared, faster, threads, timed
from raypipe import seeds
from raypipe.config.multilepton import Networks
from raypipe.fit import stacked
from raypipe.fit.stacked import LabelledSample, Network, ensemble_scores
from raypipe.models.stacked import StackedMLP, initial_weights
from raypipe.stats.comparison import mean_loss

ROOT, CORES = 20220301, 2


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
    for w in initial_weights(sizes, seeds.generator(root, "network-weights", *key)):
        linear = nn.Linear(w.shape[1] - 1, w.shape[0], dtype=dtype)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(w[:, :-1]))
            linear.bias.copy_(torch.from_numpy(w[:, -1]))
        layers += [linear, nn.ReLU()]
    model = nn.Sequential(*layers[:-1])
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    x, y, w = (torch.tensor(v, dtype=dtype) for v in (sample.features, sample.is_data, sample.weights))
    for batch in stacked.network_order(len(x), config, root, key):
        rows = torch.from_numpy(batch[batch >= 0])
        z = model(x[rows])[:, 0]
        if loss == "bce":
            values = nn.functional.binary_cross_entropy_with_logits(z, y[rows], weight=w[rows])
        else:
            values = (w[rows] * ((1 - y[rows]) * (z.exp() - 1) - y[rows] * z)).mean()
        optimizer.zero_grad()
        values.backward()
        optimizer.step()
    return StackedMLP([torch.cat([m.weight, m.bias[:, None]], 1).detach()[None] for m in model[::2]])


def toy_samples(count: int, events: int) -> list[LabelledSample]:
    """Two equal Gaussians in three dimensions, a different draw for every sample."""
    draws = [seeds.generator(ROOT, "bench-ensemble", k).normal(size=(2 * events, 3)) for k in range(count)]
    return [LabelledSample(x, np.arange(2 * events) < events, np.ones(2 * events)) for x in draws]


def _measure(config: Networks, loss: str, events: int, many: int, few: int, repeats: int) -> Measurement:
    """One row: ours in ``repeats`` shares; in between the reference trains the first ``few`` networks of each."""
    samples = toy_samples(max(1, many // config.members), events)
    networks = [Network(i % len(samples), ("bench", i)) for i in range(many)]

    def in_stacks(share: list[Network]) -> list[StackedMLP]:
        """One thread a core."""
        cuts = [len(share) * k // CORES for k in range(CORES + 1)]
        train = lambda part: stacked.train_stack(samples, share[slice(*part)], config, loss, ROOT)  # noqa: E731
        with threads(1), ThreadPoolExecutor(CORES) as pool:
            return list(pool.map(train, itertools.pairwise(cuts)))

    def one_by_one(share: list[Network], config: Networks = config) -> list[StackedMLP]:
        return [train_one(samples[n.sample], n.key, config, loss, ROOT) for n in share]

    def loss_of(network: Network, model: StackedMLP) -> float:
        s = samples[network.sample]
        return mean_loss(ensemble_scores(model, s.features, loss), s.is_data, s.weights, loss)

    one_by_one(networks[:1], config.model_copy(update={"epochs": 1}))  # imports and kernels
    ours, theirs, losses = [], [], []
    for cut in itertools.pairwise(many * k // repeats for k in range(repeats + 1)):
        share = networks[slice(*cut)]
        took, made = timed(lambda share=share: in_stacks(share))
        ours.append(took * many / len(share))
        took, alone = faster(WALL, CORES, lambda share=share: one_by_one(share[:few]))
        theirs.append(took * many / few)
        for k, (network, model) in enumerate(zip(share, alone, strict=False)):
            losses.append((loss_of(network, made[0].take([k])), loss_of(network, model)))
    detail = {"events": 2 * events, "epochs": config.epochs, "batch_size": config.batch_size, "cores": CORES}
    detail |= {"networks_per_second": many / float(np.median(ours)), "reference_measured_on": few * repeats}
    detail |= dict(zip(("loss_stacked", "loss_reference"), np.mean(losses, 0).tolist(), strict=True))
    detail["largest_loss_difference_same_network"] = float(np.abs(np.diff(losses)).max())
    name = f"networks: {many} stacked 3x50, {loss}, against one after another"
    return compared(name, ours, theirs, 15.0 if config.epochs == 20 else None, **detail)


def run(smoke: bool) -> list[Measurement]:
    """Networks a second, 3 x 50 nodes, 20 epochs, 2500 + 2500 events, batches of 32 (paper B's sizes)."""
    if smoke:
        return [_measure(Networks(epochs=1), "mlc", 200, 64, 2, 1)]
    return [_measure(Networks(), *row) for row in (("mlc", 2500, 1000, 2, 3), ("bce", 2500, 200, 2, 2))]
