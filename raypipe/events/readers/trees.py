"""Whole events from ROOT trees of Delphes (Photon, ..., MissingET, Event.Weight) and NanoAOD (Photon, ..., genWeight).

Branches by another name, or another b-tag: `EventSource.tree_columns`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from raypipe.config.read import EventSource
from raypipe.errors import UserError
from raypipe.events.objects import ObjectBatch, Objects, flat_objects, ratio
from raypipe.events.readers.root import flat_branch, open_tree, scalar_branch
from raypipe.events.signed import SOURCE, refuse_negative

Leaves = dict[str, str]
"""Column of `Objects` -> the end of a branch's name."""


class Branches:
    """Branches of one range of a tree whose names are a kind and a leaf with ``joint`` between them."""

    def __init__(self, tree: Any, path: Path, source: EventSource, start: int, stop: int, joint: str) -> None:
        self.tree, self.path, self.source, self.range, self.joint = tree, path, source, (start, stop), joint

    def name(self, branch: str) -> str:
        return self.source.tree_columns.get(branch, branch)

    def has(self, branch: str) -> bool:
        return self.name(branch) in self.tree

    def flat(self, branch: str) -> tuple[np.ndarray, np.ndarray]:
        return flat_branch(self.tree, self.name(branch), self.path, *self.range)

    def scalar(self, branch: str) -> np.ndarray:
        return scalar_branch(self.tree, self.name(branch), self.path, *self.range)

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
        where = f"{self.path}: branch {self.name(branch)!r}, event"
        place = lambda row, weight: f"{where} {start + row}: the weight {weight:g}"  # noqa: E731
        refuse_negative(weights, self.source.weights, SOURCE, place)
        return weights


class DelphesReader:
    """Photons, jets, electrons, muons and missing momentum must be there; large-radius jets and weights need not."""

    trees, joint, weight, met = ("Delphes",), ".", "Event.Weight", ("MissingET.MET", "MissingET.Phi")
    place = {"pt": "PT", "eta": "Eta", "phi": "Phi"}  # noqa: RUF012
    mass, btag, charge = "Mass", "BTag", "Charge"

    def rows(self, path: Path, source: EventSource) -> int:
        """Events of the tree."""
        with open_tree(path, source.key, self.trees) as tree:
            return int(tree.num_entries)

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
