"""The ledger: whole or absent, the same for everybody, fast with ten thousand rows, on any storage."""

from __future__ import annotations

import contextlib
import ctypes
import json
import math
import multiprocessing
import os
import resource
import subprocess
import sys
import time

import numpy as np
import pytest

from raypipe.errors import UserError
from raypipe.search.result import Result, Trial
from raypipe.store.files import DiskFull, Store
from raypipe.store.ledger import Ledger
from raypipe.store.status import Price, announce, newest_scan, status
from tests.conftest import ROOT

MANY = 10_000


def rows_of(i: int) -> list[dict]:
    return [
        {
            "signal": "s",
            "instance": i,
            "working_point": w,
            "sic": math.nan if i % 7 == 0 else w * i,
            "count": i,
            "seconds": 36.0,
        }
        for w in (0.1, 0.2)
    ]


def memory_store(name: str) -> Store:
    from fsspec.implementations.memory import MemoryFileSystem
    from pyarrow import fs

    return Store(name, fs.PyFileSystem(fs.FSSpecHandler(MemoryFileSystem())))


def sub_tree(tmp_path) -> Store:
    from pyarrow import fs

    return Store("bucket/ledger", fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem()))


@pytest.mark.parametrize("kind", ["path", "file", "memory", "memory url", "sub tree"])
def test_rows_arrays_failures_and_stages_on_any_storage(tmp_path, kind):
    where = {
        "path": lambda: tmp_path / "a b",
        "file": lambda: f"file://{tmp_path}/a%20b",
        "memory": lambda: memory_store("somewhere/deep"),
        "memory url": lambda: "memory://url/deep",
        "sub tree": lambda: sub_tree(tmp_path),
    }[kind]()
    book, trial = Ledger(where), Trial("s", 1.0, 2)
    assert book.read("k") is None
    assert book.rows(["k"]) == []
    book.record_failure("k", trial, "Traceback\nValueError: boom")
    book.record_failure("k", trial, "Traceback\nValueError: boom again", "died")
    assert not book.finished("k")
    failure = book.failures(["k", "absent"])["k"]
    assert (failure["attempts"], failure["kind"], failure["strength"]) == (2, "died", 1.0)
    assert book.rows(["k"])[0]["status"] == "failed"
    book.record(
        "k",
        trial,
        Result(
            [{**row, "sic": np.float64(row["sic"])} for row in rows_of(3)],
            {"x": np.arange(3), "nan": np.array([1.0, math.nan])},
        ),
    )
    again = Ledger(where)
    assert again.finished("k")
    assert again.done(["k", "absent"]) == {"k"}
    assert again.failures(["k"]) == {}
    assert [r["sic"] for r in again.rows(["absent", "k"])] == [pytest.approx(0.3), pytest.approx(0.6)]
    arrays = again.arrays("k")
    assert arrays["x"].tolist() == [0, 1, 2]
    assert math.isnan(arrays["nan"][1])
    import torch

    made = []
    for _ in range(2):
        state = again.stage("flow", "abc", lambda: made.append(1) or {"w": torch.arange(3.0), "n": 3})
        assert state["w"].tolist() == [0, 1, 2]
        assert state["n"] == 3
    assert made == [1]
    with pytest.raises(UserError, match="would leave this folder"):
        again.stage("flow", "../../escape", dict)


def test_damage_is_not_a_result(tmp_path):
    book, trial = Ledger(tmp_path), Trial("s", 1.0, 0)
    for key in ("good", "torn", "empty"):
        book.record(key, trial, Result(rows_of(1)))
    (tmp_path / "rows" / "torn.json").write_bytes((tmp_path / "rows" / "good.json").read_bytes()[:100])
    (tmp_path / "rows" / "empty.json").write_bytes(b"")
    (tmp_path / "rows" / ".tmp-1-other.json").write_bytes(b"half")
    assert book.done(["good", "torn", "empty", "other"]) == {"good"}
    assert {row["key"] for row in book.rows(["good", "torn", "empty", "other"])} == {"good"}
    # The index is a cache: it speaks only for parts that are there, and may be damaged or deleted at any time.
    assert book.compact(at_least=1) == 1
    assert Ledger(tmp_path).done(["good", "torn"]) == {"good"}
    for path in (tmp_path / "index").iterdir():
        path.write_bytes(b"rubbish")
    assert Ledger(tmp_path).done(["good", "torn"]) == {"good"}
    (tmp_path / "rows" / "good.json").unlink()
    assert Ledger(tmp_path).done(["good"]) == set()


