"""Driver processes for tests: ``python -m tests.cluster.drivers KIND LEDGER COUNT``, alone or in the given cluster.

``probe``: trials that take a second; ``search``: the real search on small made-up latents; ``multilepton``: real
comparisons of Gaussian events, four of them made as one.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from raypipe.cluster.attempt import Function, run_some
from raypipe.cluster.fanout import Scan
from raypipe.cluster.live import run_trials
from raypipe.cluster.runtime import ray_session
from raypipe.config import Config, Resources, load_config
from raypipe.search.case import Tables
from raypipe.search.contrastive_search import Contrastive
from raypipe.search.diphoton import prepare_tables
from raypipe.search.multilepton_search import Multilepton
from raypipe.search.result import DATA, Trial
from raypipe.store.ledger import Ledger
from raypipe.store.status import status
from tests.cluster.trials import probes, run_probes
from tests.conftest import ROOT
from tests.search.test_contrastive import OVERRIDES, events
from tests.search.test_multilepton import config, tables

SMALL = [
    "scan.strengths=[1.0, 2.0, 4.0]",
    "scan.instances=10",
    "scan.background_instances=10",
    "flow.epochs=3",
    "selection.working_points=[0.05]",
    "classifier.rounds=20",
    "resources.max_failures=2",
    "resources.cpus=2",
]
"""The search of `tests.search.test_contrastive`, smaller still: 40 trials with one row each."""


def small_config() -> Config:
    """What the `search` kind runs."""
    return load_config(ROOT / "configs/contrastive/laptop.yaml", [*OVERRIDES, *SMALL])


def small_search() -> tuple[Function, Any, dict[str, Any]]:
    """Function, inputs and trials of the `search` kind."""
    given = small_config()
    return run_some, ({"id": [small_tables(given)]}, "contrastive", given), keyed(given)


def keyed(given: Config, trials: list[Trial] | None = None) -> dict[str, Trial]:
    """Trials (the whole grid by default) by ledger key, as if of these latent tables."""
    search = Contrastive(given)
    made = {"latents": {f"{name} 0": {"digest": f"made up {name}"} for name in ("id", "raw")}}
    trials = search.grid() if trials is None else trials
    return {t.key(search.inputs_key(search.need(t), made)): t for t in trials}


def small_tables(given: Config) -> Tables:
    """Made-up events for `small_config`."""
    higgs = [events(1000, 20.0, f, 1.5, True, f) for f in (200_000, 300_000)]
    search = {
        "yy": events(6000, 360.0, 0, 0.0, False, 1),
        "ggf": higgs[0],
        "wn_150": events(1500, 1.0, 100_000, 3.0, True, 2),
    }
    return prepare_tables({"search": search, "embedding": {"ggf": higgs[1]}}, given)


def small_comparisons() -> tuple[Function, Any, dict[str, Any]]:
    """Function, inputs and trials of the `multilepton` kind: a chunk of four takes some seconds."""
    networks = {"hidden": [32, 32], "members": 3, "epochs": 500}
    given = config(bootstrap={"count": 40}, networks=networks, scan={"signals": [], "calibration": 0})
    trials = {
        trial.key({"made up": "for the tests"}): trial for trial in Multilepton(given).grid() if trial.signal != DATA
    }
    return run_some, ({"tables": [tables(given)]}, "multilepton", given), trials


def work(kind: str, count: int) -> tuple[Function, Any, dict[str, Any]]:
    """Function, inputs and the first ``count`` trials of a kind."""
    if kind == "probe":
        return run_probes, {"table": np.arange(1000.0)}, probes(count, seconds=1.0)
    function, inputs, trials = small_search() if kind == "search" else small_comparisons()
    return function, inputs, dict(list(trials.items())[:count])


def main(kind: str, ledger: str, count: int) -> None:
    """Run the trials that the ledger lacks; leaves with status 1 if some are still missing."""
    function, inputs, trials = work(kind, count)
    book = Ledger(ledger)
    # A trial that is made alone, as its chunk was killed too often, differs from the chunk's in the last digits.
    resources = Resources(cpus=2, max_failures=9 if kind == "multilepton" else 2, object_store_gib=0.25)
    with ray_session(resources):
        together = 4 if kind == "multilepton" else 0
        run_trials(Scan(function, inputs, trials, book, resources, together=together))
    if status(book).done < count:
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
