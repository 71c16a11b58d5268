"""CMS NanoAOD trees: Photon, Jet, FatJet, Electron, Muon, MET, genWeight."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from raypipe.config.read import EventSource
from raypipe.errors import UserError
from raypipe.events.objects import ObjectBatch, Objects, flat_objects
from raypipe.events.readers.delphes import place_of, ratio
from raypipe.events.readers.root import flat_branch, open_tree, scalar_branch
from raypipe.events.signed import SOURCE, refuse_negative

TREES = ("Events",)

KINDS = {
    "Photon": {"pt": "pt", "eta": "eta", "phi": "phi"},
    "Jet": {"pt": "pt", "eta": "eta", "phi": "phi", "mass": "mass", "btag": "btagDeepFlavB"},
    "FatJet": {"pt": "pt", "eta": "eta", "phi": "phi", "mass": "mass"},
    "Electron": {"pt": "pt", "eta": "eta", "phi": "phi", "mass": "mass", "charge": "charge"},
    "Muon": {"pt": "pt", "eta": "eta", "phi": "phi", "mass": "mass", "charge": "charge"},
}
"""Objects and the leaves that are read of each."""


class NanoAodReader:
    """Reads whole events. Branches by another name, or another b-tag: `EventSource.tree_columns`."""

    def rows(self, path: Path, source: EventSource) -> int:
        """Events of the tree."""
        with open_tree(path, source.key, TREES) as tree:
            return int(tree.num_entries)

    def objects(
        self, path: Path, source: EventSource, start: int, stop: int, kinds: tuple[str, ...] = tuple(KINDS)
    ) -> ObjectBatch:
        """Events ``start <= entry < stop`` with the given ``kinds`` of objects (the others empty).

        Missing momentum is zero where not all kinds are asked for and the file has none.

        Raises:
            UserError: a missing branch, NaN or a negative weight, naming file and branch.
        """
        n = stop - start
        with open_tree(path, source.key, TREES) as tree:

            def name(branch: str) -> str:
                return source.tree_columns.get(branch, branch)

            def scalar(branch: str, needed: bool, default: float) -> np.ndarray:
                if not needed and name(branch) not in tree:
                    return np.full(n, default)
                return scalar_branch(tree, name(branch), path, start, stop)

            found = {}
            for kind, leaves in KINDS.items():
                if kind not in kinds:
                    found[kind] = flat_objects(np.zeros(n, dtype=np.int64))
                    continue
                found[kind] = _objects(tree, path, start, stop, kind, leaves, name)
            weight = scalar("genWeight", False, 1.0) if source.weights != "one" else np.ones(n)
            refuse_negative(weight, source.weights, SOURCE, place_of(name("genWeight"), path, start))
            every = set(kinds) == set(KINDS)
            return ObjectBatch(
                n,
                found["Photon"],
                found["Jet"],
                found["FatJet"],
                found["Electron"],
                found["Muon"],
                scalar("MET_pt", every, 0.0),
                scalar("MET_phi", every, 0.0),
                weight,
            )


def _objects(tree: Any, path: Path, start: int, stop: int, kind: str, leaves: dict[str, str], name: Any) -> Objects:
    columns, counts = {}, None
    for column, leaf in leaves.items():
        here, columns[column] = flat_branch(tree, name(f"{kind}_{leaf}"), path, start, stop)
        counts = here if counts is None else counts
        if (here != counts).any():
            raise UserError(f"{path}: branch '{kind}_{leaf}' has another number of entries than '{kind}_pt'")
    if kind == "FatJet":
        tau = [flat_branch(tree, name(f"FatJet_tau{i}"), path, start, stop)[1] for i in (2, 3)]
        columns["tau32"] = ratio(tau[1], tau[0])
        if name("FatJet_tau4") in tree:  # some campaigns dropped it
            columns["tau43"] = ratio(flat_branch(tree, name("FatJet_tau4"), path, start, stop)[1], tau[1])
    return flat_objects(counts, **columns)
