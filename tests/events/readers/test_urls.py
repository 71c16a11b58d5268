"""`raypipe read` behind a URL: errors that pass are survived, those that stay are told, files left out are named."""

from __future__ import annotations

import importlib
import importlib.util
import json
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow.parquet as pq
import pytest
import uproot
from click.testing import CliRunner, Result
from fsspec.implementations.local import LocalFileSystem

from raypipe.cli import main
from raypipe.cluster import tasks
from raypipe.errors import UserError
from raypipe.search import reading
from raypipe.search.reading import again
from tests.cli.test_kinds import one_line
from tests.conftest import ROOT
from tests.events.readers.trees import known_events, write_delphes

DELPHES = ROOT / "configs/read/delphes.yaml"


class Shaky(LocalFileSystem):
    """Local files behind ``shaky://``, whose first reads after each of ``good`` others fail ``bad`` times."""

    protocol = "shaky"
    reads: ClassVar[int] = 0
    failed: ClassVar[int] = 0
    good: ClassVar[int] = 0
    bad: ClassVar[int] = 0

    def cat_file(self, path, start=None, end=None, **kwargs):
        Shaky.reads += 1
        if Shaky.failed < Shaky.bad and Shaky.reads > Shaky.good:
            Shaky.failed += 1
            raise OSError("[ERROR] Operation expired")
        return super().cat_file(path, start, end, **kwargs)


@pytest.fixture(autouse=True)
def pauses(monkeypatch) -> list[float]:
    """How long was waited; as nobody waits."""
    importlib.import_module("fsspec").register_implementation("shaky", Shaky, clobber=True)
    found: list[float] = []
    monkeypatch.setattr(tasks, "ray_runs", lambda: False)  # workers of a Ray that another test left know no such files
    monkeypatch.setattr(reading.time, "sleep", found.append)
    Shaky.reads = Shaky.failed = Shaky.good = Shaky.bad = 0
    return found


def url(path: Path) -> str:
    return f"shaky://{path}"


def read(folder: Path, *arguments: object) -> Result:
    given = ["--config", DELPHES, "--output", folder / "out", "--json", "--set", "resources.cpus=1"]
    return CliRunner().invoke(main, ["read", *map(str, [*given, *arguments])])


def events(number: int) -> list[dict]:
    full = known_events()[0]
    return [full | {"Photon": [(90.0 + 0.01 * k, 0.0, 0.0), (60.0, 0.0, 2.0)]} for k in range(number)]


def test_what_lies_behind_a_url_is_what_lies_in_the_file(tmp_path):
    path, tables = write_delphes(tmp_path / "e.root", events(20)), []
    for given in (path, url(path)):
        done = read(tmp_path, "--set", "source.chunk_rows=7", given)
        assert done.exit_code == 0, done.output
        tables.append(pq.read_table(tmp_path / "out" / "e.parquet"))
        file = json.loads((tmp_path / "out" / "read.json").read_text())["files"][0]
        assert (file["path"], file["events"], file["written"]) == (str(given), 20, 20)
        assert (file["digest"] is None) == (given != path)
    assert tables[0].equals(tables[1])
    assert Shaky.reads > 10


@pytest.mark.parametrize("good", [0, 3, 12, 40])
def test_errors_that_pass_are_survived_wherever_they_come(tmp_path, pauses, good):
    path = write_delphes(tmp_path / "e.root", events(20))
    Shaky.good, Shaky.bad = good, 2
    done = read(tmp_path, "--set", "source.chunk_rows=7", url(path))
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "out" / "read.json").read_text())["written"] == 20
    assert Shaky.failed == 2
    assert pauses == [1.0, 2.0]


def test_errors_that_stay_are_told_after_all_tries(tmp_path, pauses):
    path = write_delphes(tmp_path / "e.root", events(20))
    Shaky.bad = 1000
    told = one_line(read(tmp_path, "--set", "resources.max_failures=3", url(path)))
    assert f"{url(path)}: not a readable ROOT file: [ERROR] Operation expired" in told
    assert pauses == [1.0, 2.0, 4.0]
    assert not list((tmp_path / "out").glob("*.parquet"))


def test_files_that_cannot_be_read_are_left_out_and_counted(tmp_path, pauses):
    good, cut = write_delphes(tmp_path / "good.root", events(20)), tmp_path / "cut.root"
    cut.write_bytes(good.read_bytes()[:900])
    files = [url(good), url(cut), url(tmp_path / "absent.root")]
    assert "cut.root: not a readable ROOT file" in one_line(read(tmp_path, *files))
    done = read(tmp_path, "--on-error", "skip", *files)
    assert done.exit_code == 0, done.output
    assert f"skipped: {files[1]}: not a readable ROOT file" in done.stderr
    assert f"skipped: {files[2]}: not a readable ROOT file" in done.stderr
    assert "2 of 3 files left out" in done.stderr
    sidecar = json.loads((tmp_path / "out" / "read.json").read_text())
    assert [file["path"] for file in sidecar["skipped"]] == files[1:]
    assert sidecar["written"] == 20
    assert pauses == [1.0, 2.0] * 2  # a file that is cut may be whole another time, an absent one is not tried again
    done = read(tmp_path, "--on-error", "skip", *files[1:])
    assert done.exit_code == 1
    assert "none of 2 files could be read" in done.stderr


def test_a_flat_tree_behind_a_url(tmp_path):
    with uproot.recreate(tmp_path / "flat.root") as file:
        file.mktree("t", {"m": "float64", "x": "float64"}).extend({"m": np.arange(9.0), "x": np.ones(9)})
    (tmp_path / "read.yaml").write_text("search: read\ncolumns: { mass: m, features: [x] }\n")
    done = read(tmp_path, "--config", tmp_path / "read.yaml", url(tmp_path / "flat.root"))
    assert done.exit_code == 0, done.output
    assert pq.read_table(tmp_path / "out" / "flat.parquet")["mass"].to_pylist() == list(range(9))


def test_without_the_package_the_remedy_is_told(tmp_path):
    if importlib.util.find_spec("fsspec_xrootd") is None:
        told = one_line(read(tmp_path, "root://server//path/x.root"))
        assert "root://server//path/x.root: cannot be read with what is installed: " in told
        assert "pip install raypipe[xrootd]" in told
    assert "Protocol not known: nowhere" in one_line(read(tmp_path, "nowhere://x/y.root"))


def test_secrets_of_a_url_are_not_shown(tmp_path):
    told = one_line(read(tmp_path, "nowhere://me:s3cret@host/x.root?authz=t0ken"))
    assert "s3cret" not in told
    assert "t0ken" not in told


def test_only_errors_of_reading_behind_a_url_are_tried_again(pauses):
    calls = []

    def call(cause: BaseException | None) -> None:
        calls.append(cause)
        raise UserError("x") from cause

    for cause, path in ((None, "root://s//x"), (OSError(), "x"), (FileNotFoundError(), "root://s//x")):
        with pytest.raises(UserError):
            again(lambda cause=cause: call(cause), path, 5)
    assert (len(calls), pauses) == (3, [])
