"""Is it the same function on a GPU? Every network of raypipe there against the CPU, on the same weights and events.

A number is the relative difference ``|there - here| / |here|`` of all values of one kind. The reference is the CPU in
single precision, itself within 1e-6 of double precision. With ``device="cpu"`` the second side computes there what a
GPU would: padded objects, mapped flows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from bench.samples import arrays
from torch import nn

from raypipe import seeds
from raypipe.config import Embedding, Flow
from raypipe.config.multilepton import Networks
from raypipe.fit.encoder import EncoderInputs, EncoderPlan, EncoderTraining, build_encoder, embed, rank_batches, wrapped
from raypipe.fit.flow_stack import FlowStack, Sidebands
from raypipe.fit.stacked import LabelledSample, Network, ensemble_scores, train_stack
from raypipe.fit.vae import FeatureVae
from raypipe.models.losses import gaussian_kl, supervised_contrastive

SEED = 20_270
SINGLE = 1e-4
"""Largest relative difference in single precision."""
HALF = {"outputs": 2e-2, "gradient": 8e-2}
"""Likewise in bfloat16, whose numbers have eight bits: 0.4 % each, and a gradient sums many of both signs."""
WINDOW = (105.0, 160.0)


def difference(there: Iterable[torch.Tensor], here: Iterable[torch.Tensor]) -> float:
    """Relative difference of two lists of tensors, taken as one vector."""
    a, b = (torch.cat([t.detach().double().cpu().flatten() for t in values]) for values in (there, here))
    return float((a - b).norm() / b.norm())


def run(device: str, tiny: bool, keep: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """All comparisons as ``{name: {"difference", "limit", "ok"}}``; ``keep`` gets them as they come."""
    found: dict[str, Any] = {}
    for compare in (losses, encoder, flows, networks, autoencoder, embedding):
        for name, (value, limit) in compare(device, tiny).items():
            found[name] = {"difference": value, "limit": limit, "ok": bool(value <= limit)}
        keep({"comparisons": found})
    return {"comparisons": found, "ok": all(row["ok"] for row in found.values())}


Compared = dict[str, tuple[float, float]]


def losses(device: str, tiny: bool) -> Compared:
    """Equation 1 of paper C and its gradient at random projections."""
    rng = torch.Generator().manual_seed(SEED)
    n = 256 if tiny else 4096
    values = nn.functional.normalize(torch.randn(n, 64, generator=rng), dim=1)
    mean, log_variance = torch.randn(2, n, 6, generator=rng)
    labels = torch.randint(0, 9, (n,), generator=rng)
    results = []
    for where in ("cpu", device):
        leaves = [t.to(where).requires_grad_() for t in (values, mean, log_variance)]
        summed, anchors = supervised_contrastive(leaves[0], labels.to(where), temperature=0.1)
        loss = summed / anchors + gaussian_kl(leaves[1], leaves[2]).mean()
        results.append(([loss], torch.autograd.grad(loss, leaves)))
    (loss, gradient), (loss_there, gradient_there) = results
    return {
        "loss": (difference(loss_there, loss), SINGLE),
        "loss, gradient": (difference(gradient_there, gradient), SINGLE),
    }


def _encoder(tiny: bool) -> tuple[Embedding, EncoderInputs]:
    small = {"width": 32, "heads": 4, "particle_blocks": 1, "class_blocks": 1, "pair_width": 16}
    size = {"dropout": 0.0, "layer_scale": 0.1} | (small if tiny else {})
    batch = 250 if tiny else 2000
    return Embedding(samples=["yy"], encoder=size, batch_size=batch, steps_per_epoch=1), arrays(8 * batch)


def encoder(device: str, tiny: bool) -> Compared:
    """Outputs, loss and gradient of the particle transformer: present objects alone, padded, in bfloat16, compiled."""
    config, inputs = _encoder(tiny)
    plan = EncoderPlan.of(inputs, config, SEED)
    batch = next(iter(rank_batches(inputs, plan.train, range(1), config)))

    def step(there: bool, **knobs: Any) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        how, where = config.model_copy(update=knobs), device if there else "cpu"
        bare = build_encoder(how, plan.scales, SEED).to(where)
        bare.padded = there
        # Generating C++ takes a minute: at tiny size the compiler only traces.
        quick = tiny and how.compile
        model = torch.compile(bare, backend="aot_eager") if quick else wrapped(bare, how, where)
        training = EncoderTraining(model, how, where)
        loss, _ = training.loss(batch)
        loss.backward()
        with torch.no_grad():
            given = (torch.as_tensor(batch[name], device=where) for name in ("objects", "event", "noise"))
            with torch.autocast(torch.device(where).type, torch.bfloat16, enabled=how.precision == "bf16"):
                outputs = training.model(*given)
        return [loss, *outputs], [p.grad for p in bare.parameters() if p.grad is not None]

    here = step(False)
    rows: Compared = {}
    ways: dict[str, dict[str, Any]] = {"": {}, ", bf16": {"precision": "bf16"}, ", compiled": {"compile": True}}
    for name, knobs in ways.items():
        there = step(True, **knobs)
        limits = HALF if "precision" in knobs else {"outputs": SINGLE, "gradient": SINGLE}
        rows[f"encoder{name}"] = (difference(there[0], here[0]), limits["outputs"])
        rows[f"encoder{name}, gradient"] = (difference(there[1], here[1]), limits["gradient"])
    return rows


def sidebands(events: int, number: int) -> Sidebands:
    """Six latents in two clusters that move with the mass, in place of an encoder's."""
    rng = seeds.generator(SEED, "gpu-sidebands", number)
    mass = rng.uniform(*WINDOW, events)
    centre = np.where(rng.random(events) < 0.4, 1.5, -1.0)[:, None] + 0.02 * (mass[:, None] - 130)
    x = centre * np.linspace(0.3, 1.0, 6) + rng.normal(size=(events, 6)) * np.linspace(0.5, 1.0, 6)
    return Sidebands(x.astype(np.float32), mass, seeds.integer(SEED, "gpu-flows", number))


