"""Run the studies of fits and hunts and record them in ``tests/records/stats.json`` (`make study-stats`)."""

from __future__ import annotations

import platform
from datetime import date
from importlib.metadata import version
from pathlib import Path

from raypipe.files import read_json, write_json
from tests.stats import studies

RECORD = Path(__file__).parents[1] / "records" / "stats.json"
STUDIES = {
    "local_p": lambda: studies.local_p(2000),
    "linearity": lambda: studies.linearity(2000),
    "global_p": lambda: studies.global_p(100, 200),
    "pulls": lambda: studies.pulls(500),
    "limits": lambda: studies.limits(200),
}


def main() -> None:
    """Every study in turn, written as soon as it is done."""
    record = read_json(RECORD) if RECORD.is_file() else {}
    for name, study in STUDIES.items():
        kept = {"python": platform.python_version()} | {p: version(p) for p in ("numpy", "iminuit", "raypipe")}
        record[name] = {"date": date.today().isoformat(), "versions": kept, "rows": study()}
        write_json(RECORD, record)
        print(name, record[name]["rows"], flush=True)


if __name__ == "__main__":
    main()
