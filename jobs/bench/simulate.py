"""A whole simulated shard against Pythia's bare `next()` loop for the same generated events.

Ours is what one Ray task does, from initialising Pythia to the Parquet file and its sidecar. The reference is a loop
over `next()` with the same settings and seed, so that both make the same events bit by bit; its initialisation is not
counted. Both veto hopeless continuum events; a further row without a target has the loop without the veto, until it has
made as many events that could be selected. One thread; CPU seconds.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from bench.base import CPU, Measurement, compared, timed
from raypipe.files import code_digest
from raypipe.simulate import processes
from raypipe.simulate.card import load_card
from raypipe.simulate.dataset import Shard
from raypipe.simulate.generator import Generator
from raypipe.simulate.processes import Process
from raypipe.simulate.shard import pythia_seed

SIZES = {"yy": 6000, "ggf": 6000, "tth": 3000}
"""Generated events a repetition, about six seconds of Pythia each; shards of the laptop's search are 1.3 to 5 times
larger, which spreads the initialisation further."""

REPEATS, SEED, TARGET = 2, 20_261_122, 1.4
HOW = {"unit": "CPU s", "meaning": "time of the shard / time of bare next()"}


def bare_loop(process: Process, n: int) -> tuple[float, float]:
    """CPU seconds of ``n`` events made by Pythia's `next()`, initialisation not counted, and the cross section [fb]."""
    generator = Generator(process, pythia_seed(SEED))  # held here: Pythia does not own its hook

    def loop() -> None:
        made, next_event = 0, generator.pythia.next
        while made < n:
            made += next_event()

    return timed(loop, CPU)[0], generator.cross_section()[0]


def measure(name: str, n: int, repeats: int) -> list[Measurement]:
    """Paired repetitions of one sample."""
    process = processes.get(name)
    counts = {"number": 0, "seed": SEED, "n_generate": n, "embedding_fraction": 0.5}
    how = {"mpi": False, "met_smearing": 0.0, "code": code_digest("simulate")}
    shard = Shard(process=process, card=load_card("atlas"), **counts, **how)
    ours, bare = [], []
    with tempfile.TemporaryDirectory(prefix="raypipe-bench-") as folder:
        replace(shard, n_generate=50).make(folder)  # a worker loads its libraries once, for many shards
        for _ in range(repeats):
            spent, made = timed(lambda: shard.make(folder), CPU)
            ours.append(spent)
            spent, cross_section = bare_loop(process, n)
            bare.append(spent)
            # The estimate sums over all phase-space points tried: equal to the last bit only for the same events.
            if cross_section != made["pythia_cross_section_fb"]:
                raise RuntimeError(f"sample {name}: the shard and the bare loop made different events")
        size = shard.path(Path(folder)).stat().st_size
    selected, middle = made["n_selected"], sorted(ours)[len(ours) // 2]
    detail = {"generated": made["n_generated"], "selected": selected, "selected_per_cpu_second": selected / middle}
    detail |= {"bytes_per_selected_event": size / selected, "max_rss_mib": made["max_rss_mib"]}
    rows = [compared(f"simulate {name}", ours, bare, TARGET, at_most=True, **HOW, **detail)]
    if process.veto_hard_photons:
        # The veto leaves the selected events as they are and cuts the cross section: so many more it takes without.
        plain = replace(process, veto_hard_photons=False)
        probe = Generator(plain, pythia_seed(SEED))
        for _ in probe.batches(min(n, 1000)):
            pass
        share = made["pythia_cross_section_fb"] / probe.cross_section()[0]
        detail = {"generated_without_veto": round(n / share), "share_kept_by_veto": share}
        alone, _ = bare_loop(plain, round(n / share))
        rows.append(compared(f"simulate {name}, bare loop without the veto", [middle], [alone], **HOW, **detail))
    return rows


def run(smoke: bool) -> list[Measurement]:
    """All samples in turn."""
    before = pa.cpu_count()
    pa.set_cpu_count(1)
    try:
        return [r for k, n in SIZES.items() for r in measure(k, n // 20 if smoke else n, 1 if smoke else REPEATS)]
    finally:
        pa.set_cpu_count(before)
