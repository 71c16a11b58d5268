"""ROOT trees: flat ntuples as tables, and what the readers of whole events share (uproot)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pyarrow as pa

from raypipe.config.read import Source
from raypipe.errors import UserError
from raypipe.events.fields import native
from raypipe.events.readers.base import TREES, check_file, readable

ALONE = ("int", "uin", "flo", "boo")
"""How the names of types of numbers begin."""


@contextlib.contextmanager
def open_tree(path: Path, key: str | None, usual: Sequence[str] = ()) -> Iterator[Any]:
    """The tree ``key`` of a ROOT file; where not given, one of the ``usual`` names, or the only tree."""
    import uproot

    with readable(check_file(path), "ROOT"), uproot.open(path) as file:
        trees = [n for n, kind in file.classnames(cycle=False).items() if kind in TREES]
        wanted = key or next((name for name in usual if name in trees), None)
        if wanted is None and len(trees) == 1:
            wanted = trees[0]
        if wanted not in trees:
            there = ", ".join(trees) or "none"
            asked = f"tree {wanted!r} is missing" if wanted else "say which tree with the option key"
            raise UserError(f"{path}: {asked} (trees: {there})")
        yield file[wanted]  # of several cycles the last, which is the whole tree


def branch(tree: Any, name: str, path: Path, start: int, stop: int) -> Any:
    """One branch as an awkward array; a missing one is a `UserError` naming it."""
    if name not in tree:
        kind = name.split(".")[0].split("_")[0]
        near = [k for k in tree.keys() if k.startswith(kind)] or list(tree.keys())  # noqa: SIM118  a tree, not a dict
        more = ", ..." if len(near) > 8 else ""
        raise UserError(f"{path}: branch {name!r} is missing (present: {', '.join(near[:8])}{more})")
    with readable(path, "ROOT"):
        return ak.materialize(tree[name].array(entry_start=start, entry_stop=stop))


def flat_branch(tree: Any, name: str, path: Path, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """Counts per event and flat values of a jagged branch; NaN and infinity are refused, naming the event."""
    array = branch(tree, name, path, start, stop)
    if array.ndim < 2:
        raise UserError(f"{path}: branch {name!r} holds one value an event, expected a list")
    counts = ak.to_numpy(ak.num(array, axis=1)).astype(np.int64)
    values = np.asarray(ak.to_numpy(ak.flatten(array, axis=1)), dtype=np.float64)
    _refuse_not_finite(values, np.repeat(np.arange(start, stop), counts), f"{path}: branch {name!r}")
    return counts, values


def scalar_branch(tree: Any, name: str, path: Path, start: int, stop: int) -> np.ndarray:
    """One finite number an event, float64; a list of exactly one counts as one (Delphes writes such)."""
    array = branch(tree, name, path, start, stop)
    if array.ndim == 2 and bool(ak.all(ak.num(array, axis=1) >= 1)):
        array = array[:, 0]
    if array.ndim != 1:
        raise UserError(f"{path}: branch {name!r} does not hold one value an event")
    values = np.asarray(ak.to_numpy(array), dtype=np.float64)
    _refuse_not_finite(values, np.arange(start, stop), f"{path}: branch {name!r}")
    return values


def _refuse_not_finite(values: np.ndarray, event: np.ndarray, where: str) -> None:
    finite = np.isfinite(values).reshape(len(values), -1).all(1)
    if not finite.all():
        row = int(np.argmin(finite))
        raise UserError(f"{where}, event {event[row]}: {values[row]} is not finite")


class RootReader:
    """`raypipe.events.readers.base.Reader` of flat ntuples: the branches with one number an event are the columns."""

    def rows(self, path: Path, source: Source) -> int:
        with open_tree(path, source.key) as tree:
            return int(tree.num_entries)

    def names(self, path: Path, source: Source) -> list[str]:
        with open_tree(path, source.key) as tree:
            if hasattr(tree, "branches"):
                kinds = {b.name: getattr(b.interpretation, "numpy_dtype", None) for b in tree.branches}
                return [name for name, kind in kinds.items() if kind is not None and kind.kind in "fiub"]
            kinds = {name: tree[name].array(entry_stop=1).type.content for name in tree.keys()}  # noqa: SIM118
            return [name for name, kind in kinds.items() if getattr(kind, "primitive", "")[:3] in ALONE]  # an RNTuple

    def read(self, path: Path, source: Source, start: int, stop: int, columns: Sequence[str] | None) -> pa.Table:
        wanted = self.names(path, source) if columns is None else columns
        with open_tree(path, source.key) as tree:
            arrays = {name: branch(tree, name, path, start, stop) for name in wanted}
        return pa.table({name: native(values.to_numpy()) for name, values in arrays.items()})
