"""The notebooks beside the configurations run, and are stored with what they show."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import ROOT
from tests.events.readers.test_tables import real

NOTEBOOKS = sorted((ROOT / "configs").rglob("*.ipynb"))
EACH = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code(book: Any) -> list[Any]:
    return [cell for cell in book.cells if cell.cell_type == "code"]


def last_picture(book: Any) -> bool:
    return any("image/png" in output.get("data", {}) for output in code(book)[-1].outputs)


def test_there_are_four():
    assert [path.stem for path in NOTEBOOKS] == ["dielectron", "tour", "spectrum", "own_table"]


@EACH
def test_a_notebook_is_stored_with_its_output_and_small(path):
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    assert path.stat().st_size < 300_000
    outputs = [output for cell in code(book) for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert all(cell.execution_count for cell in code(book))
    assert last_picture(book)
    for secret in ("/work/", "/tmp/", "/home/"):
        assert secret not in path.read_text()


@pytest.mark.long
@EACH
def test_a_notebook_runs_and_ends_with_a_picture(path, tmp_path, monkeypatch):
    if path.stem == "dielectron":
        monkeypatch.setenv("ELECTRONS", str(real("readers", "skim_Run2012B_DoubleElectron.root")))
        monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    shutil.copytree(ROOT / "configs", tmp_path / "configs")  # what it makes stays there
    book, folder = nbformat.read(path, as_version=4), (tmp_path / path.relative_to(ROOT)).parent
    for cell in code(book):
        cell.outputs = []
    NotebookClient(book, timeout=600, resources={"metadata": {"path": str(folder)}}).execute()
    assert last_picture(book)
    assert not list(Path(ROOT, "configs").rglob("runs"))
