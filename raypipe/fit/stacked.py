"""Train all the small networks of many data sets together; each has its own random streams, keyed by its name."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from raypipe import seeds
from raypipe.config.multilepton import Networks
from raypipe.errors import UserError
from raypipe.fit.training import adam_step
from raypipe.models.stacked import Backpropagation, StackedMLP

STACK = 32  # Networks a stack on a CPU: their weights, Adam's moments and activations stay in the cache of a core


@dataclass(frozen=True)
class LabelledSample:
    """What one network is trained on: standardised features (n, d), data (True) or reference, weights not negative."""

    features: np.ndarray
    is_data: np.ndarray
    weights: np.ndarray

    def check(self, name: str, batch_size: int) -> None:
        """Fewer events than a batch, an empty class, NaN, or weights that are all zero are a `UserError`."""
        n = len(self.features)
        if n < batch_size:
            few = f"{n} events are fewer than one batch (networks.batch_size = {batch_size})"
            raise UserError(f"{name}: {few}: ask for less")
        finite = np.isfinite(self.features)
        if not finite.all():
            row, column = np.argwhere(~finite)[0]
            raise UserError(f"{name}: row {row}, feature number {column} is {self.features[row, column]}: not finite")
        if not np.isfinite(self.weights).all() or (self.weights < 0).any():
            row = int(np.argmin(np.isfinite(self.weights) & (self.weights >= 0)))
            raise UserError(f"{name}: row {row}: weight {self.weights[row]} is not a finite number >= 0")
        for label, rows in (("data", self.is_data), ("reference", ~self.is_data)):
            if not rows.any():
                raise UserError(f"{name}: the {label} have no events")
            if self.weights[rows].sum() == 0:
                raise UserError(f"{name}: all {label} weights are zero: nothing to learn from")


@dataclass(frozen=True)
class Network:
    """Which sample a network is trained on, and the key of its random streams."""

    sample: int
    key: tuple[str | int, ...]


def network_order(n: int, config: Networks, root: int, key: tuple[str | int, ...]) -> np.ndarray:
    """Rows of every batch of one network, (steps, batch) int32; -1 fills the last batch of an epoch."""
    steps = -(-n // config.batch_size)
    rng = seeds.generator(root, "network-order", *key)
    rows = np.full((config.epochs, steps * config.batch_size), -1, dtype=np.int32)
    for epoch in rows:
        epoch[:n] = rng.permutation(n)
    return rows.reshape(-1, config.batch_size)


def train_stack(
    samples: Sequence[LabelledSample],
    networks: Sequence[Network],
    config: Networks,
    loss: str,
    root: int,
    *,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    stack: int | None = None,
) -> StackedMLP:
    """One network for each of ``networks``, in stacks (`STACK` on a CPU); weights that are not finite: `UserError`."""
    stack = stack or (STACK if device == "cpu" else len(networks))
    each = (networks[start : start + stack] for start in range(0, len(networks), stack))
    parts = [_train(samples, part, config, loss, root, torch.device(device), dtype) for part in each]
    return StackedMLP([torch.cat(layers) for layers in zip(*(part.weights for part in parts), strict=True)])


def _bank(samples: Sequence[LabelledSample], used: list[int], loss: str) -> tuple[np.ndarray, dict[int, int]]:
    """Rows (features, 1, a, b) of the used samples one behind the other, then one row of zeros; first row of each."""
    rows, first, total = [], {}, 0
    for number in used:
        sample = samples[number]
        y, w = sample.is_data.astype(float), sample.weights
        a = w if loss == "bce" else w * (1 - y)
        rows.append(np.column_stack([sample.features, np.ones(len(y)), a, w * y]))
        first[number] = total
        total += len(y)
    rows.append(np.zeros((1, rows[0].shape[1])))
    return np.concatenate(rows), first


def _train(
    samples: Sequence[LabelledSample],
    networks: Sequence[Network],
    config: Networks,
    loss: str,
    root: int,
    device: torch.device,
    dtype: torch.dtype,
) -> StackedMLP:
    used = sorted({network.sample for network in networks})
    bank_rows, first = _bank(samples, used, loss)
    bank = torch.tensor(bank_rows, dtype=dtype, device=device)
    orders = [network_order(len(samples[n.sample].is_data), config, root, n.key) for n in networks]
    # Longest first: a network whose events are fewer finishes earlier, and the others go on as a shorter stack.
    ranking = sorted(range(len(networks)), key=lambda i: -len(orders[i]))
    steps = np.array([len(orders[i]) for i in ranking])
    rows = np.full((steps[0], len(networks), config.batch_size), len(bank_rows) - 1, dtype=np.int32)
    for place, i in enumerate(ranking):
        order = orders[i]
        rows[: len(order), place] = np.where(order < 0, len(bank_rows) - 1, order + first[networks[i].sample])
    filled = (rows < len(bank_rows) - 1).sum(2)
    scales = torch.tensor(1.0 / np.maximum(filled, 1), dtype=dtype, device=device)[:, :, None, None]
    sizes = [bank_rows.shape[1] - 3, *config.hidden, 1]
    generators = [seeds.generator(root, "network-weights", *networks[i].key) for i in ranking]
    model = StackedMLP.initialise(sizes, generators, str(device), dtype)
    _descend(model, bank, torch.from_numpy(rows).to(device), scales, steps, config, loss)
    back = np.argsort(ranking)
    bad = ~torch.stack([torch.isfinite(w).flatten(1).all(1) for w in model.weights]).all(0)
    if bad.any():
        key = networks[ranking[int(bad.nonzero()[0])]].key
        raise UserError(f"network {key}: its weights are not finite: lower networks.learning_rate")
    return model.take(list(back))


@torch.no_grad()
def _descend(
    model: StackedMLP, bank: Tensor, rows: Tensor, scales: Tensor, steps: np.ndarray, config: Networks, loss: str
) -> None:
    """All steps of all networks; ``rows`` is (steps, networks, batch), ``steps`` falls along the networks."""
    n, batch, columns = len(model), config.batch_size, bank.shape[1]
    work = Backpropagation(model, batch, loss)
    first, second = ([torch.zeros_like(w) for w in model.weights] for _ in range(2))
    counts = [torch.zeros((), dtype=torch.float32, device=bank.device) for _ in model.weights]
    gathered = bank.new_empty(n * batch, columns)
    start = 0
    while start < steps[0]:
        active = int((steps > start).sum())
        work.use(active)
        m, v = [t[:active] for t in first], [t[:active] for t in second]
        taken = gathered[: active * batch]
        event = taken.view(active, batch, columns)
        x, a, b = event[:, :, :-2], event[:, None, :, -2], event[:, None, :, -1]
        stop = int(steps[active - 1])
        for t in range(start, stop):
            torch.index_select(bank, 0, rows[t, :active].view(-1), out=taken)
            work.step(x, a, b, scales[t, :active])
            adam_step(work.w, work.g, (m, v, counts), config.learning_rate)
        start = stop


@torch.no_grad()
def ensemble_scores(stack: StackedMLP, features: np.ndarray, loss: str) -> np.ndarray:
    """Score (n,) float64: average over the networks of probabilities (BCE) or log-likelihood ratios (MLC) (paper B)."""
    x = torch.tensor(features, dtype=stack.weights[0].dtype, device=stack.weights[0].device)
    z = stack.outputs(x).double()
    return (torch.sigmoid(z) if loss == "bce" else z).mean(0).cpu().numpy()
