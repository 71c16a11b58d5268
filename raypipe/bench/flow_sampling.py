"""Sampling a flow ensemble: `ConditionalFlow.sample`, against nflows' `sample` of each member in turn.

Ours draws in float64 and checks that every draw maps back to its noise, which costs a forward pass; nflows inverts
without a check. Both in double precision, one latent for each of the given masses, CPU seconds on one thread.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from raypipe import seeds
from raypipe.bench.base import SEED, Measurement, compared, cpu_seconds, in_turn, threads
from raypipe.bench.flow import MEMBERS, WINDOW, latents, reference_flow
from raypipe.config import Flow as FlowConfig
from raypipe.fit.flows import ConditionalFlow, fit_flows

CHUNK = 8192


def _members(flow: ConditionalFlow, config: FlowConfig) -> list[Any]:
    """nflows flows with the fitted weights, in double precision."""
    made, state = [], flow.ensemble.state_dict()
    for member in range(config.members):
        one = reference_flow(config, flow.ensemble.features, 0).double()
        one.load_state_dict({name.replace("/", "."): value[member] for name, value in state.items()}, strict=False)
        made.append(one)
    return made


def measure(config: FlowConfig, samples: int, repeats: int, target: float | None) -> Measurement:
    """One row."""
    flow = fit_flows(*latents(2000), WINDOW, config, seed=SEED)
    flow.ensemble.double()
    members = _members(flow, config)
    masses = seeds.generator(SEED, "bench-sampling").uniform(*WINDOW, samples)
    drawn: dict[str, np.ndarray] = {}

    def ours() -> None:
        drawn["ours"] = flow.sample(masses, np.random.default_rng(seeds.integer(SEED, "bench-noise")))

    @torch.no_grad()
    def theirs() -> None:
        torch.set_default_dtype(torch.float64)  # nflows draws its noise in the default precision
        parts = []
        for member, part in zip(members, np.array_split(flow._context(masses), len(members)), strict=True):
            for context in torch.from_numpy(part).split(CHUNK):
                parts.append(member.sample(1, context=context)[:, 0])
        drawn["nflows"] = (torch.cat(parts).numpy() * flow.std + flow.mean).astype(np.float32)
        torch.set_default_dtype(torch.float32)

    with threads(1):
        times = in_turn(ours, theirs, repeats, cpu_seconds)
    # Quartiles: nflows keeps draws from tails that do not invert, and a handful of those owns every mean.
    quartiles = {name: np.quantile(values, [0.25, 0.5, 0.75], axis=0) for name, values in drawn.items()}
    shift = np.abs(quartiles["ours"] - quartiles["nflows"]) / (quartiles["nflows"][2] - quartiles["nflows"][0])
    name = f"flow sampling: {samples} {config.transform} samples of {config.members} members"
    detail = {
        "largest_shift_of_a_quartile_in_their_range": float(shift.max()),
        "config": config.model_dump(mode="json"),
    }
    detail["samples_per_second"] = samples / float(np.median(times[0]))
    return compared(name, *times, target, unit="CPU s", **detail)


def run(smoke: bool) -> list[Measurement]:
    """20 members at full shape, both transforms; 20k or 60k samples stand for a million, since cost is linear in them
    but for a fixed part of ours that counts against us."""
    if smoke:
        tiny = FlowConfig(members=5, layers=2, hidden=8, blocks=1, bins=4, epochs=1, batch_size=64)
        return [measure(tiny, 500, 1, None)]
    full = {"members": MEMBERS, "layers": 6, "hidden": 64, "blocks": 2, "bins": 8, "epochs": 1, "batch_size": 320}
    sizes = {"spline": 20_000, "affine": 60_000}
    return [measure(FlowConfig(**full, transform=name), samples, 3, 3.0) for name, samples in sizes.items()]
