"""Measure the comparisons of the multilepton search (paper B)."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from raypipe import seeds
from raypipe.cluster.calibration import Line, timed
from raypipe.config.multilepton import MultileptonConfig
from raypipe.errors import UserError
from raypipe.events.pools import Pool
from raypipe.search.multilepton import BOOTSTRAP, Tables, compare, divide
from raypipe.search.result import Trial
from raypipe.store.ledger import Ledger

EVENTS = (300, 1200)
"""Expected events of the data sets compared."""
REPEATS = 3
"""Times each is compared; the median counts, since these take tenths of a second."""
MASSES = ((180.0, 60.0), (75.0, 25.0), (75.0, 25.0))
"""Mean and width of the made-up masses m_4l, m_ee, m_mumu [GeV]."""


def expected_events(config: MultileptonConfig, yields: dict[str, float]) -> float:
    """Expected background events of a data set.

    Raises:
        UserError: the background is the user's own and its size is not in the configuration.
    """
    if config.compare.expected is not None:
        return config.compare.expected
    own = config.files is not None and config.files.reference is not None
    names = [] if own else config.compare.background
    if lacking := [name for name in names if name not in yields]:
        raise UserError(f"compare.background: the yield of {lacking[0]!r} is not known before it is simulated")
    total = config.compare.luminosity * sum(yields[name] for name in names)
    if not total > 0:
        raise UserError("compare.expected: how many background events are expected? (a plan reads no tables)")
    return total


def _pool(config: MultileptonConfig, count: int, name: str) -> Pool:
    """Made-up events: what a network costs does not depend on where its events are."""
    rng = seeds.generator(config.seed, "calibration", name)
    shapes = [MASSES[k % len(MASSES)] for k in range(len(config.features))]
    values = np.column_stack([np.abs(rng.normal(mean, width, count)) for mean, width in shapes])
    return Pool(values, np.ones(count), np.zeros(count, dtype=int), (name,))


def _prepared(config: MultileptonConfig, events: int, epochs: int) -> tuple[MultileptonConfig, Tables]:
    """The configuration with so many expected events and epochs, and made-up tables for it."""
    given = config.model_copy(
        update={
            "compare": config.compare.model_copy(update={"expected": float(events), "counts": "fixed"}),
            "networks": config.networks.model_copy(update={"epochs": epochs}),
            "scan": config.scan.model_copy(update={"signals": [], "calibration": 0}),
        }
    )
    count = round(events * (config.compare.reference_ratio + 10))
    return given, divide(_pool(config, count, "background"), None, {}, None, given)


def smallest(config: MultileptonConfig) -> Callable[[], Any]:
    """The smallest chunk of comparisons that is measured, ready to be run any number of times."""
    given, tables = _prepared(config, EVENTS[0], 1)
    return lambda: compare(tables, given, [Trial(BOOTSTRAP, 0.0, k) for k in range(config.chunk)])


def trials(config: MultileptonConfig) -> dict[str, Any]:
    """One chunk of comparisons at two sizes and with one and two epochs: what networks and statistics cost.

    Per comparison: the core seconds of an expected event and epoch, all networks of all losses together, and the line
    of all the rest against the expected events.
    """
    chunk = [Trial(BOOTSTRAP, 0.0, k) for k in range(config.chunk)]
    spent: dict[tuple[int, int], float] = {}
    for events, epochs in ((EVENTS[0], 1), *((n, e) for n in EVENTS for e in (1, 2))):  # the first one allocates
        given, tables = _prepared(config, events, epochs)
        runs = [timed(lambda t=tables, g=given: compare(t, g, chunk)) for _ in range(REPEATS)]
        spent[events, epochs], results = statistics.median(run[0] for run in runs) / len(chunk), runs[0][1]
    epoch = max(0.0, spent[EVENTS[1], 2] - spent[EVENTS[1], 1]) / EVENTS[1]
    rest = Line.through(*((n, max(0.0, spent[n, 1] - epoch * n)) for n in EVENTS))
    with tempfile.TemporaryDirectory(prefix="raypipe-") as folder:
        Ledger(folder).record("x", None, results[0])
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    return {"epoch_event": epoch, "trial": {"statistics": rest}, "trial_bytes": float(size)}
