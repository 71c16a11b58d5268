"""Delphes trees: Photon, Jet, FatJet, Electron, Muon, MissingET, Event.Weight."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from raypipe.config.read import EventSource
from raypipe.errors import UserError
from raypipe.events.objects import ObjectBatch, Objects, flat_objects
from raypipe.events.readers.root import flat_branch, open_tree, scalar_branch
from raypipe.events.signed import SOURCE, refuse_negative

TREES = ("Delphes",)


class DelphesReader:
    """Reads whole events. Branches by another name: `EventSource.tree_columns`."""

    def rows(self, path: Path, source: EventSource) -> int:
        """Events of the tree."""
        with open_tree(path, source.key, TREES) as tree:
            return int(tree.num_entries)

    def objects(self, path: Path, source: EventSource, start: int, stop: int) -> ObjectBatch:
        """Events ``start <= entry < stop``.

        Photons, jets, electrons, muons and missing momentum must be there; large-radius jets and weights need not.

        Raises:
            UserError: a missing branch, lists of different lengths, NaN or a negative weight, naming file and branch.
        """
        with open_tree(path, source.key, TREES) as tree:
            read = _Branches(tree, path, source, start, stop)
            given = source.weights != "one" and read.has("Event.Weight")
            weight = read.scalar("Event.Weight") if given else np.ones(stop - start)
            refuse_negative(weight, source.weights, SOURCE, place_of("Event.Weight", path, start))
            return ObjectBatch(
                stop - start,
                read.kind("Photon", pt="PT", eta="Eta", phi="Phi"),
                read.kind("Jet", pt="PT", eta="Eta", phi="Phi", mass="Mass", btag="BTag"),
                self._fatjets(read) if read.has("FatJet.PT") else flat_objects(np.zeros(stop - start, np.int64)),
                read.kind("Electron", pt="PT", eta="Eta", phi="Phi", charge="Charge"),
                read.kind("Muon", pt="PT", eta="Eta", phi="Phi", charge="Charge"),
                read.scalar("MissingET.MET"),
                read.scalar("MissingET.Phi"),
                weight,
            )

    def _fatjets(self, read: _Branches) -> Objects:
        counts, columns = read.columns("FatJet", pt="PT", eta="Eta", phi="Phi", mass="Mass")
        # ROOT calls a branch of five numbers an object "FatJet.Tau[5]".
        name = next((n for n in ("FatJet.Tau[5]", "FatJet.Tau") if read.has(n)), "FatJet.Tau[5]")
        tau = read.flat(name)[1].reshape(-1, 5)
        if len(tau) != counts.sum():
            raise UserError(f"{read.path}: branch {name!r} has {len(tau)} entries for {counts.sum()} large-R jets")
        return flat_objects(counts, **columns, tau32=ratio(tau[:, 2], tau[:, 1]), tau43=ratio(tau[:, 3], tau[:, 2]))


class _Branches:
    """Branches of one range of a Delphes tree."""

    def __init__(self, tree: Any, path: Path, source: EventSource, start: int, stop: int) -> None:
        self.tree, self.path, self.source, self.range = tree, path, source, (start, stop)

    def name(self, name: str) -> str:
        return self.source.tree_columns.get(name, name)

    def has(self, name: str) -> bool:
        return self.name(name) in self.tree

    def flat(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        return flat_branch(self.tree, self.name(name), self.path, *self.range)

    def scalar(self, name: str) -> np.ndarray:
        return scalar_branch(self.tree, self.name(name), self.path, *self.range)

    def columns(self, kind: str, **branches: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        first, columns = None, {}
        for column, leaf in branches.items():
            counts, columns[column] = self.flat(f"{kind}.{leaf}")
            first = counts if first is None else first
            if (counts != first).any():
                event = self.range[0] + int(np.argmax(counts != first))
                raise UserError(
                    f"{self.path}: branch '{kind}.{leaf}', event {event}: {counts[event - self.range[0]]} "
                    f"values for {first[event - self.range[0]]} objects"
                )
        return first, columns

    def kind(self, kind: str, **branches: str) -> Objects:
        counts, columns = self.columns(kind, **branches)
        return flat_objects(counts, **columns)


def place_of(name: str, path: Path, start: int) -> Callable[[int, float], str]:
    """Where a weight stands, for messages about events from ``start`` on."""
    return lambda row, weight: f"{path}: branch {name!r}, event {start + row}: the weight {weight:g}"


def ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """top / bottom in [0, 1], zero where the bottom is."""
    return np.clip(np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 1e-9), 0.0, 1.0)
