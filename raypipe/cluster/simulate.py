"""Simulation as Ray tasks: one shard a task, finished ones never made twice."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raypipe.config import Config
from raypipe.errors import UserError
from raypipe.files import check_writable
from raypipe.progress import SampleTable
from raypipe.simulate import dataset
from raypipe.simulate.dataset import Plan, Shard
from raypipe.store.artefacts import Artefacts

log = logging.getLogger(__name__)

RETRIES = 3
"""Times a shard is started again after its process or node died."""

Sidecars = dict[str, dict[int, dict[str, Any]]]
"""Sidecars of finished shards by sample and shard number."""


def events_folder(folder: str | Path) -> Path:
    """The data set folder of a run's output ``folder``."""
    return Path(folder) / "events"


def is_complete(config: Config, folder: str | Path) -> bool:
    """Whether the data set of ``config`` is finished in the run's output ``folder``; needs neither Ray nor Pythia."""
    return dataset.is_complete(dataset.plan(config), events_folder(folder))


def simulate_events(run: Any, stage: Any, items: Sequence[Any]) -> None:
    """The data set of a run (a maker of `raypipe.search.base.Stage`)."""
    run.ray()
    with run.timed(stage.name):
        simulate(run.config, run.folder, artefacts=run.artefacts)


def simulate(
    config: Config, folder: str | Path, *, concurrency: int | None = None, artefacts: Artefacts | None = None
) -> dict[str, Any]:
    """Make the data set of ``config`` in ``<folder>/events`` and return its manifest (`raypipe.simulate.dataset`).

    What is finished is kept: a killed run loses only the shards that were running. A complete data set returns at
    once; otherwise Ray must be initialised. On several machines ``folder`` must be on storage that all of them see.

    Args:
        folder: output folder of the run.
        concurrency: most shards at the same time; as many as Ray has cores when not given. Never changes a number.
        artefacts: where shards that another run has made are looked for, and new ones are left.

    Raises:
        UserError: an unknown sample or card, or a folder that cannot be written.
        RuntimeError: a shard that cannot be made; the message names its sample and holds the traceback.
    """
    wanted = dataset.plan(config)
    events = events_folder(folder)
    if dataset.is_complete(wanted, events):
        return dataset.read_manifest(events)
    shared = Shared(artefacts or Artefacts(None), check_writable(events).resolve())
    done = {
        name: {
            number: sidecar
            for number in range(sample.expected)
            if (sidecar := shared.finished(sample.shard(number))) is not None
        }
        for name, sample in wanted.samples.items()
    }
    _make_missing(wanted, shared, done, concurrency)
    return dataset.assemble(wanted, events, {name: [found[i] for i in sorted(found)] for name, found in done.items()})


@dataclass(frozen=True)
class Shared:
    """The shards of a data set folder and of other runs."""

    artefacts: Artefacts
    events: Path
    """Folder of the data set."""

    def _files(self, shard: Shard) -> dict[str, Path]:
        path = shard.path(self.events)
        return {"events.parquet": path, "events.json": path.with_suffix(".json")}

    def finished(self, shard: Shard) -> dict[str, Any] | None:
        """The sidecar of a shard that is here, or that another run has made and is here from now on."""
        if (sidecar := shard.finished(self.events)) is not None:
            self.give(shard)
            return sidecar
        if self.artefacts.take("shards", shard.key, self._files(shard)):
            return shard.finished(self.events)
        return None

    def give(self, shard: Shard) -> None:
        """Leave a shard for other runs."""
        self.artefacts.give("shards", shard.key, self._files(shard))


def _needed(wanted: Plan, name: str, done: dict[int, dict[str, Any]], shared: Shared) -> list[Shard]:
    """The shards that one sample still lacks, none as long as earlier ones decide how many; adds those found."""
    sample = wanted.samples[name]
    lacking = [number for number in range(sample.expected) if number not in done]
    if lacking:
        return [sample.shard(number) for number in lacking]
    while more := sample.missing([done[number] for number in range(len(done))]):
        extra = [sample.shard(number) for number in range(len(done), len(done) + more)]
        found = {shard.number: sidecar for shard in extra if (sidecar := shared.finished(shard)) is not None}
        if len(found) < len(extra):
            lacking = [shard for shard in extra if shard.number not in found]
            done |= found
            return lacking
        done |= found
    return []


def _make_missing(wanted: Plan, shared: Shared, done: Sidecars, concurrency: int | None) -> None:
    """Run shards until every sample has enough events, adding their sidecars to ``done``."""
    waiting = deque(shard for name in wanted.samples for shard in _needed(wanted, name, done[name], shared))
    if not waiting:
        return
    import ray

    task = ray.remote(num_cpus=1, max_retries=RETRIES, scheduling_strategy="SPREAD")(_make_shard)
    limit = concurrency or max(1, 2 * int(ray.cluster_resources().get("CPU", 1)))
    running: dict[Any, Shard] = {}
    open_shards = {name: sum(shard.process.name == name for shard in waiting) for name in wanted.samples}

    def ended(shard: Shard, sidecar: dict[str, Any]) -> None:
        name = shard.process.name
        done[name][shard.number] = sidecar
        table.add(name, sidecar["n_selected"])
        open_shards[name] -= 1
        if open_shards[name] == 0:
            more = _needed(wanted, name, done[name], shared)
            open_shards[name] = len(more)
            waiting.extend(more)

    with SampleTable({name: sample.events for name, sample in wanted.samples.items()}) as table:
        for name, found in done.items():
            table.found(name, sum(sidecar["n_selected"] for sidecar in found.values()))
        try:
            while waiting or running:
                while waiting and len(running) < limit:
                    shard = waiting.popleft()
                    table.begin(shard.process.name)
                    if (sidecar := shared.finished(shard)) is not None:  # another run has made it meanwhile
                        ended(shard, sidecar)
                    else:
                        running[task.remote(shard, str(shared.events))] = shard
                for reference in ray.wait(list(running), num_returns=1)[0] if running else ():
                    shard = running.pop(reference)
                    sidecar = _result(ray, reference, shard, shared.events)
                    shared.give(shard)
                    ended(shard, sidecar)
        finally:
            for reference in running:
                ray.cancel(reference, force=True)


def _make_shard(shard: Shard, events: str) -> dict[str, Any]:
    """Body of the Ray task."""
    import pyarrow as pa

    # One core a task: Arrow would otherwise start a pool of threads in every worker.
    pa.set_cpu_count(1)
    return shard.make(events)


def _result(ray: Any, reference: Any, shard: Shard, events: Path) -> dict[str, Any]:
    """The sidecar of a finished task; its failure is told with the sample and the traceback."""
    where = f"sample {shard.process.name}, shard {shard.number} (seed {shard.seed})"
    try:
        sidecar = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from None
        raise RuntimeError(f"{where} failed:\n{error}") from None
    except ray.exceptions.RayError as error:
        raise RuntimeError(f"{where}: its process died {RETRIES + 1} times: {error}") from None
    if not shard.path(events).exists():
        raise UserError(f"{events}: a worker wrote {where} but it is not here; all machines must share this folder")
    return sidecar
