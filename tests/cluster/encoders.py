"""Encoder stages as driver processes in a given cluster: ``python -m tests.cluster.encoders KIND EVENTS FOLDER ...``.

``train``: one encoder with so many Train workers; ``embed``: its latents on GPUs, and what the cluster was asked for.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from raypipe.cluster.embed import embed_stream
from raypipe.cluster.runtime import ray_session
from raypipe.cluster.train import train_encoder
from tests.cluster.test_train import MANIFEST, config


def train(events: str, folder: str, workers: str) -> None:
    """Train with so many workers."""
    given = config(epochs=2)
    resources = given.resources.model_copy(update={"train_workers": int(workers)})
    given = given.model_copy(update={"resources": resources})
    with ray_session(given.resources):
        train_encoder(given, Path(events), Path(folder), MANIFEST)


def embed(events: str, folder: str) -> None:
    """Embed with ``gpu=True``; prints the actors that were ever asked for and the rows that came."""
    import ray

    with ray_session(config().resources):
        paths = [str(path) for path in sorted(Path(events).glob("embedding/*.parquet"))]
        stream = embed_stream(paths, Path(folder), 4, gpu=True)
        rows = sum(batch.num_rows for batch in stream.iter_batches(batch_format="pyarrow", batch_size=None))
        asked = [a for a in ray._private.state.actors().values() if "Embedder" in a["ActorClassName"] + a["Name"]]
        print(json.dumps({"actors": len(asked), "rows": rows}))


if __name__ == "__main__":
    {"train": train, "embed": embed}[sys.argv[1]](*sys.argv[2:])
