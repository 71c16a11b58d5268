"""A ``map`` that uses all cores of the Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from raypipe.cluster.runtime import limit_threads, total_cpus


def _call(function: Callable[[Any], Any], item: Any) -> Any:
    """Body of the Ray task: one core, one thread."""
    limit_threads(1)
    return function(item)


def ray_map(
    function: Callable[[Any], Any], items: Iterable[Any], on_item: Callable[[], None] | None = None
) -> Iterator[Any]:
    """``function`` of every item as Ray tasks of one core, results in order: `raypipe.fit.classifier.Mapper`.

    The function with all it holds goes into the object store once. A task whose process dies is started again three
    times; twice as many tasks as cores are in flight, so that results do not pile up. Ray must be running.

    Args:
        on_item: called when a result has been taken.
    """
    import ray

    shared = ray.put(function)
    task = ray.remote(num_cpus=1, max_retries=3)(_call)
    ahead, waiting, iterator = 2 * max(1, int(total_cpus())), [], iter(items)
    try:
        for item in iterator:
            waiting.append(task.remote(shared, item))
            if len(waiting) >= ahead:
                break
        while waiting:
            result = ray.get(waiting.pop(0))
            for item in iterator:
                waiting.append(task.remote(shared, item))
                break
            if on_item:
                on_item()
            yield result
    finally:
        for reference in waiting:
            ray.cancel(reference, force=True)
