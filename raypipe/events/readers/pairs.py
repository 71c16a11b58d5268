"""The leading pair of a list of a ROOT tree, such as its muons, as columns of a table: one row an event."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from raypipe.config.read import EventSource, Pairs, Source
from raypipe.errors import UserError
from raypipe.events.objects import invariant_mass, order_and_rank, wrap_phi
from raypipe.events.readers.root import Branches, RootReader, open_tree

QUANTITIES = ("mass", "pt", "rapidity", "deta", "dphi", "cos_theta", "count")
THERE = "pair.there"  # Column that says which events have a pair; what the others hold means nothing
CARTESIAN, CYLINDRICAL = ("px", "py", "pz", "e"), ("pt", "eta", "phi")


def momenta(objects: dict[str, np.ndarray], mass: float) -> np.ndarray:
    """(n, 4) E, px, py, pz of objects (GeV) that have these, or pt, eta, phi and, unless it is ``mass``, their mass."""
    if set(CARTESIAN) <= objects.keys():
        px, py, pz, energy = (objects[name] for name in CARTESIAN)
        return np.stack([energy, px, py, pz], axis=1)
    pt, eta, phi = (objects[name] for name in CYLINDRICAL)
    own = objects.get("mass", np.full_like(pt, mass))
    energy = np.sqrt((pt * np.cosh(eta)) ** 2 + own**2)
    return np.stack([energy, pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)], axis=1)


def pair_quantities(first: np.ndarray, second: np.ndarray) -> dict[str, np.ndarray]:
    """Mass, pt [GeV] and rapidity of pairs of momenta (n, 4), and without their signs the differences of
    pseudorapidity and azimuth and the cosine of the polar angle in the frame of Collins and Soper
    (Phys. Rev. D 16 (1977) 2219)."""
    both = first + second
    mass, pt = invariant_mass(both), np.hypot(both[:, 1], both[:, 2])
    eta = [np.arcsinh(p[:, 3] / np.hypot(p[:, 1], p[:, 2])) for p in (first, second)]
    phi = [np.arctan2(p[:, 2], p[:, 1]) for p in (first, second)]
    crossed = 2 * np.abs(first[:, 3] * second[:, 0] - first[:, 0] * second[:, 3])
    return {
        "mass": mass,
        "pt": pt,
        "rapidity": np.arctanh(both[:, 3] / both[:, 0]),
        "deta": np.abs(eta[0] - eta[1]),
        "dphi": np.abs(wrap_phi(phi[0] - phi[1])),
        "cos_theta": crossed / (mass * np.hypot(mass, pt)),
    }


class PairReader(RootReader):
    """`raypipe.events.readers.base.Reader` of flat branches and of the leading pair of a list (`Source.pairs`)."""

    trees = ("Events", "Delphes")

    def names(self, path: Path, source: Source) -> list[str]:
        with open_tree(path, source.key, self.trees) as tree:
            leaves = _leaves(tree, source.pairs.of, path)[1].values()
        of_list = [f"{which}.{leaf}" for which in ("first", "second") for leaf in leaves]
        return [*super().names(path, source), *(f"pair.{name}" for name in QUANTITIES), *of_list]

    def read(self, path: Path, source: Source, start: int, stop: int, columns: Sequence[str]) -> pa.Table:
        flat = super().read(path, source, start, stop, [name for name in columns if not _of_pair(name)])
        with open_tree(path, source.key, self.trees) as tree:
            prefix, leaves = _leaves(tree, source.pairs.of, path)
            found = _pairs(Branches(tree, path, EventSource(), start, stop, ""), source.pairs, prefix, leaves, columns)
        return pa.table({name: found[name] if _of_pair(name) else flat[name] for name in columns})


def _of_pair(name: str) -> bool:
    return name.startswith(("pair.", "first.", "second."))


def _leaves(tree: Any, name: str, path: Path) -> tuple[str, dict[str, str]]:
    """How the branches of a list begin, and what its objects have, by the name in small letters; else a `UserError`."""
    for prefix in (f"{name}_", f"{name}."):
        found = [key.removeprefix(prefix) for key in tree.keys() if key.startswith(prefix)]  # noqa: SIM118
        leaves = {leaf.lower(): leaf for leaf in found}
        if leaves.keys() >= set(CYLINDRICAL) or leaves.keys() >= set(CARTESIAN):
            return prefix, leaves
    ends = ("_pt", ".pt", "_px")
    there = ", ".join(sorted(key[:-3] for key in tree.keys() if key.lower().endswith(ends)))  # noqa: SIM118
    told = "pt, eta and phi, or px, py, pz and E"
    raise UserError(f"{path}: source.pairs.of: no list {name!r} whose objects have {told} (present: {there or 'none'})")


def _pairs(
    read: Branches, pairs: Pairs, prefix: str, leaves: dict[str, str], columns: Sequence[str]
) -> dict[str, np.ndarray]:
    """The ``columns`` about pairs of the events of a range (n,), zero without a pair, and which have one (`THERE`)."""
    needed = [name for name in (*CARTESIAN, *CYLINDRICAL, "mass") if name in leaves]
    needed += [*pairs.cuts, *(name.partition(".")[2] for name in columns if name.startswith(("first.", "second.")))]
    needed += ["charge"] if pairs.charge != "any" else []
    wanted = {name.lower(): leaves.get(name.lower(), name) for name in needed}
    counts, objects = read.columns(prefix, wanted)
    event, p = np.repeat(np.arange(len(counts)), counts), momenta(objects, pairs.mass)
    kept = np.ones(len(event), bool)
    for name, (low, high) in pairs.cuts.items():
        values = objects[name.lower()]
        kept &= (values >= (-np.inf if low is None else low)) & (values < (np.inf if high is None else high))
    passing = np.flatnonzero(kept)
    order, rank = order_and_rank(event[passing], np.hypot(p[passing, 1], p[passing, 2]))
    place = np.flatnonzero(rank == 1)
    first, second = passing[order[place - 1]], passing[order[place]]
    if pairs.charge != "any":
        product = objects["charge"][first] * objects["charge"][second]
        right = product < 0 if pairs.charge == "opposite" else product > 0
        first, second = first[right], second[right]
    found = {f"pair.{name}": values for name, values in pair_quantities(p[first], p[second]).items()}
    found["pair.count"] = np.bincount(event[passing], minlength=len(counts))[event[first]]
    for which, rows in (("first", first), ("second", second)):
        found |= {f"{which}.{leaves[name]}": values[rows] for name, values in objects.items()}
    there = np.zeros(len(counts), bool)
    there[event[first]] = True
    filled = {name: np.zeros(len(counts)) for name in columns if name in found}
    for name, values in filled.items():
        values[there] = found[name]
    return filled | {THERE: there}
