"""Write tests/records/contrastive_figures.json from figures 4 to 7 of paper C (``make study-figures``).

Each of the four scans (configs/contrastive/figures/) that has been run gives its curves, the comparison of its encoders
on the same pseudo-data sets and, for figure 7, the required injections with the paired difference between encoders.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from raypipe.files import read_json, write_json
from raypipe.report.summary import jackknife, largest_overlap, required_strength
from raypipe.search.result import NO_SIGNAL
from raypipe.store.ledger import Ledger
from tests.conftest import ROOT
from tests.search.record_contrastive import COMPARED, compared, print_compared, results_of

FIGURES = ("fig4", "fig5", "fig6", "fig7")


def required_compared(rows: list[dict[str, Any]], target: float) -> list[dict[str, Any]]:
    """Difference of the required injections of two encoders, with its jackknife error over their common instances."""
    out = []
    for one, other in COMPARED:
        for signal, point in sorted({(r["signal"], r["working_point"]) for r in rows}):
            mine = [r for r in rows if r["signal"] == signal and (r["embedding"], r["method"]) in (one, other)]
            of_one, of_other = (
                {r["instance"] for r in mine if r["embedding"] == w[0] and r["method"] == w[1]} for w in (one, other)
            )
            common = [r for r in mine if r["instance"] in of_one & of_other]
            found = [required_strength(common, way, signal, point, target) for way in (one, other)]
            if np.isfinite([found[0][0], found[1][0]]).all():
                difference, error = jackknife(found[0] - found[1], largest_overlap(common))
                out.append(
                    {
                        "one": one,
                        "other": other,
                        "signal": signal,
                        "working_point": point,
                        "required": [float(f[0]) for f in found],
                        "difference": difference,
                        "error": error,
                    }
                )
    return out


def record_of(folder: Path, ledger: Path) -> dict[str, Any]:
    """The record of one figure: what its summary says, and comparisons from the rows of the ledger it shares."""
    summary = read_json(folder / "summary.json")
    rows = [r for r in Ledger(ledger).rows(summary["keys"]) if r["status"] == "ok" and r["signal"] != NO_SIGNAL]
    print(folder)
    record = {k: summary[k] for k in ("date", "versions", "config_hash", "code", "instance_overlap", "required")}
    record |= {"results": results_of(summary), "compared": compared(rows), "stage_seconds": summary["stage_seconds"]}
    print_compared(record["compared"])
    record["required_compared"] = required_compared(rows, summary["required"][0]["target"])
    for c in record["required_compared"]:
        error = "" if c["error"] is None else f" ± {c['error']:.2f}"
        print(
            f"{c['one'][0]} - {c['other'][0]}, {c['signal']}, {c['working_point']:.1%}: required "
            f"{c['required'][0]:.2f} - {c['required'][1]:.2f} = {c['difference']:+.2f}{error}"
        )
    return record


def main(folder: Path) -> None:
    """Record the figures that lie finished under ``folder`` (runs/figures)."""
    ledger = folder.parent / "study-contrastive" / "ledger"
    finished = [name for name in FIGURES if (folder / name / "summary.json").exists()]
    write_json(
        ROOT / "tests" / "records" / "contrastive_figures.json",
        {name: record_of(folder / name, ledger) for name in finished},
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
