"""Measure what a worker process costs before it is of use: in a fresh process, which imports what a worker imports.

Run as a module it is that process: a configuration as JSON on standard input, seconds as JSON on standard output.
"""

from __future__ import annotations

import importlib
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import raypipe
from raypipe.errors import UserError

IMPORTS = {
    "contrastive": ("ray.tune", "raypipe.cluster.engine", "raypipe.cluster.run"),
    "haxad": ("ray.tune", "raypipe.cluster.engine", "raypipe.cluster.run"),
    "multilepton": ("ray", "raypipe.cluster.run"),
}
"""What a worker has imported when it is given its first trial: the modules of what Ray sends it."""
AGAIN = 2
"""Times the first trial is repeated; the mean counts as what it takes in a process that is warm."""


def fresh(config: Any, yields: dict[str, float]) -> tuple[float, float]:
    """Core seconds of a new worker process until its first trial, and those that this trial takes more than later ones.

    Args:
        yields: selected events per fb^-1 of the background samples.

    Raises:
        UserError: the process failed; with the last line it wrote.
    """
    package = str(Path(raypipe.__file__).resolve().parents[1])
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    # One thread a library, as Ray gives its workers.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    given = json.dumps({"config": config.model_dump(mode="json"), "yields": yields})
    done = subprocess.run(
        [sys.executable, "-m", __name__], input=given, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["nothing"]
        raise UserError(f"plan: a process like those of the workers ended with {done.returncode}, saying: {said[-1]}")
    found = json.loads(done.stdout.splitlines()[-1])
    return found["start"], found["first"]


def _main() -> None:
    """The fresh process."""
    given = json.load(sys.stdin)
    search = given["config"]["search"]
    for module in IMPORTS[search]:
        importlib.import_module(module)
    from raypipe.cluster.runtime import limit_threads

    limit_threads(1)
    start = time.process_time()

    from raypipe.cluster import calibrate_cathode, calibrate_networks
    from raypipe.cluster.calibration import timed
    from raypipe.config.load import model_of

    config = model_of(search).model_validate(given["config"])
    if search == "multilepton":
        run = calibrate_networks.smallest(config)  # type: ignore[arg-type]
    else:
        run = calibrate_cathode.smallest(config, given["yields"])
    first, *later = (timed(run)[0] for _ in range(1 + AGAIN))
    print(json.dumps({"start": start, "first": max(0.0, first - statistics.mean(later))}))


if __name__ == "__main__":
    _main()
