"""A trial of any search in a worker: it fetches its own inputs, and is handed the sections that its key holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from raypipe.kinds import KINDS, load_plugins, resolve
from raypipe.search.base import Search
from raypipe.search.result import Result, Tools, Trial


class Shelf(Mapping[str, "list[Any]"]):
    """The inputs of the trials in Ray's object store, by name, each in parts.

    What travels are references of some bytes; whoever asks for an input fetches its parts and no others, and all
    trials of a node read the same copy.
    """

    def __init__(self) -> None:
        self._references: dict[str, list[Any]] = {}

    def put(self, name: str, part: Any) -> None:
        """Add one more part of an input. Ray must be running."""
        import ray

        self._references.setdefault(name, []).append(ray.put(part))

    def __getitem__(self, name: str) -> list[Any]:
        import ray

        return ray.get(self._references.get(name, []))

    def __iter__(self) -> Iterator[str]:
        return iter(self._references)

    def __len__(self) -> int:
        return len(self._references)


def run_together(
    given: tuple[Mapping[str, Sequence[Any]], str, Any], trials: Sequence[Trial], tools: Tools
) -> list[Result]:
    """Trials of any search as the fan-out calls them; ``given``: inputs by name, the search, what it is handed."""
    shelf, kind, handed = given
    search = search_named(kind)(handed)
    return search.run(shelf[search.need(trials[0])], trials, tools)


def run_one(given: tuple[Mapping[str, Sequence[Any]], str, Any], trial: Trial, tools: Tools) -> Result:
    """`run_together` of one."""
    (result,) = run_together(given, [trial], tools)
    return result


def search_named(kind: str) -> type[Search]:
    """The class of a search, also in a worker that has not needed any plugin yet."""
    if kind not in KINDS:
        load_plugins()
    return resolve(KINDS[kind].search)
