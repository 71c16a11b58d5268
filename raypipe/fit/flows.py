"""Train an ensemble of conditional flows on sideband latents, and draw background events from it (CATHODE step one).

Source: paper C, section III.2, and CATHODE (2109.00546): a density p(latent | m_yy) learned in the sidebands is
interpolated to masses of the signal region.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from raypipe import seeds
from raypipe.config import Flow as FlowConfig
from raypipe.errors import UserError
from raypipe.files import code_digest, digest
from raypipe.fit.adam import CosineAdam
from raypipe.models.flow import FlowEnsemble

MIN_EVENTS = 200
"""Fewer sideband events than this cannot constrain a density in six dimensions."""


@dataclass
class ConditionalFlow:
    """A trained flow ensemble with its input scaling; latents (n, d) given masses (n,) in GeV."""

    ensemble: FlowEnsemble
    shape: dict[str, Any]
    """layers, hidden, blocks, transform, bins, mixing: what `FlowEnsemble` needs to be built again."""
    mean: np.ndarray
    std: np.ndarray
    mass_low: float
    mass_high: float
    history: list[dict[str, float]] = field(default_factory=list)
    """Per epoch: mean training and validation negative log-likelihood in nats."""
    part: np.ndarray = field(default_factory=lambda: np.empty(0, np.int8))
    """(n,) part of the fitted data that each row belongs to."""
    left_out: list[tuple[int, ...]] = field(default_factory=list)
    """For each member, the parts on which it was not trained."""

    def _context(self, masses: np.ndarray) -> np.ndarray:
        masses = np.asarray(masses, dtype=np.float64)
        return (2 * (masses - self.mass_low) / (self.mass_high - self.mass_low) - 1)[:, None]

    def log_prob(self, latents: np.ndarray, masses: np.ndarray) -> np.ndarray:
        """Log-density of the member average (a mixture of the members): (n,) in nats of latent units."""
        x = torch.as_tensor((latents - self.mean) / self.std, dtype=torch.float64)
        c = torch.as_tensor(self._context(masses), dtype=torch.float64)
        members = self.ensemble.members
        with torch.no_grad():
            logs = self.ensemble.double().log_prob(x.expand(members, -1, -1), c.expand(members, -1, -1))
        return (torch.logsumexp(logs, 0) - math.log(members)).numpy() - np.log(self.std).sum()

    def pool(self, members: Sequence[int]) -> ConditionalFlow:
        """Some of the members as an ensemble of their own."""
        index = torch.as_tensor(list(members))
        some = {name: value[index] for name, value in self.ensemble.state_dict().items()}
        return ConditionalFlow.from_state(self.state() | {"members": len(index), "model": some})

    def without(self, part: int) -> ConditionalFlow:
        """The members that were not trained on ``part`` of the data."""
        return self.pool([m for m, parts in enumerate(self.left_out) if part in parts])

    def sample(self, masses: np.ndarray, rng: np.random.Generator, chunk: int = 8192) -> np.ndarray:
        """One latent for each mass, the members taking turns: (n,) -> (n, d), float32.

        Sampling runs in float64. Every draw must map back to its noise within 1e-3; one that does not (an
        extrapolating tail) is drawn again.

        Raises:
            UserError: if after ten rounds some draws still do not invert, that is, the flow has diverged.
        """
        ensemble, members = self.ensemble.double(), self.ensemble.members
        out = np.empty((len(masses), self.ensemble.features))
        pending = np.arange(len(masses))
        for _ in range(10):
            if not len(pending):
                return (out * self.std + self.mean).astype(np.float32)
            bad = []
            for start in range(0, len(pending), chunk * members):
                rows = pending[start : start + chunk * members]
                padded = np.resize(rows, math.ceil(len(rows) / members) * members)
                noise = torch.from_numpy(rng.standard_normal((len(padded), ensemble.features)))
                noise = noise.view(members, -1, ensemble.features)
                context = torch.from_numpy(self._context(masses[padded])).view(members, -1, 1)
                with torch.no_grad():
                    drawn = ensemble.inverse(noise, context)
                    again = ensemble.noise(drawn, context)
                good = ((again - noise).abs().amax(-1) < 1e-3) & torch.isfinite(drawn).all(-1)
                out[rows] = drawn.reshape(len(padded), -1).numpy()[: len(rows)]
                bad.append(rows[~good.reshape(-1).numpy()[: len(rows)]])
            pending = np.concatenate(bad)
        raise UserError(f"the background flow diverged: {len(pending)} of {len(masses)} samples do not invert")

    def state(self) -> dict[str, object]:
        """A state that `torch.load(weights_only=True)` reads back."""
        return {
            "model": self.ensemble.state_dict(), "shape": self.shape, "members": self.ensemble.members,
            "mean": torch.from_numpy(self.mean), "std": torch.from_numpy(self.std),
            "mass": [self.mass_low, self.mass_high], "part": torch.from_numpy(self.part.copy()),
            "left_out": [list(parts) for parts in self.left_out],
        }  # fmt: skip

    @staticmethod
    def from_state(state: dict) -> ConditionalFlow:
        """The inverse of `state`."""
        mean, std = state["mean"].numpy(), state["std"].numpy()
        ensemble = FlowEnsemble(features=len(mean), seeds=list(range(state["members"])), **state["shape"])
        dtype = next(v for v in state["model"].values() if v.is_floating_point()).dtype
        ensemble.to(dtype).load_state_dict(state["model"])
        left_out = [tuple(parts) for parts in state["left_out"]]
        return ConditionalFlow(
            ensemble, state["shape"], mean, std, *state["mass"], part=state["part"].numpy(), left_out=left_out
        )


def fit_flows(
    latents: np.ndarray,
    masses: np.ndarray,
    window: tuple[float, float],
    config: FlowConfig,
    *,
    seed: int,
    folds: int = 5,
    device: str = "cpu",
    posterior: np.ndarray | None = None,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
) -> ConditionalFlow:
    """Train ``config.members`` flows together on (latents, masses) of the sidebands.

    The data fall into ``folds`` parts, of which each member leaves out ``config.leave_out`` (see `Flow.left_out`): for
    every part there are members that know nothing of it. Each has its own initialisation and shuffling, keyed by
    (seed, member), and keeps the weights of its best epoch on the parts that it leaves out. One Adam updates all: its
    update is element-wise, so members do not touch each other.

    Args:
        latents: (n, d); masses: (n,) GeV; window: mass range mapped to [-1, 1].
        folds: parts of the data; a search takes as many as its classifier has folds.
        posterior: (n, 2, d) mean and standard deviation of the Gaussians from which the latents were drawn. With them
            a flow sees another draw of an event in each epoch. The latents are one draw of the density
            E[N(mean, sigma)] over events that flows are to learn; many draws show more of it, and overfit less. Best
            epochs are still selected with the latents as they are.

    Raises:
        UserError: too few sideband events, or NaN or infinite latents.
    """
    n, d = latents.shape
    if n < MIN_EVENTS:
        raise UserError(f"the sidebands hold {n} events, at least {MIN_EVENTS} are needed to learn a background")
    if not np.isfinite(latents).all():
        row, column = np.argwhere(~np.isfinite(latents))[0]
        raise UserError(f"latents, row {row}, dimension {column}: {latents[row, column]} is not finite")
    shape = config.model_dump(include={"layers", "hidden", "blocks", "transform", "bins", "mixing"})
    mean, std = latents.mean(0, dtype=np.float64), latents.std(0, dtype=np.float64) + 1e-9
    members = config.members
    ensemble = FlowEnsemble(
        features=d, seeds=[seeds.integer(seed, "flow-init", m) for m in range(members)], **shape
    ).to(device)  # fmt: skip
    flow = ConditionalFlow(ensemble, shape, mean, std, *window)
    x = torch.as_tensor((latents - mean) / std, dtype=torch.float32, device=device)
    c = torch.as_tensor(flow._context(masses), dtype=torch.float32, device=device)

    if posterior is not None:
        centre, width = (torch.as_tensor(a, dtype=torch.float32, device=device) for a in
                         ((posterior[:, 0] - mean) / std, posterior[:, 1] / std))  # fmt: skip
        noise = [torch.Generator(device).manual_seed(seeds.integer(seed, "flow-redraw", m)) for m in range(members)]

    streams = [seeds.generator(seed, "flow-batches", m) for m in range(members)]
    flow.part = seeds.generator(seed, "flow-parts").permutation((np.arange(n) % folds).astype(np.int8))
    flow.left_out = config.left_out(folds)
    outside = [np.isin(flow.part, parts) for parts in flow.left_out]
    train, held_out = _even([np.flatnonzero(~mask) for mask in outside]), _even([np.flatnonzero(m) for m in outside])
    valid = torch.from_numpy(held_out).to(device)
    batch = min(config.batch_size, train.shape[1])
    steps = train.shape[1] // batch
    optimiser = CosineAdam(ensemble.parameters(), config.learning_rate, config.epochs * steps)

    best_loss = torch.full((members,), math.inf, device=device)
    best = {name: value.detach().clone() for name, value in ensemble.named_parameters()}
    stale = 0
    for epoch in range(config.epochs):
        total = torch.zeros(members, device=device)
        for m, stream in enumerate(streams):
            stream.shuffle(train[m])
        plan = torch.from_numpy(train[:, : steps * batch].reshape(members, steps, batch)).to(device)
        for step in range(steps):
            rows = plan[:, step]
            if posterior is None:
                seen = x[rows]
            else:
                normal = [torch.randn(batch, d, generator=g, device=device) for g in noise]
                seen = torch.addcmul(centre[rows], width[rows], torch.stack(normal))
            losses = -ensemble.log_prob(seen, c[rows]).mean(1)
            optimiser.forget_gradients()
            losses.sum().backward()
            _clip_each_member(ensemble, 5.0)
            optimiser.step()
            total += losses.detach()
            del losses  # with it goes what the step kept for its gradient, before the next one keeps its own
        valid_loss = _evaluate(ensemble, x, c, valid)
        better = valid_loss < best_loss
        best_loss = torch.where(better, valid_loss, best_loss)
        for name, value in ensemble.named_parameters():
            best[name][better] = value.detach()[better]
        record = {
            "epoch": epoch, "train": float(total.mean() / steps), "validation": float(valid_loss.mean()),
        }  # fmt: skip
        flow.history.append(record)
        if on_epoch:
            on_epoch(record)
        stale = 0 if bool(better.any()) else stale + 1
        if stale >= config.patience:
            break
    if not torch.isfinite(best_loss).all():
        raise UserError("the background flow diverged: no member reached a finite validation loss")
    with torch.no_grad():
        for name, value in ensemble.named_parameters():
            value.copy_(best[name])
    ensemble.to("cpu")
    return flow


def fit_flows_once(
    latents: np.ndarray, masses: np.ndarray, window: tuple[float, float], config: FlowConfig, *, seed: int,
    folds: int = 5, device: str = "cpu", posterior: np.ndarray | None = None,
    stage: Callable[[str, str, Callable[[], dict[str, Any]]], dict[str, Any]] | None = None,
) -> tuple[ConditionalFlow, str | None]:  # fmt: skip
    """`fit_flows`, or the same flow as trained before on the same sidebands; also its key if ``stage`` keeps it.

    The key holds the events, the window, the configuration, the seed and the code. What comes back has the bits of
    what was trained, but no history.
    """

    def train() -> ConditionalFlow:
        return fit_flows(
            latents, masses, window, config, seed=seed, folds=folds, device=device, posterior=posterior
        )  # fmt: skip

    if stage is None:
        return train(), None
    arrays = hashlib.sha256()
    for values in (latents, masses, *(() if posterior is None else (posterior,))):
        arrays.update(np.ascontiguousarray(values).tobytes())
    key = digest(
        {"events": arrays.hexdigest(), "window": list(window), "flow": config.model_dump(mode="json"), "seed": seed,
         "folds": folds, "device": device, "torch": torch.__version__, "code": code_digest("models", "fit")}
    )  # fmt: skip
    return ConditionalFlow.from_state(stage("flow", key, lambda: train().state())), key


def _even(rows: list[np.ndarray]) -> np.ndarray:
    """(members, n) rows, as many of each as the shortest has: parts may differ by one event."""
    length = min(map(len, rows))
    return np.stack([r[:length] for r in rows])


def _clip_each_member(ensemble: FlowEnsemble, largest: float) -> None:
    """Clip the gradient norm of every member by itself; a joint norm would couple them."""
    gradients = [p.grad for p in ensemble.parameters() if p.grad is not None]
    norms = torch.stack([g.flatten(1).square().sum(1) for g in gradients]).sum(0).sqrt()
    scale = (largest / (norms + 1e-12)).clamp(max=1.0)
    for g in gradients:
        g.mul_(scale.view(-1, *[1] * (g.ndim - 1)))


@torch.no_grad()
def _evaluate(
    ensemble: FlowEnsemble, x: torch.Tensor, c: torch.Tensor, rows: torch.Tensor, chunk: int = 8192
) -> torch.Tensor:
    """Mean negative log-likelihood of every member on its own rows (M, n)."""
    total = torch.zeros(len(rows), device=x.device)
    for part in rows.split(chunk, dim=1):
        total -= ensemble.log_prob(x[part], c[part]).sum(1)
    return total / rows.shape[1]
