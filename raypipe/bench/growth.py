"""How cost grows: each stage at 1x, 4x and 16x of its events or trials; slope of a log-log fit, and memory.

A slope of one is cost in proportion; below one, a fixed part still shows. There is no reference: ``ours`` is the time
at the largest size, ``reference`` at the smallest, and the ratio is the slope, once a repetition. CPU seconds on one
thread, so that scan and pool overheads are not in them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from raypipe.bench import bdt, flow
from raypipe.bench.base import Measurement, cpu_seconds, threads
from raypipe.bench.events import PeakMemory
from raypipe.bench.samples import arrays
from raypipe.config import Classifier, Embedding
from raypipe.config import Flow as FlowConfig
from raypipe.fit.encoder import build_encoder, embed
from raypipe.fit.flows import fit_flows

FACTORS = (1, 4, 16)


def grow(name: str, unit: str, smallest: int, work: Callable[[int], Any], repeats: int) -> Measurement:
    """Measure ``work(size)`` at every factor."""
    sizes = [smallest * factor for factor in FACTORS]
    work(sizes[0])  # imports and kernels
    times, memory = np.empty((2, repeats, len(sizes)))
    for where in np.ndindex(times.shape):
        with PeakMemory() as peak:
            times[where] = cpu_seconds(lambda size=sizes[where[1]]: work(size))
        memory[where] = peak.peak / 2**20
    slopes = [float(np.polyfit(np.log(sizes), np.log(row), 1)[0]) for row in times]
    medians = np.median(times, 0).tolist()
    detail = {"sizes": sizes, "of": unit, "seconds": medians, "peak_mib": memory.max(0).tolist()}
    meaning, ends = f"log-log slope over {unit}", (medians[-1], medians[0])
    return Measurement(f"growth: {name}", *ends, "CPU s", slopes, meaning, 1.1, at_most=True, detail=detail)


def run(smoke: bool) -> list[Measurement]:
    """Embedding and flow training over events, boosted trees over events and over fits."""
    scale, repeats = (1, 1) if smoke else (8, 3)
    encoder = build_encoder(Embedding(samples=["yy"], encoder={"width": 16, "heads": 2, "pair_width": 8}), None, 1)
    shape = FlowConfig(members=2, leave_out=1, layers=2, hidden=16, blocks=1, bins=4, epochs=1, batch_size=64)
    trees = Classifier(rounds=4 * scale, depth=3, early_stopping=None, folds=2, members=1, ensemble=1, ensembles=1)

    def embedding(n: int) -> None:
        inputs = arrays(n)
        embed(encoder, inputs.objects, inputs.event)

    def flows(n: int) -> None:
        fit_flows(*flow.latents(n), flow.WINDOW, shape, seed=1, folds=2)

    def boosted(n: int) -> None:
        given = bdt.contest(n, n, trees)
        list(map(given, given.parts()))

    few = bdt.contest(200 * scale, 200 * scale, trees)
    with threads(1):
        return [
            grow("embedding", "events", 100 * scale, embedding, repeats),
            grow("flow training", "events", 300 * scale, flows, repeats),
            grow("boosted trees", "events", 200 * scale, boosted, repeats),
            grow("boosted trees", "fits", 1 * scale, lambda n: [few((0, m)) for m in range(n)], repeats),
        ]
