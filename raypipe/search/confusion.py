"""How well trees, or a transformer with labels, tell process groups apart: confusion matrices (paper C, figure 8)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from raypipe import seeds
from raypipe.config import Embedding
from raypipe.errors import UserError
from raypipe.fit.batches import BatchPlan
from raypipe.fit.encoder import EncoderInputs, EncoderPlan, build_encoder, embed, learning_rate_factor
from raypipe.models.bdt import Train, train_here


@dataclass(frozen=True)
class Confusion:
    """Row-normalised confusion matrix: ``matrix[i, j]`` is the share of group i's test events called group j."""

    groups: tuple[int, ...]
    matrix: np.ndarray

    @property
    def diagonal(self) -> float:
        """Mean share of correct calls, every group counting the same."""
        return float(np.trace(self.matrix) / len(self.matrix))


def confusion_of(groups: tuple[int, ...], truth: np.ndarray, called: np.ndarray) -> Confusion:
    """The matrix of class indices ``truth`` (n,) and ``called`` (n,)."""
    counts = np.zeros((len(groups), len(groups)))
    np.add.at(counts, (truth, called), 1.0)
    if (counts.sum(1) == 0).any():
        raise UserError(f"group {groups[int(np.argmin(counts.sum(1)))]} has no test event: simulate more of it")
    return Confusion(groups, counts / counts.sum(1, keepdims=True))


def balanced(labels: np.ndarray, rows: np.ndarray, most: int, seed: int, what: str) -> np.ndarray:
    """At most ``most`` of ``rows`` in each group, the same number for all groups."""
    members = [rows[labels[rows] == g] for g in np.unique(labels[rows])]
    size = min(most, *(len(m) for m in members))
    rng = seeds.generator(seed, "confusion", what)
    return np.concatenate([rng.choice(m, size, replace=False) for m in members])


def tree_confusion(
    values: np.ndarray,
    labels: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
    *,
    seed: int,
    rounds: int = 150,
    depth: int = 5,
    engine: Train = train_here,
) -> Confusion:
    """Boosted trees on ``values`` (n, d): trained by ``engine`` on rows ``train``, judged on rows ``test``."""
    groups = tuple(int(g) for g in np.unique(labels[train]))
    index = np.searchsorted(groups, labels)
    parameters = {"objective": "multi:softprob", "num_class": len(groups), "tree_method": "hist", "max_depth": depth}
    parameters |= {"eta": 0.15, "subsample": 0.8, "nthread": 1, "verbosity": 0}
    parameters["seed"] = seeds.integer(seed, "confusion-trees")
    booster = engine(parameters, (values[train], index[train], None), rounds)
    return confusion_of(groups, index[test], booster.inplace_predict(values[test]).argmax(1))


def supervised_confusion(
    inputs: EncoderInputs,
    config: Embedding,
    test: np.ndarray,
    *,
    seed: int,
    on_epoch: Callable[[float], None] = lambda loss: None,
) -> Confusion:
    """A transformer of the encoder's size, its latent means the logits, trained on cross-entropy over its batches."""
    plan = EncoderPlan.of(inputs, config, seed)
    groups = plan.train.groups
    wide = config.model_copy(update={"encoder": config.encoder.model_copy(update={"latent": len(groups)})})
    model = build_encoder(wide, plan.scales, seeds.integer(seed, "supervised"))
    optimiser = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: learning_rate_factor(step, config))
    index = np.searchsorted(groups, inputs.group)
    best, best_state = np.inf, None

    def cross_entropy(batches: BatchPlan, step: int) -> torch.Tensor:
        rows = batches.batch(step)
        objects, event, group = (torch.as_tensor(a[rows]) for a in (inputs.objects, inputs.event, index))
        return nn.functional.cross_entropy(model.encode(objects, event)[0], group)

    for epoch in range(config.epochs):
        model.train()
        for step in range(epoch * config.steps_per_epoch, (epoch + 1) * config.steps_per_epoch):
            loss = cross_entropy(plan.train, step)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), config.gradient_clip)
            optimiser.step()
            schedule.step()
        model.eval()
        with torch.no_grad():
            value = float(np.mean([float(cross_entropy(plan.validation, s)) for s in range(plan.validation_steps)]))
        if value < best:
            best, best_state = value, {k: v.clone() for k, v in model.state_dict().items()}
        on_epoch(value)
    if best_state is None:
        raise UserError("the supervised transformer diverged: make embedding.learning_rate smaller")
    model.load_state_dict(best_state)
    logits, _ = embed(model, (inputs.objects[test], inputs.event[test]))
    return confusion_of(groups, index[test], logits.argmax(1))
