"""Stages as driver processes in a given cluster: ``python -m tests.cluster.stages KIND ...``.

``train``: one encoder with so many Train workers; ``beside``: two encoders at the same time; ``embed``: latents on
GPUs, and what the cluster was asked for; ``scan``: trials of the raw features, and where which tables then are;
``flows``: the flows of `tests.cluster.test_flow_stage`.
"""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

from raypipe.cluster.attempt import Shelf, run_some
from raypipe.cluster.fanout import Scan
from raypipe.cluster.flows import make_flows
from raypipe.cluster.runtime import ray_session
from raypipe.cluster.stages import embed_stream
from raypipe.cluster.train import train_encoder, train_encoders
from raypipe.cluster.trainer import side_by_side
from raypipe.errors import UserError
from raypipe.search.result import Trial
from raypipe.store.ledger import Ledger
from tests.cluster.drivers import keyed, small_config, small_tables
from tests.cluster.test_train import MANIFEST, config


def train(events: str, folder: str, workers: str) -> None:
    """Train with so many workers."""
    given = config(epochs=2)
    resources = given.resources.model_copy(update={"train_workers": int(workers)})
    given = given.model_copy(update={"resources": resources})
    with ray_session(given.resources):
        train_encoder(given, Path(events), Path(folder), MANIFEST)


BETAS = (0.5, 0.25, 0.125, 0.0625)
"""Of encoders that train at the same time."""


def beside(events: str, folder: str, count: str, gpu: str) -> None:
    """Train so many encoders side by side, each with a GPU if ``gpu`` is 1.

    Prints how many at once, of every Train worker start, end and node, and the epochs that the driver heard of.
    """
    import ray

    seen: list[dict] = []
    jobs, lock = [], threading.Lock()  # as a progress bar has one, which no process can send to another

    def told(record: dict) -> None:
        with lock:
            seen.append(record)

    for beta in BETAS[: int(count)]:
        given = config(epochs=40, patience=40, beta=beta)
        resources = given.resources.model_copy(update={"gpu": gpu == "1"})
        jobs.append((given.model_copy(update={"resources": resources}), Path(folder) / str(beta)))
    with ray_session(jobs[0][0].resources):
        at_once = side_by_side(len(jobs), 1, gpu=gpu == "1")
        train_encoders(jobs, Path(events), MANIFEST, at_once, told)
        every = ray._private.state.actors().values()
        job = ray.get_runtime_context().get_job_id()  # the cluster remembers the actors of earlier drivers
        workers = [a for a in every if "TrainWorker" in a["ActorClassName"] and a["JobID"] == job]
        spans = [(a["StartTime"], a["EndTime"], a["Address"]["NodeID"]) for a in workers]
        alone = side_by_side(len(jobs), 2)
        every = {name: [record[name] for record in seen] for name in ("epoch", "contrastive", "kl")}
        print(json.dumps({"at_once": at_once, "spans": spans, "alone": alone, "told": every}))


def refused(events: str, folder: str) -> None:
    """Train two encoders side by side of which one has too few events for its batches; prints the error."""
    jobs = [(config(batch_size=size, epochs=1), Path(folder) / str(size)) for size in (24, 900)]
    with ray_session(jobs[0][0].resources):
        try:
            train_encoders(jobs, Path(events), MANIFEST, 2)
        except UserError as error:
            print(f"UserError: {error}")


def embed(events: str, folder: str) -> None:
    """Embed with ``gpu=True``; prints the actors that were ever asked for and the rows that came."""
    import ray

    with ray_session(config().resources):
        paths = [str(path) for path in sorted(Path(events).glob("embedding/*.parquet"))]
        stream = embed_stream(paths, Path(folder), 4, gpu=True)
        rows = sum(batch.num_rows for batch in stream.iter_batches(batch_format="pyarrow", batch_size=None))
        asked = [a for a in ray._private.state.actors().values() if "Embedder" in a["ActorClassName"] + a["Name"]]
        print(json.dumps({"actors": len(asked), "rows": rows}))


def scan(ledger: str) -> None:
    """Run two trials; prints bytes of what travels, and on how many nodes the tables of each representation are."""
    import ray

    given = small_config()
    tables = small_tables(given)
    trials = keyed(given, [Trial("wn_150", 2.0, i, "raw", "idealised") for i in range(2)])
    with ray_session(given.resources):
        shelf = Shelf()
        for name in ("id", "raw"):
            shelf.put(name, tables)
        Scan(run_some, (shelf, "contrastive", given), trials, Ledger(ledger), given.resources).run()
        references = [one for of in shelf.values() for one in of]
        places = [found["node_ids"] for found in ray.experimental.get_object_locations(references).values()]
        print(json.dumps({"bytes": len(ray.cloudpickle.dumps(shelf)), "nodes": [len(set(nodes)) for nodes in places]}))


def flows(ledger: str, cores: str) -> None:
    """Make the flows of a scan, with so many cores where it is not in a cluster; prints how many."""
    from tests.cluster.test_flow_stage import TRIALS, flow_config

    given = flow_config()
    resources = given.resources.model_copy(update={"cpus": int(cores)})
    with ray_session(resources):
        print(make_flows({"id": [small_tables(given)]}, given, TRIALS, Ledger(ledger), resources))


KINDS = {"train": train, "beside": beside, "refused": refused, "embed": embed, "scan": scan, "flows": flows}

if __name__ == "__main__":
    KINDS[sys.argv[1]](*sys.argv[2:])
