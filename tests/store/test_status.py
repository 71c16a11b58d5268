"""How far a scan is: what can be read and belongs to this code counts. A report tells the rest and makes nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
from click.testing import CliRunner

from raypipe.cli import main
from raypipe.config import load_config
from raypipe.errors import UserError
from raypipe.files import write_json
from raypipe.report.base import Report, headlines
from raypipe.search.result import NUMERICS, Result, Trial
from raypipe.store.ledger import Ledger, made_by
from raypipe.store.status import Price, announce, newest_scan, other_versions, status
from tests.conftest import ROOT

LAPTOP = ROOT / "configs/contrastive/laptop.yaml"
SEARCHES = ("contrastive", "haxad", "multilepton", "table")
KEYS = [f"{i:020x}" for i in range(6)]


def filled(folder, keys=KEYS, finished=4, name="scan") -> Ledger:
    """An announced scan, ``finished`` of its trials recorded."""
    book = Ledger(folder)
    announce(book, {key: Trial("s", 1.0, i) for i, key in enumerate(keys)}, Price(), name)
    for i, key in enumerate(keys[:finished]):
        book.record(key, Trial("s", 1.0, i), Result([{"seconds": 36.0}]))
    return book


def by_another_version(folder, **changed) -> None:
    """As if every scan so far had been announced by other code or packages."""
    for path in (folder / "scans").iterdir():
        scan = json.loads(path.read_text())
        path.write_text(json.dumps(scan | {"made_by": scan["made_by"] | changed}))


@pytest.mark.parametrize("damage", [b"", b"rubbish", None], ids=["empty", "rubbish", "cut"])
def test_what_cannot_be_read_is_not_done(tmp_path, damage):
    book = filled(tmp_path)
    assert (status(book).done, status(book).left) == (4, 2)
    path = tmp_path / "rows" / f"{KEYS[1]}.json"
    path.write_bytes(path.read_bytes()[:-20] if damage is None else damage)
    now = status(Ledger(tmp_path))
    assert (now.total, now.done, now.failed, now.left, now.other) == (6, 3, 0, 3, 0)
    assert now.cpu_hours == pytest.approx(3 * 36 / 3600)
    assert Ledger(tmp_path).done(KEYS) == {KEYS[0], KEYS[2], KEYS[3]}  # the same command does it again


@pytest.mark.parametrize("changed", [{"contrastive": "x"}, {"simulate": "x"}, {"torch": "0.1"}], ids=str)
def test_what_other_code_or_packages_made_is_not_done(tmp_path, changed):
    filled(tmp_path)
    by_another_version(tmp_path, **changed)
    now = status(Ledger(tmp_path))
    assert (now.total, now.done, now.failed, now.left, now.other) == (6, 0, 0, 6, 4)
    assert "0 of 6 done" in now.line()
    assert "4 of another version of the code or packages, which do not count" in now.line()
    # The scan goes on with this code: three new trials, two of them done.
    filled(tmp_path, [f"{i:020x}" for i in range(10, 13)], 2)
    now = status(Ledger(tmp_path))
    assert (now.total, now.done, now.left, now.other) == (3, 2, 1, 4)


def test_a_scan_announced_before_versions_were_kept_is_of_another(tmp_path):
    filled(tmp_path)
    for path in (tmp_path / "scans").iterdir():
        path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "made_by"}))
    assert (status(Ledger(tmp_path)).done, other_versions(Ledger(tmp_path))) == (0, 4)


def test_trials_that_both_versions_share_are_ours(tmp_path):
    filled(tmp_path, name="search")
    by_another_version(tmp_path, contrastive="x")
    filled(tmp_path, KEYS[:3], 3)
    assert (status(Ledger(tmp_path)).done, other_versions(Ledger(tmp_path))) == (3, 1)


def test_a_search_depends_on_what_its_keys_hold(tmp_path):
    """Own tables need no simulation."""
    own = tmp_path / "own.yaml"
    own.write_text("search: multilepton\nfiles: { data: a.csv, reference: b.csv }\n")
    assert set(made_by(load_config(own))) == {"multilepton", *NUMERICS}
    assert set(made_by(load_config(ROOT / "configs/multilepton/laptop.yaml"))) == {"multilepton", "simulate", *NUMERICS}
    assert set(made_by(load_config(LAPTOP))) == {"contrastive", "simulate", *NUMERICS}
    assert set(made_by()) == {*SEARCHES, "simulate", *NUMERICS}
    filled(tmp_path)
    by_another_version(tmp_path, simulate="x")
    assert status(Ledger(tmp_path), config=load_config(own)).done == 4
    assert status(Ledger(tmp_path), config=load_config(LAPTOP)).done == 0


@pytest.mark.parametrize("damage", [b"", b"[1, 2]", b"{", b"\xff"], ids=["empty", "list", "cut", "binary"])
def test_a_damaged_announcement_is_left_out(tmp_path, damage):
    filled(tmp_path)
    (tmp_path / "scans" / "scan-later.json").write_bytes(damage)
    assert status(Ledger(tmp_path)).done == 4
    shutil.rmtree(tmp_path / "scans")
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "scan-later.json").write_bytes(damage)
    with pytest.raises(UserError, match="no scan was started here yet"):
        newest_scan(Ledger(tmp_path))


SOURCES = (
    "config/sections.py",
    "events/pseudodata.py",
    "models/flow.py",
    "fit/classifier.py",
    "stats/sideband.py",
    "search/contrastive.py",
    "simulate/detector.py",
)


@pytest.mark.parametrize("source", SOURCES)
def test_a_changed_source_is_another_version_and_a_comment_is_not(tmp_path, source):
    """The command itself, with a copy of the package in which one file has one more comment, then one more line."""
    filled(tmp_path / "run" / "ledger")
    shutil.copytree(ROOT / "raypipe", tmp_path / "raypipe")
    command = [sys.executable, "-m", "raypipe.cli", "status", "--config", str(LAPTOP), "--output", "run"]
    for change, done in (("# a comment", 4), ("ANOTHER = 1", 0)):
        with open(tmp_path / "raypipe" / source, "a") as handle:
            handle.write(f"{change}\n")
        found = subprocess.run(
            [*command, "--json"],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        now = json.loads(found.stdout)
        assert (now["done"], now["other"]) == (done, 4 - done)


@pytest.mark.parametrize("kind", ["contrastive", "haxad", "multilepton"])
def test_a_report_makes_nothing_and_tells_of_other_versions(tmp_path, kind):
    arguments = ["report", "--config", str(ROOT / f"configs/{kind}/laptop.yaml"), "--output", str(tmp_path)]
    empty = CliRunner().invoke(main, arguments)
    assert (empty.exit_code, empty.stderr.count("\n")) == (2, 1)
    assert "nothing to report yet" in empty.stderr
    assert "another version" not in empty.stderr
    filled(tmp_path / "ledger")
    by_another_version(tmp_path / "ledger", **{kind: "x"})
    told = CliRunner().invoke(main, arguments)
    assert (told.exit_code, told.stderr.count("\n")) == (2, 1)
    assert "The ledger holds 4 trials of another version of the code or packages" in told.stderr
    assert not (tmp_path / "events").exists()
    assert not (tmp_path / "encoder").exists()


@pytest.mark.parametrize("kind", ["contrastive", "haxad", "multilepton"])
def test_a_scan_whose_trials_all_failed_is_one_line(tmp_path, kind):
    from raypipe.cluster.run import Run

    config = load_config(ROOT / f"configs/{kind}/laptop.yaml", output=tmp_path)
    Ledger(tmp_path / "ledger").record_failure("k", Trial("s", 1.0, 0), "Traceback\nValueError: boom")
    with Run(config) as run:
        with pytest.raises(UserError, match=r"all trials failed; the first: ValueError: boom$"):
            run.finished({"k": Trial("s", 1.0, 0)})
        run.ledger().record("k", Trial("s", 1.0, 0), Result([{"seconds": 1.0}]))
        assert len(run.finished({"k": Trial("s", 1.0, 0)})[1]) == 1


def test_pages_tell_of_other_versions():
    report = Report({}, ["first"])
    assert headlines(report, {"look": None, "notes": [], "other_versions": 0}) == ["first"]
    told = headlines(report, {"look": "tuned", "notes": ["a note"], "other_versions": 3})
    assert told[0] == "first"
    assert told[1].startswith("Tuned: ")
    assert told[2] == "a note"
    assert told[3].startswith("The ledger holds 3 trials of another version")


def test_an_encoder_of_another_version_is_not_made_again_for_a_report(tmp_path):
    """Simulated events of this code, an encoder of another: its trials are not there, and no training starts."""
    from raypipe.cluster.run import Run
    from raypipe.simulate import dataset

    config = load_config(LAPTOP, output=tmp_path)
    with Run(config) as run:
        grid = run.search.grid()
        assert run.keys(grid, run.look(grid)) == {}
        for name in ("encoder.json", "latents.json"):
            write_json(run.folder / "encoder" / name, {"key": "of another version"})
        for name in ("encoder.pt", "latents.parquet"):
            (run.folder / "encoder" / name).write_bytes(b"")
        made = {"simulate": {"events": {"key": dataset.plan(config).key}}}
        stage = run.search.stages()[1]
        (encoder,) = stage.items(made, grid)
        assert run.there(stage, encoder) is None
        assert run.there(stage, replace(encoder, key="of another version")) is not None
