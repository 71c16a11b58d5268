"""The contrastive search as trials of the scan engine: what determines a result, the grid, the function."""

from __future__ import annotations

import importlib.metadata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from raypipe.cluster.ledger import CODE, NUMERICS
from raypipe.config import Config
from raypipe.files import code_digest
from raypipe.search.contrastive import Tables, search
from raypipe.search.embeddings import representation
from raypipe.search.result import TRAINS_FLOWS, Result, Tools, Trial, trial_grid
from raypipe.simulate.processes import PROCESSES


def sample_groups() -> dict[str, int]:
    """Process group of every known sample; negative groups are signal families."""
    return {name: process.group for name, process in PROCESSES.items()}


def trial_inputs(config: Config, latents: Sequence[str]) -> dict[str, Any]:
    """What, besides the trial, determines a result: latents, code, packages and the sections that a search reads.

    Args:
        latents: digests of the latent tables of the trial's representation, one an encoder.
    """
    sections = ("seed", "window", "pseudodata", "massfit", "flow", "classifier", "selection")
    values = config.model_dump(mode="json")
    embedding = {k: values["embedding"][k] for k in ("train_fraction", "validation_fraction")}
    code = code_digest(*CODE)
    return {
        "latents": list(latents),
        "code": code,
        "embedding": embedding,
        **{k: values[k] for k in sections},
        "versions": {name: importlib.metadata.version(name) for name in NUMERICS},
    }


def grid_of(config: Config) -> list[Trial]:
    """All trials of the configured scan."""
    return list(dict.fromkeys(trial for grid in config.scan.grids() for trial in trial_grid(**grid)))


def plan_scan(
    config: Config, digests: Mapping[str, Sequence[str]], trials: Sequence[Trial] | None = None
) -> dict[str, Trial]:
    """Trials (the whole grid by default) by their ledger key.

    Args:
        digests: of the latent tables of every representation that the trials use, one an encoder.
    """
    groups = sample_groups()
    trials = grid_of(config) if trials is None else trials
    return {t.key(trial_inputs(config, digests[representation(t, groups)])): t for t in trials}


def flows_first(trials: Mapping[str, Trial]) -> dict[str, Trial]:
    """The trials in an order in which those that share their flows (`flow.share`) are far apart.

    The first of every flow set come first: workers that start together train different flows, where neighbours in the
    grid would wait for one and the same.
    """
    groups, seen = sample_groups(), Counter()
    rank = {}
    for key, trial in trials.items():
        flows = representation(trial, groups), trial.method, trial.instance
        rank[key] = seen[flows]
        seen[flows] += trial.method in TRAINS_FLOWS
    return {key: trials[key] for key in sorted(trials, key=rank.__getitem__)}


class Shelf(Mapping[str, "list[Tables]"]):
    """The tables of every representation in Ray's object store, one an encoder.

    What travels are references of some bytes; whoever asks for a representation fetches its tables and no others, and
    all trials of a node read the same copy.
    """

    def __init__(self) -> None:
        self._references: dict[str, list[Any]] = {}

    def put(self, name: str, tables: Tables) -> None:
        """Add a representation's table of one more encoder. Ray must be running."""
        import ray

        self._references.setdefault(name, []).append(ray.put(tables))

    def __getitem__(self, name: str) -> list[Tables]:
        import ray

        return ray.get(self._references[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._references)

    def __len__(self) -> int:
        return len(self._references)


def run_contrastive(inputs: tuple[Mapping[str, Sequence[Tables]], Config], trial: Trial, tools: Tools) -> Result:
    """One search of `raypipe.search.contrastive` as the scan engine calls it; tables by representation (`Shelf`)."""
    tables, config = inputs
    mine = tables[representation(trial, sample_groups())]
    return search(mine, config, trial, tools)
