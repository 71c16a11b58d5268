"""A command says what it does before it does it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.search.test_table import OVERRIDES
from tests.search.toys import toy_table


@pytest.fixture(scope="module")
def arguments(tmp_path_factory) -> list[str]:
    """A small search against a background sample."""
    folder = tmp_path_factory.mktemp("first-lines")
    np.save(folder / "data.npy", toy_table(4000, 60, 1))
    np.save(folder / "background.npy", toy_table(8000, 0, 2))
    files = [f"{name}.path={folder / name}.npy" for name in ("data", "background")]
    return ["--config", str(ROOT / "configs/lhco/laptop.yaml"), "--output", str(folder / "run"), *OVERRIDES, *files]


@pytest.mark.parametrize(("command", "said"), [("search", "4060 events"), ("report", "1 rows")])
def test_of_a_search_on_a_table(arguments, command, said):
    folder = Path(arguments[3])
    for result in folder.glob("summary.json"):
        result.unlink()
    told = [sys.executable, "-m", "raypipe.cli", command, *arguments]
    with subprocess.Popen(told, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as running:
        first = running.stderr.readline()
        there = (folder / "summary.json").exists()
        rest = running.stderr.read()
    assert running.returncode == 0, first + rest
    assert (first, there) == (f"{command}: {folder}, {said}\n", False)
    assert (folder / "summary.json").exists()
