"""A ``map`` that uses many cores: here, and as Ray tasks from the moment that the work pays for the start of Ray."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from raypipe.cluster.address import cluster_address
from raypipe.cluster.machine import usable_cores
from raypipe.cluster.runtime import limit_threads, ray_runs, ray_session, total_cpus
from raypipe.config import Resources
from raypipe.errors import UserError
from raypipe.fit.classifier import Mapper

START_SECONDS = 15.0
"""What the start of an embedded Ray takes, and joining a cluster at most."""


@contextlib.contextmanager
def spread(resources: Resources) -> Iterator[Mapper]:
    """A `Mapper` for the duration of the block, results in order.

    The first items are done in this process, and all of them unless those show that many cores would save more time
    than Ray takes to start; then Ray starts, or is joined, for the rest of the block. Either way the same function
    makes the same results.
    """
    from threadpoolctl import threadpool_limits

    with contextlib.ExitStack() as stack:

        def mapper(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
            waiting, times = list(items), []
            cores = float("inf") if cluster_address() else resources.cpus or usable_cores()
            with threadpool_limits(1):  # as in a task: more threads may sum in another order
                while waiting and not ray_runs() and not pays(times, len(waiting), cores):
                    began = time.process_time()
                    result = function(waiting.pop(0))
                    times.append(time.process_time() - began)
                    yield result
            if waiting:
                if not ray_runs():
                    stack.enter_context(ray_session(resources))
                yield from ray_map(function, waiting)

        yield mapper


def counted(mapper: Mapper, on_item: Callable[[], Any]) -> Mapper:
    """``mapper`` that calls ``on_item`` when a result has been taken."""

    def counting(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        for result in mapper(function, items):
            on_item()
            yield result

    return counting


def pays(times: Sequence[float], left: int, cores: float) -> bool:
    """Whether ``cores`` do ``left`` more items sooner with a start of Ray than one without.

    Args:
        times: core seconds of the items done so far; the first, which also loads libraries, does not count.
    """
    if len(times) < 2:
        return False
    return left * sum(times[1:]) / len(times[1:]) * (1 - 1 / cores) > START_SECONDS


def _call(function: Callable[[Any], Any], item: Any) -> Any:
    """Body of the Ray task: one core, one thread."""
    limit_threads(1)
    return function(item)


def ray_map(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """``function`` of every item as Ray tasks of one core, results in order: a `Mapper`. Ray must be running.

    The function with all it holds goes into the object store once. A task whose process dies is started again three
    times; twice as many tasks as cores are in flight, so that results do not pile up.

    Raises:
        UserError: as the function raises it.
    """
    import ray

    shared = ray.put(function)
    task = ray.remote(num_cpus=1, max_retries=3)(_call)
    iterator = iter(items)
    waiting = [task.remote(shared, item) for item in islice(iterator, 2 * max(1, int(total_cpus())))]
    try:
        while waiting:
            result = _get(ray, waiting.pop(0))
            waiting += [task.remote(shared, item) for item in islice(iterator, 1)]
            yield result
    finally:
        for reference in waiting:
            ray.cancel(reference, force=True)


def _get(ray: Any, reference: Any) -> Any:
    """A result; what the user can mend is told in its own words, not with Ray's around them."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from None
        raise
