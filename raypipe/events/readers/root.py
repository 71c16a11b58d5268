"""ROOT trees (uproot): flat ntuples as tables, whole events of Delphes (Event.Weight) and NanoAOD (genWeight)."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pyarrow as pa

from raypipe.config.read import EventSource, Source
from raypipe.errors import UserError, first_line
from raypipe.events.fields import native
from raypipe.events.objects import ObjectBatch, Objects, flat_objects, ratio
from raypipe.events.readers.base import TREES, check_file, readable
from raypipe.events.readers.registry import is_url
from raypipe.events.signed import SOURCE, refuse_negative

ALONE = ("int", "uin", "flo", "boo")  # How the names of types of numbers begin


@contextlib.contextmanager
def open_tree(path: Path, key: str | None, usual: Sequence[str] = ()) -> Iterator[Any]:
    """The tree ``key`` of a ROOT file; where not given, one of the ``usual`` names, or the only tree."""
    import uproot

    with readable(path, "ROOT"), uproot.open({_fetchable(path): None} if is_url(path) else check_file(path)) as file:
        trees = [n for n, kind in file.classnames(cycle=False).items() if kind in TREES]
        wanted = key or next((name for name in usual if name in trees), None)
        if wanted is None and len(trees) == 1:
            wanted = trees[0]
        if wanted not in trees:
            there = ", ".join(trees) or "none"
            asked = f"tree {wanted!r} is missing" if wanted else "say which tree with the option key"
            raise UserError(f"{path}: {asked} (trees: {there})")
        yield file[wanted]  # of several cycles the last, which is the whole tree


def _fetchable(url: Any) -> str:
    """The URL, if what is installed can read such (uproot does by fsspec); else a `UserError`."""
    from fsspec import get_filesystem_class

    try:
        get_filesystem_class(url.partition("://")[0])
    except (ImportError, ValueError) as error:
        remedy = "pip install raypipe[xrootd]" if url.startswith("root:") else first_line(error)
        raise UserError(f"{url}: cannot be read with what is installed: {remedy}") from None
    return url


def branch(tree: Any, name: str, path: Path, start: int, stop: int) -> Any:
    """One branch as an awkward array; a missing one is a `UserError` naming it."""
    if name not in tree:
        kind = name.split(".")[0].split("_")[0]
        near = [k for k in tree.keys() if k.startswith(kind)] or list(tree.keys())  # noqa: SIM118  a tree, not a dict
        more = ", ..." if len(near) > 8 else ""
        raise UserError(f"{path}: branch {name!r} is missing (present: {', '.join(near[:8])}{more})")
    with readable(path, "ROOT"):
        return ak.materialize(tree[name].array(entry_start=start, entry_stop=stop))


def _refuse_not_finite(values: np.ndarray, event: np.ndarray, where: str) -> None:
    finite = np.isfinite(values).reshape(len(values), -1).all(1)
    if not finite.all():
        row = int(np.argmin(finite))
        raise UserError(f"{where}, event {event[row]}: {values[row]} is not finite")


class RootReader:
    """`raypipe.events.readers.base.Reader` of flat ntuples: the branches with one number an event are the columns."""

    trees: Sequence[str] = ()  # Names of a tree that is meant where there are several

    def rows(self, path: Path, source: Source) -> int:
        with open_tree(path, source.key, self.trees) as tree:
            return int(tree.num_entries)

    def names(self, path: Path, source: Source) -> list[str]:
        with open_tree(path, source.key, self.trees) as tree:
            if hasattr(tree, "branches"):
                kinds = {b.name: getattr(b.interpretation, "numpy_dtype", None) for b in tree.branches}
                return [name for name, kind in kinds.items() if kind is not None and kind.kind in "fiub"]
            kinds = {name: tree[name].array(entry_stop=1).type.content for name in tree.keys()}  # noqa: SIM118
            return [name for name, kind in kinds.items() if getattr(kind, "primitive", "")[:3] in ALONE]  # an RNTuple

    def read(self, path: Path, source: Source, start: int, stop: int, columns: Sequence[str]) -> pa.Table:
        with open_tree(path, source.key, self.trees) as tree:
            arrays = {name: branch(tree, name, path, start, stop) for name in columns}
        return pa.table({name: native(values.to_numpy()) for name, values in arrays.items()})


Leaves = dict[str, str]  # Column of `Objects` -> the end of a branch's name


class Branches:
    """Branches of one range of a tree whose names are a kind and a leaf with ``joint`` between them."""

    def __init__(self, tree: Any, path: Path, source: EventSource, start: int, stop: int, joint: str) -> None:
        self.tree, self.path, self.source, self.range, self.joint = tree, path, source, (start, stop), joint

    def has(self, name: str) -> bool:
        return self.source.tree_columns.get(name, name) in self.tree

    def _read(self, name: str) -> tuple[Any, str]:
        """One branch, called as the source says, and its name for messages."""
        name = self.source.tree_columns.get(name, name)
        return branch(self.tree, name, self.path, *self.range), f"{self.path}: branch {name!r}"

    def flat(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Counts per event and flat values of a jagged branch; NaN and infinity are refused, naming the event."""
        array, where = self._read(name)
        if array.ndim < 2:
            raise UserError(f"{where} holds one value an event, expected a list")
        counts = ak.to_numpy(ak.num(array, axis=1)).astype(np.int64)
        values = np.asarray(ak.to_numpy(ak.flatten(array, axis=1)), dtype=np.float64)
        _refuse_not_finite(values, np.repeat(np.arange(*self.range), counts), where)
        return counts, values

    def scalar(self, name: str) -> np.ndarray:
        """One finite number an event, float64; a list of exactly one counts as one (Delphes writes such)."""
        array, where = self._read(name)
        if array.ndim == 2 and bool(ak.all(ak.num(array, axis=1) >= 1)):
            array = array[:, 0]
        if array.ndim != 1:
            raise UserError(f"{where} does not hold one value an event")
        values = np.asarray(ak.to_numpy(array), dtype=np.float64)
        _refuse_not_finite(values, np.arange(*self.range), where)
        return values

    def columns(self, kind: str, leaves: Leaves) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Objects of a kind per event, and their columns; lists of different lengths are a `UserError`."""
        first, columns = None, {}
        for column, leaf in leaves.items():
            counts, columns[column] = self.flat(branch := f"{kind}{self.joint}{leaf}")
            first = counts if first is None else first
            if (counts != first).any():
                row = int(np.argmax(counts != first))
                where = f"{self.path}: branch {branch!r}, event {self.range[0] + row}"
                raise UserError(f"{where}: {counts[row]} values for {first[row]} objects")
        return first, columns

    def kind(self, kind: str, leaves: Leaves) -> Objects:
        counts, columns = self.columns(kind, leaves)
        return flat_objects(counts, **columns)

    def weights(self, branch: str) -> np.ndarray:
        """Weights of the events, one where the file has none or the source wants none; signs only where it says so."""
        start, stop = self.range
        given = self.source.weights != "one" and self.has(branch)
        weights = self.scalar(branch) if given else np.ones(stop - start)
        where = f"{self.path}: branch {self.source.tree_columns.get(branch, branch)!r}, event"
        place = lambda row, weight: f"{where} {start + row}: the weight {weight:g}"  # noqa: E731
        refuse_negative(weights, self.source.weights, SOURCE, place)
        return weights


class DelphesReader:
    """Photons, jets, electrons, muons and missing momentum must be there; large-radius jets and weights need not."""

    trees, joint, weight, met = ("Delphes",), ".", "Event.Weight", ("MissingET.MET", "MissingET.Phi")
    place = {"pt": "PT", "eta": "Eta", "phi": "Phi"}  # noqa: RUF012
    mass, btag, charge = "Mass", "BTag", "Charge"

    rows = RootReader.rows

    def objects(self, path: Path, source: EventSource, start: int, stop: int) -> ObjectBatch:
        """Events ``start <= entry < stop``; whatever is wrong with a branch is a `UserError` naming it."""
        with open_tree(path, source.key, self.trees) as tree:
            read = Branches(tree, path, source, start, stop, self.joint)
            weight = read.weights(self.weight)
            photons = read.kind("Photon", self.place)
            jets = read.kind("Jet", self.place | {"mass": self.mass, "btag": self.btag})
            fatjets = self.fatjets(read, stop - start)
            leptons = (read.kind(kind, self.place | {"charge": self.charge}) for kind in ("Electron", "Muon"))
            return ObjectBatch(stop - start, photons, jets, fatjets, *leptons, *map(read.scalar, self.met), weight)

    def fatjets(self, read: Branches, n: int) -> Objects:
        """Large-radius jets with their ratios of N-subjettinesses."""
        if not read.has("FatJet.PT"):
            return flat_objects(np.zeros(n, np.int64), **dict.fromkeys(self.place, np.empty(0)))
        counts, columns = read.columns("FatJet", self.place | {"mass": self.mass})
        # ROOT calls a branch of five numbers an object "FatJet.Tau[5]".
        name = next((n for n in ("FatJet.Tau[5]", "FatJet.Tau") if read.has(n)), "FatJet.Tau[5]")
        tau = read.flat(name)[1].reshape(-1, 5)
        if len(tau) != counts.sum():
            raise UserError(f"{read.path}: branch {name!r} has {len(tau)} entries for {counts.sum()} large-R jets")
        return flat_objects(counts, **columns, tau32=ratio(tau[:, 2], tau[:, 1]), tau43=ratio(tau[:, 3], tau[:, 2]))


class NanoAodReader(DelphesReader):
    """As `DelphesReader`; weights and the fourth N-subjettiness need not be there."""

    trees, joint, weight, met = ("Events",), "_", "genWeight", ("MET_pt", "MET_phi")
    place = {name: name for name in ("pt", "eta", "phi")}  # noqa: RUF012
    mass, btag, charge = "mass", "btagDeepFlavB", "charge"

    def fatjets(self, read: Branches, n: int) -> Objects:
        """Large-radius jets with their ratios of N-subjettinesses."""
        counts, columns = read.columns("FatJet", self.place | {"mass": self.mass})
        tau = [read.flat(f"FatJet_tau{i}")[1] for i in (2, 3)]
        if read.has("FatJet_tau4"):  # some campaigns dropped it
            columns["tau43"] = ratio(read.flat("FatJet_tau4")[1], tau[1])
        return flat_objects(counts, **columns, tau32=ratio(tau[1], tau[0]))
