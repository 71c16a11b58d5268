"""Condense a finished multilepton study into ``tests/records/multilepton.json`` (`make study-multilepton`).

python -m tests.search.record runs/multilepton
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from raypipe.files import read_json, write_json

RECORD = Path(__file__).parents[1] / "records" / "multilepton.json"
KEPT = (
    "date",
    "config_hash",
    "code",
    "versions",
    "expected",
    "reference",
    "null_pool",
    "nature_pool",
    "bootstraps",
    "finished",
    "planned",
    "acceptance",
    "combined",
    "stage_seconds",
    "peak_rss_gib",
)


def condense(summary: dict[str, Any]) -> dict[str, Any]:
    """Limits, type-I errors, KS p-values and where they come from."""
    tests = {
        f"{test['loss']} {test['statistic']}": {
            **{k: test[k] for k in ("bands", "calibration", "asymptotic", "data") if k in test},
            "limits": test["limits"],
        }
        for test in summary["tests"]
    }
    return {**{k: summary[k] for k in KEPT}, "failed": len(summary["failed_trials"]), "tests": rounded(tests)}


def rounded(value: Any) -> Any:
    """Five digits are enough to read."""
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    return float(f"{value:.5g}") if isinstance(value, float) else value


if __name__ == "__main__":
    write_json(RECORD, condense(read_json(Path(sys.argv[1]) / "summary.json")))
    print(RECORD)