def test_the_index_and_the_parts_give_back_the_same_bits(tmp_path):
    book = Ledger(tmp_path)
    odd = {"seconds": 1.0, "i": 2**53 + 1, "f": 0.1 + 0.2, "tiny": 5e-324, "zero": -0.0, "none": None, "t": "ß\n\u2028"}
    unbounded = {"inf": math.inf, "minus": -math.inf, "nan": math.nan}
    numpy = {"third": np.float64(1) / 3, "single": np.float32(0.1), "count": np.int64(2**62), "yes": np.bool_(True)}
    book.record("a", Trial("s", 1.0, 0), Result([odd | unbounded | numpy]))
    book.record("b", Trial("s", 1.0, 1), Result([{"seconds": 2.0, "other": True}]))
    plain = odd | unbounded | {name: value.item() for name, value in numpy.items()}
    for gathered in (False, True):
        if gathered:
            assert book.compact(at_least=1) == 2
        first, second = Ledger(tmp_path).rows(["b", "a"])
        assert first == {"key": "b", "status": "ok", "error": "", "seconds": 2.0, "other": True}
        assert {name: repr(value) for name, value in second.items() if name in plain} == {
            name: repr(value) for name, value in plain.items()
        }


def test_arrays_come_back_bit_by_bit_and_damage_is_one_line(tmp_path):
    book = Ledger(tmp_path)
    arrays = {"x": np.array([0.1, -0.0, 5e-324, math.inf, -math.inf, math.nan]), "empty": np.zeros(0), "n": [1, 2]}
    book.record("k", Trial("s", 1.0, 0), Result(rows_of(1), arrays))
    found = Ledger(tmp_path).arrays("k")
    assert {name: values.tobytes() for name, values in found.items()} == {
        name: np.asarray(values, np.float64).tobytes() for name, values in arrays.items()
    }
    path = tmp_path / "arrays" / "k.npz"
    whole = path.read_bytes()
    np.savez(path, x=np.array([{"a pickle": 1}], dtype=object))
    for damage in (path.read_bytes(), whole[:100], b"", None):
        path.unlink() if damage is None else path.write_bytes(damage)
        with pytest.raises(
            UserError, match=r"arrays/k\.npz: not a readable NumPy file: delete it and rows/k\.json"
        ) as told:
            Ledger(tmp_path).arrays("k")
        assert len(str(told.value).splitlines()) == 1


def test_a_trial_without_arrays_leaves_no_file_of_them(tmp_path):
    book, trial = Ledger(tmp_path), Trial("s", 1.0, 0)
    book.record("none", trial, Result(rows_of(1)))
    book.record("some", trial, Result(rows_of(1), {"x": np.ones(2)}))
    assert [path.name for path in (tmp_path / "arrays").iterdir()] == ["some.npz"]
    plain = {"key": "none", "status": "ok", "error": "", **rows_of(1)[0]}
    for again in (Ledger(tmp_path), book):  # from its parts, then from the index
        assert again.arrays("none") == {}
        assert list(again.arrays("some")) == ["x"]
        assert again.rows(["none"])[0] == again.read("none")[0] == plain  # what is noted on disk is nobody's column
        book.compact(at_least=1)
    # As earlier versions left it: a file without arrays, and rows that do not say how many there are.
    np.savez_compressed(tmp_path / "arrays" / "old.npz")
    (tmp_path / "rows" / "old.json").write_text(json.dumps([plain | {"key": "old"}]))
    assert Ledger(tmp_path).arrays("old") == {}
    assert Ledger(tmp_path).rows(["old"]) == [plain | {"key": "old"}]
    for key in ("old", "some", "never"):  # lost, not absent
        (tmp_path / "arrays" / f"{key}.npz").unlink(missing_ok=True)
        with pytest.raises(UserError, match=rf"arrays/{key}\.npz: not a readable NumPy file"):
            Ledger(tmp_path).arrays(key)


