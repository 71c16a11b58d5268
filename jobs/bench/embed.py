"""Embedding events through Ray Data, against the bare model in a loop on all cores.

Ours: Parquet in, latent tables out, an actor a core, one thread each; timed once every actor has delivered its first
chunk. The reference embeds the same events from memory with as many torch threads as cores. Wall seconds.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch

from bench.base import SEED, Measurement, compared, threads, timed
from bench.samples import arrays, write_events
from raypipe.cluster.runtime import ray_session, total_cpus
from raypipe.cluster.stages import BATCH, embed_stream
from raypipe.config import Embedding, Resources
from raypipe.files import write_json
from raypipe.fit.encoder import EncoderPlan, build_encoder, embed


def streamed(paths: list[str], folder: Path, cores: int) -> tuple[float, float]:
    """Events a second after every actor's first chunk, and seconds until then."""
    start, warm, rows = time.perf_counter(), 0.0, 0
    batches = embed_stream(paths, folder, SEED).iter_batches(batch_format="pyarrow", batch_size=None)
    for chunk, batch in enumerate(batches):
        if chunk >= cores:
            rows += batch.num_rows
        else:
            warm = time.perf_counter()
    return rows / (time.perf_counter() - warm), warm - start


def run(smoke: bool) -> list[Measurement]:
    """The demo's encoder size, as most events are embedded."""
    total, repeats = (3 * BATCH + 50, 1) if smoke else (12 * BATCH, 3)
    size = {"width": 64, "heads": 4, "particle_blocks": 2, "class_blocks": 1, "pair_width": 32, "feedforward": 2}
    size |= {"width": 16, "heads": 2, "pair_width": 8} if smoke else {}
    config, inputs, ours, bare = Embedding(samples=["yy"], encoder=size, batch_size=40), arrays(total), [], []
    encoder = build_encoder(config, EncoderPlan.of(arrays(400), config, SEED).scales, SEED)
    with tempfile.TemporaryDirectory() as name, ray_session(Resources(cpus=2, object_store_gib=0.5)):
        folder, cores = Path(name), int(total_cpus())
        torch.save(encoder.state_dict(), folder / "encoder.pt")  # untrained, as a run folder holds it
        write_json(folder / "encoder.json", {"key": "bench", "embedding": config.model_dump(mode="json")})
        paths = [write_events(folder / "events.parquet", total)]
        for _ in range(repeats):
            ours.append(streamed(paths, folder, cores))
            with threads(cores):
                bare.append(total / timed(lambda: embed(encoder, (inputs.objects, inputs.event)))[0])
    rates, starts = zip(*ours, strict=True)
    detail = {"events": total, "cores": cores, "seconds_until_first_chunks": starts, "encoder": size}
    how = {"unit": "events/s", "meaning": "rate ours / rate reference"}
    return [compared("embed: Ray Data against the bare model on all cores", rates, bare, 0.85, **how, **detail)]
