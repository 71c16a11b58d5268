"""A ``map`` that uses many cores: here, and as Ray tasks from the moment that the work pays for the start of Ray."""

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from raypipe.cluster.machine import usable_cores
from raypipe.cluster.runtime import cluster_address, limit_threads, ray_runs, ray_session, total_cpus
from raypipe.config import Resources
from raypipe.errors import UserError
from raypipe.fit.classifier import Mapper

START_SECONDS = 15.0  # What the start of an embedded Ray takes, and joining a cluster at most


@contextlib.contextmanager
def spread(resources: Resources, alone: bool = False) -> Iterator[Mapper]:
    """A `Mapper` for the duration of the block, results in order and the same wherever they are made.

    The first items are done in this process, and all of them unless those show that many cores would save more time
    than Ray takes to start; then Ray starts, or is joined, for the rest of the block. Never if ``alone``.
    """
    from threadpoolctl import threadpool_limits

    with contextlib.ExitStack() as stack:

        def mapper(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
            waiting, times = deque(items), []
            cores = float("inf") if cluster_address() else resources.cpus or usable_cores()
            with threadpool_limits(1):  # as in a task: more threads may sum in another order
                while waiting and (alone or not (ray_runs() or pays(times, len(waiting), cores))):
                    began = time.process_time()
                    result = function(waiting.popleft())
                    times.append(time.process_time() - began)
                    yield result
            if waiting:
                if not ray_runs():
                    stack.enter_context(ray_session(resources))
                yield from ray_map(partial(_on_one_thread, function), waiting)

        yield mapper


def _on_one_thread(function: Callable[[Any], Any], item: Any) -> Any:
    limit_threads(1)
    return function(item)


def counted(mapper: Mapper, on_item: Callable[[], Any]) -> Mapper:
    """``mapper`` that calls ``on_item`` when a result has been taken."""

    def counting(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        for result in mapper(function, items):
            on_item()
            yield result

    return counting


def pays(times: Sequence[float], left: int, cores: float) -> bool:
    """Whether ``cores`` do ``left`` items sooner with a start of Ray, from core seconds so far but for the first."""
    return len(times) > 1 and left * sum(times[1:]) / len(times[1:]) * (1 - 1 / cores) > START_SECONDS


def ray_map(
    function: Callable[[Any], Any],
    items: Iterable[Any],
    *,
    in_order: bool = True,
    retries: int = 3,
    strategy: str = "DEFAULT",
    at_once: int | None = None,
    name: Callable[[Any], str] | None = None,
) -> Iterator[Any]:
    """``function`` of every item as Ray tasks of one core; a `UserError` comes as the function raises it.

    Without Ray this process makes them. The function goes into the object store once. Of ``items`` a deque may grow
    while results are taken, ``in_order`` or as they end. ``retries``: times a task is started again whose process or
    node died; ``strategy``: of Ray, which node a task goes to; ``at_once``: most tasks in flight, twice the cores if
    None; ``name``: of an item, whose errors come as RuntimeError with that name.
    """
    waiting = items if isinstance(items, deque) else deque(items)
    while waiting and not ray_runs():
        yield function(waiting.popleft())
    if not waiting:
        return
    import ray

    def call(function: Callable[[Any], Any], item: Any) -> Any:
        return function(item)

    task = ray.remote(num_cpus=1, max_retries=retries, scheduling_strategy=strategy)(call)
    shared, limit, flying = ray.put(function), at_once or max(1, 2 * int(total_cpus())), {}
    try:
        while waiting or flying:
            while waiting and len(flying) < limit:
                item = waiting.popleft()
                flying[task.remote(shared, item)] = item
            ended = next(iter(flying)) if in_order else ray.wait(list(flying), num_returns=1)[0][0]
            item = flying.pop(ended)
            try:
                result = ray.get(ended)
            except ray.exceptions.RayError as error:
                raised = isinstance(error, ray.exceptions.RayTaskError)
                if raised and isinstance(error.cause, UserError):  # in its own words, not with Ray's around them
                    raise error.cause from None
                if name is None:
                    raise
                how = " failed:\n" if raised else f": its process died {retries + 1} times: "
                raise RuntimeError(f"{name(item)}{how}{error}") from None
            yield result
    finally:
        for reference in flying:
            ray.cancel(reference, force=True)
