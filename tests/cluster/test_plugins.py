"""A search and a background of one's own, each one file, found by the real command line without any other edit."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.ray

SEARCH = '''
"""A counting experiment."""

from typing import Literal

import numpy as np
from pydantic import Field

from raypipe import seeds
from raypipe.config.base import Section
from raypipe.config.base import Tracking
from raypipe.config.run import Run
from raypipe.search.base import Search, kind
from raypipe.search.result import NO_SIGNAL, Result, Trial
from raypipe.stats.significance import counting_significance


class Points(Section):
    """Injections."""

    signals: list[str] = ["bump"]
    """Names."""
    strengths: list[float] = [50.0]
    """Events."""


class Counting(Run):
    """A counting experiment."""

    search: Literal["counting"] = "counting"
    """This."""
    output: str = "runs/counting"
    """Folder."""
    expected: float = Field(100.0, gt=0)
    """Background events. [default]"""
    scan: Points = Points()
    """Grid."""
    tracking: Tracking = Tracking()
    """MLflow."""


@kind("counting", Counting)
class CountingSearch(Search):
    """Observed against expected events."""

    sections = ("seed", "expected")

    def grid(self):
        scan, none = self.config.scan, [Trial(NO_SIGNAL, 0.0, i) for i in range(3)]
        return none + [Trial(s, x, i) for s in scan.signals for x in scan.strengths for i in (0, 1)]

    def run(self, inputs, trials, tools):
        assert not inputs
        rows = []
        for trial in trials:
            rng = seeds.generator(self.config.seed, trial.signal, repr(trial.strength), trial.instance)
            n = int(rng.poisson(self.config.expected + trial.strength))
            z = counting_significance(n, self.config.expected, 0.0)
            rows.append(Result([{"signal": trial.signal, "strength": trial.strength, "instance": trial.instance,
                                 "n": n, "z_after": z}]))
        return rows
'''


def raypipe(folder, *arguments: str) -> subprocess.CompletedProcess:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_"))}
    environment |= {"RAYPIPE_PLUGINS": "counting_search", "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    return subprocess.run(
        [sys.executable, "-m", "raypipe.cli", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_a_search_of_ones_own_is_one_file(tmp_path):
    (tmp_path / "counting_search.py").write_text(SEARCH)
    (tmp_path / "mine.yaml").write_text("search: counting\nexpected: 400\nscan: { strengths: [100.0] }\n")
    given = ["--config", "mine.yaml", "--output", "run"]
    assert "counting" in raypipe(tmp_path, "--help").stdout
    listed = raypipe(tmp_path, "config", "search=counting").stdout
    assert "expected (100.0): Background events. [default]" in listed
    assert raypipe(tmp_path, "new", "counting", "-o", "begun.yaml").returncode == 0
    begun = (tmp_path / "begun.yaml").read_text()
    assert "search: counting\n" in begun
    assert "# Background events. [default]\nexpected: 100.0\n" in begun
    assert "\n  # Events.\n  strengths: [50.0]\n" in begun
    assert "expected = 100.0 (100.0)" in raypipe(tmp_path, "config", "--config", "begun.yaml").stdout
    assert "counting has no shipped" in raypipe(tmp_path, "new", "counting", "--size", "laptop").stderr
    assert "expected = -1" in raypipe(tmp_path, "scan", *given, "expected=-1").stderr
    assert "nothing to report yet" in raypipe(tmp_path, "report", *given).stderr
    done = raypipe(tmp_path, "scan", *given, "--json", "resources.cpus=2", "resources.object_store_gib=0.25")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert [(r["signal"], r["instances"]) for r in summary["results"]] == [("none", 3), ("bump", 2)]
    assert summary["results"][1]["z_after"]["mean"] == pytest.approx(5.0, abs=2.5)  # 100 over the root of 400
    assert "bump at 100: z_after" in (tmp_path / "run" / "report.html").read_text()
    found = raypipe(tmp_path, "report", *given, "--json", "tracking.enabled=false")
    assert json.loads(found.stdout)["results"] == summary["results"]
    again = raypipe(tmp_path, "search", *given, "--signal", "bump", "--strength", "100", "--json")
    assert json.loads(again.stdout)[0]["z_after"] == summary["results"][1]["z_after"]["values"][0]
    where = json.loads((tmp_path / "run" / "tracking.json").read_text())
    assert where["uri"].endswith("mlflow.db")
    status = json.loads(raypipe(tmp_path, "status", *given, "--json").stdout)
    assert (status["total"], status["done"]) == (5, 5)
    plan = raypipe(tmp_path, "plan", *given, "--json")
    assert plan.returncode == 0, plan.stderr
    assert json.loads(plan.stdout)["trials"] == 5


def test_a_plugin_that_cannot_be_imported_is_one_line(tmp_path):
    done = raypipe(tmp_path, "config")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "RAYPIPE_PLUGINS: plugin counting_search cannot be imported: ModuleNotFoundError" in done.stderr