def test_a_row_is_there_only_when_its_arrays_are(tmp_path, monkeypatch):
    """Whatever write a process is killed before: nothing is half there, and the same trial then ends whole."""
    result, write = Result(rows_of(1), {"x": np.arange(3.0)}), Store.write
    for last in (1, 2, 3):
        book, done = Ledger(tmp_path / str(last)), []

        def dying(self, name, data, done=done, last=last):
            done.append(name)
            if len(done) == last:
                raise KeyboardInterrupt
            write(self, name, data)

        monkeypatch.setattr(Store, "write", dying)
        with pytest.raises(KeyboardInterrupt):
            book.record("k", Trial("s", 1.0, 0), result)
        monkeypatch.setattr(Store, "write", write)
        book = Ledger(tmp_path / str(last))
        assert (book.finished("k"), book.done(["k"]), book.rows(["k"])) == (False, set(), [])
        book.record("k", Trial("s", 1.0, 0), result)
        assert book.done(["k"]) == {"k"}
        assert book.arrays("k")["x"].tolist() == [0, 1, 2]
    assert done == ["layout.json", "arrays/k.npz", "rows/k.json"]


@pytest.mark.parametrize("folder", ["rows", "failed"])
def test_a_ledger_of_an_older_layout_is_one_line(tmp_path, folder):
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "0123.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError) as told:
        Ledger(tmp_path)
    assert len(str(told.value).splitlines()) == 1
    assert str(told.value).startswith(
        f"{tmp_path}: a ledger of an older layout; this raypipe reads layout 2 only: name another folder"
    )
    assert {path.name for path in tmp_path.rglob("*.*")} == {"0123.parquet"}  # nothing was written into it


@pytest.mark.parametrize("layout", [b'{"layout": 3}', b'{"layout": 1}', b"[]", b"rubbish", b""])
def test_a_ledger_of_another_layout_is_one_line(tmp_path, layout):
    book = Ledger(tmp_path)
    assert not tmp_path.joinpath("layout.json").exists()
    book.record_failure("k", Trial("s", 1.0, 0), "ValueError: boom")
    assert json.loads(tmp_path.joinpath("layout.json").read_text()) == {"layout": 2}
    assert Ledger(tmp_path).failures(["k"])["k"]["attempts"] == 1
    tmp_path.joinpath("layout.json").write_bytes(layout)
    found = "layout 3" if b"3" in layout else "layout 1" if b"1" in layout else "an unknown layout"
    with pytest.raises(UserError, match=rf"a ledger of {found}; this raypipe reads layout 2 only: name another"):
        Ledger(tmp_path)


def _write_many(folder: str, first: int) -> None:
    book = Ledger(folder)
    for i in range(first, 60 + first):
        book.record(f"k{i:03d}", Trial("s", 1.0, i), Result(rows_of(i)))
        if i % 10 == 0:
            book.compact(at_least=5)


def test_two_writers_on_one_ledger(tmp_path):
    """Overlapping trials, written and compacted by two processes at the same time: all there, once, as from one."""
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_many, args=(str(tmp_path / "two"), first)) for first in (0, 30)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    _write_many(str(tmp_path / "one"), 0)
    _write_many(str(tmp_path / "one"), 30)
    keys = [f"k{i:03d}" for i in range(90)]
    two, one = Ledger(tmp_path / "two"), Ledger(tmp_path / "one")
    assert two.done(keys) == set(keys)
    assert repr(two.rows(keys)) == repr(one.rows(keys))
    assert len(two.rows(keys)) == 180
    assert not [p for p in (tmp_path / "two").rglob(".tmp-*")]


def test_ten_thousand_rows(tmp_path):
    keys = [f"{i:020x}" for i in range(MANY)]
    book = Ledger(tmp_path)
    (tmp_path / "rows").mkdir()
    for key in keys[:-1]:  # what record writes, without waiting for the disk ten thousand times
        (tmp_path / "rows" / f"{key}.json").write_text(json.dumps([{"key": key, "status": "ok", "seconds": 36.0}]))
    trials = {key: Trial("s", 1.0, i) for i, key in enumerate(keys)}
    announce(book, trials, Price(cpus=1, cpu_hour=0.5), "scan")
    book.compact()

    def least(work) -> float:
        """The machine is shared: the best of a few tries is the code's own time."""
        best = math.inf
        for _ in range(8):
            began = time.perf_counter()
            work()
            best = min(best, time.perf_counter() - began)
            if best < 1:
                break
            time.sleep(1)
        return best

    assert least(lambda: Ledger(tmp_path).record(keys[-1], trials[keys[-1]], Result(rows_of(MANY)))) < 1
    assert least(lambda: status(Ledger(tmp_path))) < 1
    assert least(lambda: Ledger(tmp_path).done(keys)) < 1
    now = status(Ledger(tmp_path))
    assert (now.total, now.done, now.failed, now.left) == (MANY, MANY, 0, 0)
    assert now.cpu_hours == pytest.approx(MANY * 36 / 3600)
    assert now.cost == pytest.approx(50.0)
    assert len(Ledger(tmp_path).rows(keys)) == MANY + 1

    # Beside the same command without a row: processor time, which neither a busy nor a slow machine stretches.
    few = Ledger(tmp_path / "few")
    announce(few, dict(list(trials.items())[:1]), Price(), "scan")
    text, full = seconds_of_status(tmp_path)
    assert f"{MANY} of {MANY} done" in text
    text, empty = seconds_of_status(tmp_path / "few")
    assert "0 of 1 done" in text
    assert full < 2 * empty


