"""Write tests/records/<name>.json from a finished study: ``python -m tests.search.record_haxad RUN [name]``."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path

from raypipe.files import read_json, write_json
from raypipe.report.haxad import headlines
from tests.search.record_contrastive import record_path

PAPER_SIC = {"wn_150": 5.3, "xsh_500_100": 6.4}
"""SIC of paper A as paper C quotes them (its section IV.3)."""


def main(folder: Path, name: str = "haxad") -> None:
    """Keep what the summary of ``folder`` says, without the single events of the studies."""
    summary = read_json(folder / "summary.json")
    path = record_path(summary, name)
    kept = ("sic", "fit_z_before", "fit_z_after", "fit_s_after", "s_after", "asimov_before", "asimov_after")
    results = [
        {k: e[k] for k in ("method", "signal", "strength", "working_point", "instances", "family")}
        | {k: {"mean": e[k]["mean"], "error": e[k]["standard_error"]} if e[k] else None for k in kept}
        | {"paper_sic": PAPER_SIC.get(e["signal"])}
        for e in summary["results"]
    ]
    versions = {name: importlib.metadata.version(name) for name in ("raypipe", "torch", "xgboost", "iminuit", "numpy")}
    record = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions | {"python": platform.python_version()},
        **{k: summary[k] for k in ("config_hash", "choice_hash", "look")},
        "null": summary["null"],
        "linearity": summary["linearity"],
        "results": results,
        "stage_seconds": summary["stage_seconds"],
    }
    write_json(path, record)
    print("\n".join(headlines(summary)))
    for study in [*summary["null"], *summary["linearity"]]:
        print({k: v for k, v in (study or {}).items() if k not in {"z", "pulls"}})


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
