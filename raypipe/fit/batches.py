"""Which events make up which training batch: a pure function of seed, part and step, not of workers or files."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from raypipe import seeds
from raypipe.config.inputs import Parted
from raypipe.errors import UserError

PARTS = ("train", "validation", "test")

T = TypeVar("T")


def prefetched(values: Iterable[T], ahead: int = 4) -> Iterator[T]:
    """The same values in order, made by a thread up to ``ahead`` before they are asked for; errors come out here."""
    source, end = iter(values), object()
    pool = ThreadPoolExecutor(1, "raypipe-prefetch")
    try:
        made = deque(pool.submit(next, source, end) for _ in range(ahead))
        while (value := made.popleft().result()) is not end:
            made.append(pool.submit(next, source, end))
            yield value
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def parts_of(event_ids: np.ndarray, seed: int, train: float, validation: float) -> np.ndarray:
    """The part (n,) int8 (index into `PARTS`) of every event, from a hash of its id alone."""
    u = seeds.uniform_by_id(event_ids, seed, "parts")
    return (u >= train).astype(np.int8) + (u >= train + validation).astype(np.int8)


def dealt(event_ids: np.ndarray, given: Parted, seed: int) -> np.ndarray:
    """`parts_of` of a configuration, in a run or a training of this seed."""
    seed = seed if given.parts_seed is None else given.parts_seed
    return parts_of(event_ids, seed, given.train_fraction, given.validation_fraction)


@dataclass(frozen=True)
class BatchPlan:
    """Balanced batches of ``batch_size`` events: as many of each of ``groups``, whose events are ``rows``, to one."""

    rows: tuple[np.ndarray, ...]
    groups: tuple[int, ...]
    batch_size: int
    seed: int
    part: str

    @staticmethod
    def of(labels: np.ndarray, batch_size: int, seed: int, part: str, rows: np.ndarray | None = None) -> BatchPlan:
        """Plan over ``labels`` (n,) of which only ``rows`` (all by default) may be used; too few are a `UserError`."""
        rows = np.arange(len(labels)) if rows is None else rows
        groups = tuple(int(g) for g in np.unique(labels[rows]))
        if len(groups) < 2:
            raise UserError(f"contrastive training needs at least two process groups, the {part} part has {groups}")
        share = -(-batch_size // len(groups))
        if batch_size < 2 * len(groups):
            raise UserError(f"embedding.batch_size = {batch_size}: needs two events of each of {len(groups)} groups")
        members = tuple(rows[labels[rows] == g] for g in groups)
        for group, those in zip(groups, members, strict=True):
            if len(those) < share:
                raise UserError(
                    f"group {group} has {len(those)} events in the {part} part, a batch of {batch_size} needs {share}: "
                    "simulate more of it or make embedding.batch_size smaller"
                )
        return BatchPlan(members, groups, batch_size, seed, part)

    def batch(self, step: int) -> np.ndarray:
        """Row numbers (batch_size,) of global step ``step``; no event occurs twice in a batch."""
        rng = seeds.generator(self.seed, "batch", self.part, step)
        base, extra = divmod(self.batch_size, len(self.rows))
        # The groups that get one event more rotate with the step.
        sizes = [base + ((i - step) % len(self.rows) < extra) for i in range(len(self.rows))]
        chosen = [rng.choice(rows, size, replace=False) for rows, size in zip(self.rows, sizes, strict=True)]
        return rng.permutation(np.concatenate(chosen))

    def noise(self, step: int, dimensions: int) -> np.ndarray:
        """Standard-normal noise (batch_size, dimensions) of the latent sampling of global step ``step``."""
        rng = seeds.generator(self.seed, "noise", self.part, step)
        return rng.standard_normal((self.batch_size, dimensions)).astype(np.float32)

    def reflections(self, step: int) -> np.ndarray:
        """Signs (batch_size, 2) by which eta and phi of each event of global step ``step`` are reflected."""
        rng = seeds.generator(self.seed, "reflections", self.part, step)
        return rng.choice(np.array([-1, 1], np.float32), (self.batch_size, 2))
