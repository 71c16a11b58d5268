"""What one change to the simulation does to the presence of objects: the rows ``presence.studies`` of references.yaml.

    python -m tests.report.presence_study yy mpi 2500

simulates that many events of the sample with the change and prints one row. Minutes with multi-parton interactions.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import yaml

from raypipe.events.table import write_table
from raypipe.report.validation_numbers import collect
from raypipe.report.validation_quantities import SLOT_NAMES
from raypipe.simulate import processes
from raypipe.simulate.card import load_card
from raypipe.simulate.selection import ATLAS
from raypipe.simulate.shard import simulate_shard

SEED = 77

CHANGES = {
    "none": "as simulated",
    "mpi": "multi-parton interactions on",
    "cuts": "photon cuts 0.35/0.25",
    "threshold": "jets from 23.6 GeV (20 GeV before the scale)",
    "no_box": "without the gg -> yy box",
    "wimpy": "shower below the hard scale only",
}


def run(sample: str, change: str, n_generate: int) -> dict:
    """One row: shares of filled slots with errors, their fat jets with photons, mean pT_yy and jets."""
    process, card, extra = processes.get(sample), load_card("atlas"), {}
    if change == "mpi":
        extra = {"mpi": True}
    elif change == "cuts":
        extra = {"cuts": ATLAS}
    elif change == "threshold":
        card = card.model_copy(update={"jets": card.jets.model_copy(update={"min_pt": 23.6})})
    elif change == "no_box":
        process = replace(process, settings=tuple(s for s in process.settings if "gg2gammagamma" not in s))
    elif change == "wimpy":
        kept = tuple(s for s in process.settings if "pTmaxMatch" not in s)
        process = replace(process, settings=(*kept, "SpaceShower:pTmaxMatch=1"))
    table, sidecar = simulate_shard(process, card, seed=SEED, shard=0, n_generate=n_generate, **extra)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{sample}.parquet"
        write_table(table, path)
        means = collect(sample, process.group, {"all": [path]}).means
    found = [means[f"window.{name}"] for name in SLOT_NAMES]
    return {
        "sample": sample,
        "change": CHANGES[change],
        "events": table.num_rows,
        "efficiency": round(sidecar["efficiency"], 4),
        "shares": [round(m.value, 3) for m in found],
        "errors": [round(m.error, 3) for m in found],
        "pt_yy": round(means["window.pt_yy"].value, 1),
        "n_jet": round(means["n_jet"].value, 3),
    }


if __name__ == "__main__":
    row = run(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    print(yaml.safe_dump([row], default_flow_style=True, width=200, sort_keys=False).strip())
