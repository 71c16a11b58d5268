"""How cost grows: each stage at 1x, 4x and 16x of its events or trials; slope of a log-log fit, and memory.

A slope of one is cost in proportion. There is no reference: ``ours`` is the time at the largest size, ``reference`` at
the smallest, and the ratio is the slope, once a repetition. CPU seconds on one thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bench import bdt, flow
from bench.base import CPU, Measurement, peak_mib, threads, timed
from bench.samples import arrays
from raypipe.config import Classifier, Embedding, Flow
from raypipe.fit.classifier import member_margins
from raypipe.fit.encoder import build_encoder, embed

FACTORS = (1, 4, 16)


def grow(name: str, unit: str, smallest: int, work: Callable[[int], Any], repeats: int) -> Measurement:
    """Measure ``work(size)`` at every factor."""
    sizes = [smallest * factor for factor in FACTORS]
    work(sizes[0])  # imports and kernels
    times, memory = np.empty((2, repeats, len(sizes)))
    for where in np.ndindex(times.shape):
        memory[where], (times[where], _) = peak_mib(lambda n=sizes[where[1]]: timed(lambda: work(n), CPU))
    slopes = [float(np.polyfit(np.log(sizes), np.log(row), 1)[0]) for row in times]
    medians = np.median(times, 0).tolist()
    detail = {"sizes": sizes, "of": unit, "seconds": medians, "peak_mib": memory.max(0).tolist()}
    meaning, ends = f"log-log slope over {unit}", (medians[-1], medians[0])
    return Measurement(f"growth: {name}", *ends, "CPU s", slopes, meaning, 1.1, at_most=True, detail=detail)


def run(smoke: bool) -> list[Measurement]:
    """Embedding and flow training over events, boosted trees over events and over fits."""
    scale, repeats = (1, 1) if smoke else (8, 3)
    encoder = build_encoder(Embedding(samples=["yy"], encoder={"width": 16, "heads": 2, "pair_width": 8}), None, 1)
    shape = Flow(members=2, leave_out=1, layers=2, hidden=16, blocks=1, bins=4, epochs=1, batch_size=64)
    trees = Classifier(rounds=4 * scale, early_stopping=None, folds=2, members=1, ensemble=1)
    few = bdt.contest(200 * scale, 200 * scale, trees)

    def embedding(n: int) -> None:
        inputs = arrays(n)
        embed(encoder, (inputs.objects, inputs.event))

    stages = (
        ("embedding", "events", 100 * scale, embedding),
        ("flow training", "events", 300 * scale, lambda n: flow.fit_flows(flow.latents(n), shape, 2, seed=1)),
        ("boosted trees", "events", 200 * scale, lambda n: member_margins(bdt.contest(n, n, trees))),
        ("boosted trees", "fits", 1 * scale, lambda n: [few((0, m)) for m in range(n)]),
    )
    with threads(1):
        return [grow(*stage, repeats) for stage in stages]
