"""A trial of any search in a worker: it fetches its own inputs, and is handed the sections that its key holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from raypipe.kinds import KINDS, load_plugins, resolve
from raypipe.search.base import Search
from raypipe.search.result import Result, Tools, Trial


class Shelf(dict[str, list[Any]]):
    """The inputs of the trials in Ray's object store, by name, each in parts.

    What travels are references of some bytes; whoever asks for an input fetches its parts and no others, and all
    trials of a node read the same copy.
    """

    def put(self, name: str, part: Any) -> None:
        """Add one more part of an input. Ray must be running."""
        import ray

        self.setdefault(name, []).append(ray.put(part))

    def __getitem__(self, name: str) -> list[Any]:
        import ray

        return ray.get(self.get(name, []))


def run_some(
    given: tuple[Mapping[str, Sequence[Any]], str, Any], trials: Sequence[Trial], tools: Tools
) -> list[Result]:
    """Trials of any search as the fan-out calls them; ``given``: inputs by name, the search, what it is handed."""
    shelf, kind, handed = given
    search = search_named(kind)(handed)
    results = search.run(shelf[search.need(trials[0])], trials, tools)
    return [replace(result, metric=search.metric) for result in results]


def search_named(kind: str) -> type[Search]:
    """The class of a search, also in a worker that has not needed any plugin yet."""
    if kind not in KINDS:
        load_plugins()
    return resolve(KINDS[kind].search)
