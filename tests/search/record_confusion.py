"""Write tests/records/confusion.json after `raypipe latent`: ``python -m tests.search.record_confusion RUN CONFIG``."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from raypipe.cluster.latent import TREE_EVENTS, balanced, embedding_events, families
from raypipe.config import load_config
from raypipe.events.table import read_table
from raypipe.files import read_json, write_json
from raypipe.fit.batches import PARTS
from tests.conftest import ROOT


def main(folder: Path, config_path: str, *overrides: str) -> None:
    """Diagonals of the matrices, and how many test events of each class they are shares of."""
    config, found = load_config(config_path, list(overrides)), read_json(folder / "latent.json")["confusion"]
    events, parts = embedding_events(read_table(folder / "encoder" / "latents.parquet"), config)
    labels, rows = families(events["group"].to_numpy()), np.flatnonzero(parts == PARTS.index("test"))
    each = len(balanced(labels, rows, TREE_EVENTS, config.seed, "test")) // len(np.unique(labels))
    record = {"config_hash": config.physics_hash(), "seed": config.seed, "events_each": each, "matrices": {}}
    for name, of in found.items():
        diagonal = np.diag(of["matrix"])
        record["matrices"][name] = {"groups": of["groups"], "diagonal": diagonal.tolist()}
        print(f"{name}: mean diagonal {diagonal.mean():.3f}, SM {diagonal[-1]:.3f}")
    write_json(ROOT / "tests" / "records" / "confusion.json", record)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
