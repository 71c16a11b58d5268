"""Simulate some thousand events of every sample and record what came out, into ``tests/records/simulate.json``.

Run ``python -m tests.simulate.record [SAMPLE]...`` on an idle core (about ten minutes for all). The record is what the
README quotes and what `raypipe simulate --list` expects (`Process.efficiency`); tests compare the table with it.
"""

from __future__ import annotations

import datetime
import json
import platform
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np

from raypipe.events.schema import OBJECT_FEATURES, SLOTS, tensor_values
from raypipe.events.table import write_table
from raypipe.simulate.card import load_card
from raypipe.simulate.processes import DIPHOTON, PROCESSES
from raypipe.simulate.shard import PACKAGES, simulate_shard

RECORD = Path(__file__).parents[1] / "records" / "simulate.json"
SEED, N_GENERATE = 20_261_122, 10_000


def measure(name: str, folder: Path, n_generate: int) -> dict:
    """The numbers of one sample."""
    table, sidecar = simulate_shard(PROCESSES[name], load_card("atlas"), seed=SEED, shard=0, n_generate=n_generate)
    write_table(table, folder / "sample.parquet")
    n, objects = table.num_rows, tensor_values(table["objects"])
    present, btag = objects[:, :, OBJECT_FEATURES.index("pt")] > 0, objects[:, :, OBJECT_FEATURES.index("btag")]
    features = tensor_values(table["features"])
    kinds = np.array(SLOTS)
    low, median, high = np.percentile(table["m_yy"].to_numpy(), [16, 50, 84])
    in_paper_window = table["m_yy"].to_numpy() < 145
    return {
        "group": PROCESSES[name].group,
        "n_generated": sidecar["n_generated"],
        "n_selected": n,
        "efficiency": sidecar["efficiency"],
        "efficiency_error": sidecar["efficiency_error"],
        "pythia_cross_section_fb": sidecar["pythia_cross_section_fb"],
        "yield_per_fb": float(table["weight"].to_numpy().sum()),
        "selected_per_cpu_second": n / sidecar["cpu_seconds"],
        "max_rss_mib": sidecar["max_rss_mib"],
        "bytes_per_event": (folder / "sample.parquet").stat().st_size / n,
        "mean_n_jet": float(features[:, -1].mean()),
        "mean_n_btag": float((btag[:, kinds == "jet"] > 0.5).sum(axis=1).mean()),
        "mean_n_fatjet": float(present[:, kinds == "fatjet"].sum(axis=1).mean()),
        "mean_n_lepton": float(present[:, np.isin(kinds, ("electron", "muon"))].sum(axis=1).mean()),
        "mean_met": float(objects[:, -1, 0].mean()),
        "mean_pt_yy": float(table["pt_yy"].to_numpy().mean()),
        "m_yy_median": float(median),
        "m_yy_half_width": float((high - low) / 2),
        "presence_105_145": {
            f"{kind}{1 + i - SLOTS.index(kind)}": float(present[in_paper_window, i].mean())
            for i, kind in enumerate(SLOTS[:-1])
        },
    }


def main(names: list[str]) -> None:
    """Measure ``names`` (all without), keeping what the record says of the others."""
    record = json.loads(RECORD.read_text()) if RECORD.is_file() else {"samples": {}}
    with tempfile.TemporaryDirectory() as folder:
        for name in names or [name for name, process in PROCESSES.items() if process.final_state == DIPHOTON]:
            row = record["samples"][name] = measure(name, Path(folder), N_GENERATE)
            print(
                f"{name:16s} eff {row['efficiency']:.4f} rate {row['selected_per_cpu_second']:5.0f}/s "
                f"{row['bytes_per_event']:4.0f} B/event, m_yy {row['m_yy_median']:.2f} ± {row['m_yy_half_width']:.2f}, "
                f"sigma {row['pythia_cross_section_fb']:.4g} fb",
                flush=True,
            )
            record |= {
                "date": datetime.date.today().isoformat(),
                "machine": platform.machine(),
                "python": platform.python_version(),
                "versions": {package: version(package) for package in PACKAGES},
                "seed": SEED,
            }
            RECORD.parent.mkdir(exist_ok=True)
            RECORD.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
