"""Simulation as Ray tasks: one shard a task, finished ones never made twice."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from raypipe.cluster.tasks import ray_map
from raypipe.config import Config
from raypipe.errors import UserError
from raypipe.files import check_writable
from raypipe.progress import progress_bar
from raypipe.simulate import dataset
from raypipe.simulate.dataset import Plan, SamplePlan, Shard
from raypipe.store.files import Artefacts

Sidecars = dict[int, dict[str, Any]]  # Sidecars of the finished shards of a sample by their number


def simulate_events(run: Any, stage: Any, items: Sequence[Any]) -> None:
    """The data set of a run (a maker of `raypipe.search.base.Stage`)."""
    run.ray()
    with run.timed(stage.name):
        simulate(run.config, run.folder, artefacts=run.artefacts)


def simulate(
    config: Config, folder: str | Path, *, concurrency: int | None = None, artefacts: Artefacts | None = None
) -> dict[str, Any]:
    """Make the data set of ``config`` in ``<folder>/events`` and return its manifest (`raypipe.simulate.dataset`).

    What is finished is kept. Ray makes it, or this process where none runs; all machines must see ``folder``. An
    unknown sample or card is a `UserError`; a shard that cannot be made is a RuntimeError that names its sample and
    holds the traceback. ``concurrency``: most shards at the same time, as many as Ray has cores if None. ``artefacts``:
    where shards of other runs are looked for, and new ones are left.
    """
    wanted, events = dataset.plan(config), Path(folder) / "events"
    if dataset.is_complete(wanted, events):
        return dataset.read_manifest(events)
    found = _made(wanted, Shared(artefacts or Artefacts(None), check_writable(events).resolve()), concurrency)
    return dataset.assemble(wanted, events, {name: [made[i] for i in sorted(made)] for name, made in found.items()})


@dataclass(frozen=True)
class Shared:
    """The shards of a data set folder and of other runs."""

    artefacts: Artefacts
    events: Path  # Folder of the data set

    def _files(self, shard: Shard) -> dict[str, Path]:
        path = shard.path(self.events)
        return {"events.parquet": path, "events.json": path.with_suffix(".json")}

    def finished(self, shard: Shard) -> dict[str, Any] | None:
        """The sidecar of a shard that is here, or that another run has made and is here from now on."""
        if (sidecar := shard.finished(self.events)) is not None:
            self.give(shard)
        elif self.artefacts.take("shards", shard.key, self._files(shard)):
            sidecar = shard.finished(self.events)
        return sidecar

    def give(self, shard: Shard) -> None:
        """Leave a shard for other runs."""
        self.artefacts.give("shards", shard.key, self._files(shard))


def _needed(sample: SamplePlan, found: Sidecars, shared: Shared) -> list[Shard]:
    """The next shards that a sample lacks; adds to ``found`` the sidecars of those that are there."""
    while more := sample.missing(list(found.values())):
        shards = [sample.shard(number) for number in range(len(found) + more) if number not in found]
        found |= {shard.number: there for shard in shards if (there := shared.finished(shard)) is not None}
        if lacking := [shard for shard in shards if shard.number not in found]:
            return lacking
    return []


def _made(wanted: Plan, shared: Shared, concurrency: int | None) -> dict[str, Sidecars]:
    """Make shards until every sample has enough events."""
    found: dict[str, Sidecars] = {name: {} for name in wanted.samples}
    needed = {name: _needed(sample, found[name], shared) for name, sample in wanted.samples.items()}
    # Those that select few of their events take longest: first, or the last of them would keep one core busy alone.
    waiting = deque(sorted((s for shards in needed.values() for s in shards), key=lambda s: s.process.efficiency))
    if not waiting:
        return found
    still = {name: len(shards) for name, shards in needed.items()}
    with progress_bar("simulate", sum(sample.events for sample in wanted.samples.values())) as bar:
        bar(sum(_done(sample, found[name]) for name, sample in wanted.samples.items()), _left(still))
        for shard, sidecar in ray_map(
            partial(_take_or_make, _make_shard, shared),
            waiting,
            in_order=False,
            strategy="SPREAD",
            at_once=concurrency,
            name=_name,
        ):
            if not shard.path(shared.events).exists():
                told = f"a worker wrote {_name(shard)} but it is not here; all machines must share this folder"
                raise UserError(f"{shared.events}: {told}")
            name = shard.process.name
            sample, before = wanted.samples[name], _done(wanted.samples[name], found[name])
            found[name][shard.number] = sidecar
            still[name] -= 1
            if not still[name]:
                more = _needed(sample, found[name], shared)
                still[name] = len(more)
                waiting.extend(more)
            bar(_done(sample, found[name]) - before, _left(still))
    return found


def _done(sample: SamplePlan, sidecars: Sidecars) -> int:
    """Events that a sample has of those that it needs: its shards hold some more."""
    return min(sum(sidecar["n_selected"] for sidecar in sidecars.values()), sample.events)


def _left(still: dict[str, int]) -> str:
    return f"to make: {', '.join(name for name, shards in still.items() if shards)}"


def _name(shard: Shard) -> str:
    return f"sample {shard.process.name}, shard {shard.number} (seed {shard.seed})"


def _take_or_make(make: Callable[[Shard, str], dict], shared: Shared, shard: Shard) -> tuple[Shard, dict[str, Any]]:
    """Body of the Ray task: a shard with its sidecar, made unless another run has made it meanwhile."""
    sidecar = shared.finished(shard)
    if sidecar is None:
        sidecar = make(shard, str(shared.events))
        shared.give(shard)
    return shard, sidecar


def _make_shard(shard: Shard, events: str) -> dict[str, Any]:
    import pyarrow as pa

    # One core a task: Arrow would otherwise start a pool of threads in every worker.
    pa.set_cpu_count(1)
    return shard.make(events)
