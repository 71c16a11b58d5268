"""Measure what one unit of each stage costs on this machine, with the stages' own code at small sizes."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import torch

from raypipe import seeds
from raypipe.cluster import calibrate_cathode as cathode
from raypipe.cluster import calibrate_networks as networks
from raypipe.cluster import calibrate_worker as worker
from raypipe.cluster.calibration import Calibration, Line, timed
from raypipe.errors import UserError
from raypipe.events.table import write_table
from raypipe.search.contrastive import CONTINUUM
from raypipe.simulate import dataset, processes
from raypipe.simulate.dataset import Shard

GENERATED = (20, 100, 700)
"""Events generated a process, in three shards: the first imports and allocates, the difference of the others is the
rate, the rest the start of the generator."""


def calibrate(config: Any, say: Callable[[str], None] = lambda text: None) -> Calibration:
    """Measure, on one core, what every stage of ``config`` costs (about a minute for a configuration of a laptop).

    Processor time counts, not wall time, so that a busy machine measures the same.

    Raises:
        UserError: a search that has no scan, or one on tables whose size is not known.
    """
    if config.search not in ("contrastive", "haxad", "multilepton"):
        raise UserError(f"search = {config.search!r}: it has no scan to plan")
    began, threads = _processor_seconds(), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        say("generator")
        found = (_networks if config.search == "multilepton" else _cathode)(config, say)
    finally:
        torch.set_num_threads(threads)
    say("worker")
    start, first = worker.fresh(config, found["yield_per_fb"])
    found["measured"].append("a fresh worker process: its imports, and its first trial against the same one again")
    return Calibration(
        search=config.search,
        machine=platform.node() + " " + platform.machine(),
        worker_start=start,
        first_trial=first,
        worker_bytes=float(psutil.Process().memory_info().rss),
        measured_seconds=_processor_seconds() - began,
        **found,
    )


def _processor_seconds() -> float:
    """Of this process and of those it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _cathode(config: Any, say: Callable[[str], None]) -> dict[str, Any]:
    """The contrastive and the HAXAD search: generator, encoder, trials."""
    background = config.pseudodata.background
    names = list(dict.fromkeys([CONTINUUM, *background[1:2], *config.scan.signals[:1]]))
    found, tables = generator(config, names, [CONTINUUM], background)
    say("encoder")
    encoder, words = (cathode.vae if config.search == "haxad" else cathode.encoder)(config, tables[CONTINUUM])
    say("search")
    trials = cathode.trials(config, found["yield_per_fb"])
    measured = [_generated(names), words, f"trials of {', '.join(map(str, cathode.EVENTS))} events in the mass window"]
    return found | encoder | trials | {"measured": measured, "largest": float(max(cathode.EVENTS))}


def _networks(config: Any, say: Callable[[str], None]) -> dict[str, Any]:
    """The multilepton search: generator (unless the events are there or the user's own) and comparisons."""
    background = config.compare.background
    found: dict[str, Any] = {"simulate": {}, "efficiency": {}, "yield_per_fb": {}, "event_bytes": 0.0}
    measured = []
    if config.simulate is not None:
        names = list(dict.fromkeys([*background, *config.scan.signals[:1]]))
        found, measured = generator(config, names, background, background)[0], [_generated(names)]
    elif config.events is not None:
        samples = dataset.read_manifest(config.events)["samples"]
        found["yield_per_fb"] = {name: samples[name]["yield_per_fb"] for name in background if name in samples}
    say("search")
    comparisons = networks.trials(config)
    measured.append(f"comparisons of {' and '.join(map(str, networks.EVENTS))} expected events")
    none = {"train_event": 0.0, "train_pair": 0.0, "embed_event": 0.0}
    return found | none | comparisons | {"measured": measured, "largest": float(max(networks.EVENTS))}


def _generated(names: Sequence[str]) -> str:
    return f"generator: {', '.join(names)} ({GENERATED[-1]} events each)"


@contextlib.contextmanager
def _stdout_is_ours() -> Iterator[None]:
    """Send what C++ libraries print on standard output (FastJet's banner) to standard error: ours may be JSON."""
    libc = ctypes.CDLL(None)
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        yield
    finally:
        libc.fflush(None)
        os.dup2(kept, 1)
        os.close(kept)


def generator(
    config: Any, names: Sequence[str], weighed: Sequence[str], background: Sequence[str]
) -> tuple[dict[str, Any], dict[str, pa.Table]]:
    """Rates of some samples, yields of the background (measured of ``weighed``), and the events made of each."""
    plan = dataset.plan(config)
    lines, efficiency, yields, tables = {}, {}, {}, {}
    for name in names:
        points = []
        for number, count in enumerate(GENERATED):
            template = plan.samples[name].template
            with _stdout_is_ours():
                spent, (tables[name], sidecar) = timed(
                    lambda t=template, i=number, n=count: _shard(t, i, n, config.seed)
                )
            points.append((sidecar["n_selected"], spent))
        lines[name] = Line.through(*points[1:])
        efficiency[name] = sum(n for n, _ in points) / sum(GENERATED)
        if name in weighed:
            # Weighted as if its shard were the whole sample: the weights add up to the yield.
            yields[name] = float(np.sum(tables[name]["weight"].to_numpy()))
    for name in background:
        if name not in yields:
            yields[name] = processes.get(name).expected_yield_per_fb
    table = tables[names[0]]
    with tempfile.TemporaryDirectory(prefix="raypipe-") as folder:
        write_table(table, Path(folder) / "events.parquet")
        size = (Path(folder) / "events.parquet").stat().st_size / max(1, table.num_rows)
    return {"simulate": lines, "efficiency": efficiency, "yield_per_fb": yields, "event_bytes": size}, tables


def _shard(template: Shard, number: int, count: int, seed: int) -> tuple[pa.Table, dict[str, Any]]:
    """A small shard of a sample, in memory."""
    from raypipe.simulate.shard import simulate_shard

    name = template.process.name
    return simulate_shard(
        template.process,
        template.card,
        seed=seeds.integer(seed, "calibration", name, number),
        shard=number,
        n_generate=count,
        mpi=template.mpi,
        met_smearing=template.met_smearing,
        four_leptons=template.four_leptons,
    )