def flows(device: str, tiny: bool) -> Compared:
    """Log-density, its gradient, and samples (in double precision) of stacked flows."""
    rows: Compared = {}
    size = {"layers": 2, "hidden": 16} if tiny else {}
    config = Flow(members=5, leave_out=1, mixing="rotate", **size)
    data = [sidebands(1000 if tiny else 5000, number) for number in range(2)]
    every = [(k, m) for k in range(len(data)) for m in range(config.members)]
    result = []
    for where, mapped in (("cpu", False), (device, True)):
        stack = FlowStack(data, every, WINDOW, config, device=where)
        stack.ensemble.plain = mapped
        members = torch.as_tensor(stack.train[:, :400], device=where)
        log_prob = stack.ensemble.log_prob(stack.x[members], stack.c[members])
        gradient = torch.autograd.grad(log_prob.mean(), list(stack.ensemble.parameters()))
        noise = torch.randn(len(members), 200, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        with torch.no_grad():
            context = stack.c[members[:, :200]].double()
            samples = stack.ensemble.double().inverse(noise.to(where), context)
        result.append((log_prob, gradient, samples))
    here, there = result
    rows |= {
        "flows, spline": (difference([there[0]], [here[0]]), SINGLE),
        "flows, spline, gradient": (difference(there[1], here[1]), SINGLE),
        "flows, spline, samples": (difference([there[2]], [here[2]]), SINGLE),
    }
    return rows


def networks(device: str, tiny: bool) -> Compared:
    """Scores of stacked networks after an epoch of training, both losses."""
    x = seeds.generator(SEED, "gpu-networks").normal(size=(400 if tiny else 2000, 3))
    sample = LabelledSample(x, np.arange(len(x)) % 2 == 0, np.ones(len(x)))
    rows: Compared = {}
    for loss in ("mlc", "bce"):
        config, keys = Networks(epochs=1), [Network(0, ("gpu", k)) for k in range(4)]
        stacks = [train_stack([sample], keys, config, loss, SEED, device=where) for where in ("cpu", device)]
        here, there = ([torch.as_tensor(ensemble_scores(stack, x, loss))] for stack in stacks)
        rows[f"networks, {loss}, one epoch"] = (difference(there, here), SINGLE)
    return rows


def autoencoder(device: str, tiny: bool) -> Compared:
    """Reconstruction error, KL and gradient of paper A's autoencoder."""
    del tiny
    rng = torch.Generator().manual_seed(SEED)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = FeatureVae(9, 6, [64, 64])
    x, noise = torch.randn(1000, 9, generator=rng), torch.randn(1000, 6, generator=rng)
    result = []
    for where in ("cpu", device):
        model.to(where).zero_grad()
        mean, log_variance, error = model(x.to(where), noise.to(where))
        loss = error.mean() / 2 + gaussian_kl(mean, log_variance).mean()
        result.append(([loss, mean, log_variance, error], torch.autograd.grad(loss, list(model.parameters()))))
        result[-1] = tuple([t.detach().cpu() for t in part] for part in result[-1])
    here, there = result
    return {
        "autoencoder": (difference(there[0], here[0]), SINGLE),
        "autoencoder, gradient": (difference(there[1], here[1]), SINGLE),
    }


def embedding(device: str, tiny: bool) -> Compared:
    """Posteriors of `embed`, chunks included."""
    config, inputs = _encoder(tiny)
    model = build_encoder(config, EncoderPlan.of(inputs, config, SEED).scales, SEED)
    n = 5000 if not tiny else 300
    both = []
    for where, padded in (("cpu", False), (device, True)):
        model.padded = padded
        _, posterior = embed(model.to(where), (inputs.objects[:n], inputs.event[:n]), np.ones((n, 6), np.float32))
        both.append([torch.from_numpy(posterior)])
    return {"embedding": (difference(both[1], both[0]), SINGLE)}