def seconds_of_status(where) -> tuple[str, float]:
    """What `raypipe status` says of a store, and the processor seconds of the whole command."""
    command = [sys.executable, "-m", "raypipe.cli", "status", "--config", str(ROOT / "configs/contrastive/laptop.yaml")]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [*command, f"resources.storage={where}", f"output={where}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return " ".join(done.stderr.split()), used


@pytest.mark.parametrize("command", [["--help"], ["scan", "--help"], ["config"], ["status"]])
def test_light_commands_import_nothing_heavy(tmp_path, command):
    if command[-1] == "status":
        announce(Ledger(tmp_path / "ledger"), {"a" * 20: Trial("s", 1.0, 0)}, Price(), "scan")
        command = [*command, "--config", str(ROOT / "configs/contrastive/laptop.yaml"), "--output", str(tmp_path)]
    code = (
        "import sys; from raypipe.cli import main\n"
        f"main({command!r}, standalone_mode=False)\n"
        "print(sorted({m.split('.')[0] for m in sys.modules} & {'ray', 'torch', 'mlflow', 'scipy', 'xgboost'}))\n"
        "print('raypipe.config.sections' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    heavy, config = done.stdout.splitlines()[-2:]
    assert heavy == "[]"
    assert config == str("--help" not in command)


def test_status_of_an_empty_ledger_is_one_line(tmp_path):
    with pytest.raises(UserError, match="no scan was started here yet"):
        newest_scan(Ledger(tmp_path))


@pytest.fixture
def small_disk(tmp_path):
    """A disk of one MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() != 0 or libc.mount(b"tmpfs", bytes(disk), b"tmpfs", 0, b"size=1m") != 0:
        pytest.skip("cannot mount a small disk here: this needs the right to mount")
    yield disk
    libc.umount2(bytes(disk), 2)


def test_full_disk_is_one_line_and_loses_nothing(small_disk):
    book, trial, done = Ledger(small_disk / "ledger"), Trial("s", 1.0, 0), []
    noise = np.random.default_rng(1)

    def fill() -> None:
        for i in range(1000):
            book.record(f"k{i}", trial, Result(rows_of(i), {"x": noise.random(5000)}))
            done.append(f"k{i}")

    with pytest.raises(DiskFull) as caught:
        fill()
    assert len(str(caught.value).splitlines()) == 1
    assert "no space left on this disk" in str(caught.value)
    assert 3 < len(done) < 100
    assert Ledger(small_disk / "ledger").done([f"k{i}" for i in range(1000)]) == set(done)
    assert not list(small_disk.rglob(".tmp-*"))


@pytest.mark.ray
def test_scan_on_a_full_disk_stops_with_one_line_and_goes_on_later(ray_local, small_disk, tmp_path):
    from raypipe.cluster.fanout import Scan
    from raypipe.config import Resources
    from tests.cluster.trials import probes, run_probes

    trials, book = probes(4), Ledger(small_disk / "ledger")
    inputs, resources = {"table": np.ones(3)}, Resources(cpus=2)
    first = dict(list(trials.items())[:2])
    Scan(run_probes, inputs, first, book, resources).run()
    kept = {key: (small_disk / "ledger" / "rows" / f"{key}.json").stat().st_mtime_ns for key in first}
    ballast = small_disk / "ballast"
    with open(ballast, "wb", buffering=0) as handle, contextlib.suppress(OSError):
        while True:
            handle.write(os.urandom(4096))
    with pytest.raises(DiskFull, match="no space left on this disk"):
        Scan(run_probes, inputs, trials, book, resources).run()
    ballast.unlink()
    assert book.done(trials) == set(first)
    Scan(run_probes, inputs, trials, book, resources).run()
    assert book.done(trials) == set(trials)
    assert {k: (small_disk / "ledger" / "rows" / f"{k}.json").stat().st_mtime_ns for k in first} == kept
