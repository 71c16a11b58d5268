"""The fan-out under every fault that a trial can bring, on one embedded Ray."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from raypipe.cluster.attempt import Worker, report
from raypipe.cluster.fanout import Scan, pack_size
from raypipe.cluster.live import Progress, run_trials
from raypipe.config import Resources
from raypipe.errors import UserError
from raypipe.search.result import ALONE
from raypipe.store.ledger import Ledger
from raypipe.store.status import Heartbeat, Price, announce, drivers, status
from tests.cluster.trials import Probe, probes, run_probes
from tests.conftest import ROOT

TABLE = np.arange(1000.0)
ONCE = Resources(cpus=2, max_failures=1, trial_timeout=2.0)


def physics(book: Ledger, keys) -> list[dict]:
    """Rows without what depends on the machine."""
    return [{k: v for k, v in row.items() if not k.startswith("seconds")} for row in book.rows(keys)]


@pytest.mark.ray
def test_every_fault_is_retried_or_reported_and_costs_only_itself(ray_local, tmp_path, capsys):
    acts = ["work", "raise", "hang", "memory", "die", "flaky", "once", "work"]
    trials = {p.key(): p for p in (Probe(i, act) for i, act in enumerate(acts))}
    book, reports = Ledger(tmp_path / "ledger"), []
    announce(book, trials, Price(), "scan")
    Scan(
        run_probes,
        {"scratch": str(tmp_path), "table": TABLE},
        trials,
        book,
        ONCE,
        lambda trial, told: reports.append((trial.act, told)),
    ).run()
    ended = [(act, told["status"]) for act, told in reports]
    assert sorted(ended) == sorted(
        [
            ("work", "ok"),
            ("work", "ok"),
            ("flaky", "ok"),
            ("once", "ok"),
            ("raise", "failed"),
            ("hang", "failed"),
            ("memory", "failed"),
            ("die", "failed"),
        ]
    )
    # What Ray Tune was told is what the ledger holds of the first working point.
    for told in (told for _, told in reports if told["status"] == "ok"):
        row = book.read(told["key"])[0]
        assert (told["metric"], told["draw"], told["seconds"]) == ("draw", row["draw"], row["seconds"])
    failed = {trials[key].act: row for key, row in book.failures(trials).items()}
    assert {act: row["kind"] for act, row in failed.items()} == {
        "raise": "raised",
        "hang": "timeout",
        "memory": "raised",
        "die": "died",
    }
    assert "ValueError: trial 1 cannot be done" in failed["raise"]["error"]
    assert "time.sleep(600)" in failed["hang"]["error"]  # where it hung
    assert "MemoryError" in failed["memory"]["error"]
    assert "its process died 2 times" in failed["die"]["error"]
    assert "worker" in failed["die"]["error"].lower()  # Ray's own words, for example whether memory was short
    runs = {act: len((tmp_path / f"ran-{i}").read_text().split()) for i, act in enumerate(acts)}
    # An exception that would only come again is not tried again.
    assert runs == {"work": 1, "raise": 1, "hang": 2, "memory": 2, "die": 2, "flaky": 2, "once": 2}
    now = status(book)
    assert (now.total, now.done, now.failed, now.left, now.drivers) == (8, 4, 4, 0, 0)
    assert {m["trial"] for m in now.missing} == {"raise 1", "hang 2", "memory 3", "die 4"}
    assert not (tmp_path / "ledger" / "tune").exists() or not list((tmp_path / "ledger" / "tune").iterdir())

    # The same command tries exactly the missing ones again, and the table at its end says so.
    again = {k: t for k, t in trials.items() if t.act in ("work", "raise")}
    run_trials(Scan(run_probes, {"scratch": str(tmp_path), "table": TABLE}, again, book, ONCE))
    assert (tmp_path / "ran-1").read_text().count("\n") == 2
    assert (tmp_path / "ran-0").read_text().count("\n") == 1
    err = capsys.readouterr().err
    assert "missing: 1 trials" in err
    assert "ValueError: trial 1 cannot be done" in err
    assert book.failures(again)[Probe(1, "raise").key()]["attempts"] == 2


def test_a_worker_retries_what_may_pass_and_tells_of_every_trial(tmp_path):
    trials = {p.key(): p for p in (Probe(i, act) for i, act in enumerate(["work", "raise", "flaky", "memory"]))}
    book = Ledger(tmp_path / "ledger")
    inputs = {"scratch": str(tmp_path), "table": TABLE}
    worker = Worker(run_probes, inputs, book, ALONE, 60.0, 1)
    told = [one for key, trial in trials.items() for one in worker.run({key: trial})]
    assert [(one["key"], one["status"]) for one in told] == list(zip(trials, ["ok", "failed"] * 2, strict=True))
    assert [len((tmp_path / f"ran-{i}").read_text().split()) for i in range(4)] == [1, 1, 2, 2]
    assert book.done(trials) == {one["key"] for one in told if one["status"] == "ok"}
    # The same as one: it fails together, so each is tried alone.
    again = worker.run(trials)
    assert [one["status"] for one in again] == ["ok", "failed"] * 2
    assert {one["attempts"] for one in book.failures(trials).values()} == {2}


@pytest.mark.ray
def test_short_trials_are_packed_and_a_bad_one_does_not_take_its_pack_along(ray_local, tmp_path):
    trials = probes(40) | {p.key(): p for p in [Probe(100, "die")]} | {p.key(): p for p in [Probe(101)]}
    book = Ledger(tmp_path / "ledger")
    for key, trial in list(trials.items())[:1]:  # one known trial, so that packs are made at once
        from raypipe.search.result import Result

        book.record(key, trial, Result([{"number": 0, "seconds": 0.01}]))
    resources = Resources(cpus=2, max_failures=0, pack_seconds=0.1)
    Scan(run_probes, {"scratch": str(tmp_path), "table": TABLE}, trials, book, resources).run()
    assert set(book.failures(trials)) == {Probe(100, "die").key()}
    assert len(book.done(trials)) == 41
    processes = {line for path in tmp_path.glob("ran-*") for line in path.read_text().split()}
    assert len(processes) < 10


@pytest.mark.ray
def test_of_trials_made_as_one_the_bad_ones_alone_fail(ray_local, tmp_path):
    """Exceptions, hangs and deaths in one batch of eight; its twin of eight good ones is made once, as one."""
    good = probes(8)
    acts = ["work", "raise", "hang", "die", "work", "work", "work", "work"]
    bad = {p.key(): p for p in (Probe(100 + i, act) for i, act in enumerate(acts))}
    trials, book, ended = good | bad, Ledger(tmp_path / "ledger"), []
    resources = Resources(cpus=2, max_failures=0, trial_timeout=1.0)
    inputs = {"scratch": str(tmp_path), "table": TABLE}
    Scan(
        run_probes,
        inputs,
        trials,
        book,
        resources,
        lambda trial, told: ended.append((trial.act, told["status"])),
        together=8,
    ).run()
    failed = {trials[key].act: row["kind"] for key, row in book.failures(trials).items()}
    assert failed == {"raise": "raised", "hang": "timeout", "die": "died"}
    assert len(book.done(trials)) == len(trials) - 3 == ended.count(("work", "ok"))
    assert {len((tmp_path / f"ran-{i}").read_text().split()) for i in range(8)} == {1}
    sizes = (tmp_path / "together").read_text().split()
    assert sizes.count("8") == 2
    assert set(sizes) == {"8", "1"}
    # One as good as the other: the same numbers, and the seconds of a batch shared out.
    rows = {row["key"]: row for row in book.rows(good)}
    assert all(row["seconds"] > 0 and row["seconds_cpu"] >= 0 for row in rows.values())
    Scan(run_probes, {"table": TABLE}, good, Ledger(tmp_path / "single"), resources).run()
    assert physics(Ledger(tmp_path / "single"), good) == physics(book, good)

    # A chunk of which one trial is done is made whole, and that one does not end again.
    part, first = Ledger(tmp_path / "part"), next(iter(good))
    run_trials(Scan(run_probes, {"table": TABLE}, {first: good[first]}, part, resources))
    ended.clear()
    Scan(run_probes, inputs, good, part, resources, lambda trial, told: ended.append(trial.number), together=8).run()
    assert sorted(ended) == list(range(1, 8))
    assert (tmp_path / "together").read_text().split()[-1] == "8"
    assert physics(part, good) == physics(book, good)


def test_chunks_have_the_same_borders_whatever_is_left(tmp_path):
    trials = probes(10)
    keys = list(trials)
    scan = Scan(run_probes, {}, trials, Ledger(tmp_path), ONCE, together=4)
    assert scan._chunks(keys[5:], set()) == [keys[4:8], keys[8:]]
    assert scan._chunks(keys[::-1], {keys[9]}) == [keys[4:8], keys[:4]]


@pytest.mark.ray
def test_storage_that_is_not_a_path_and_two_ledgers_with_the_same_bits(ray_local, tmp_path):
    from pyarrow import fs

    from raypipe.store.files import Store

    trials = probes(3) | {Probe(9, "die").key(): Probe(9, "die")}
    plain = Ledger(f"file://{tmp_path}/plain")
    (tmp_path / "bucket").mkdir()
    remote = Ledger(Store("scan/ledger", fs.SubTreeFileSystem(str(tmp_path / "bucket"), fs.LocalFileSystem())))
    for book in (plain, remote):
        run_trials(Scan(run_probes, {"table": TABLE}, trials, book, ONCE))
        (failure,) = status(book).missing
        assert (status(book).done, failure["kind"]) == (3, "died")
        assert "worker" in failure["error"]
    assert physics(plain, probes(3)) == physics(remote, probes(3))
    assert sorted((tmp_path / "bucket/scan/ledger/rows").iterdir())[0].name.endswith(".json")


def test_what_another_living_driver_runs_is_left_to_it(tmp_path):
    book, keys = Ledger(tmp_path), list(probes(3))
    with Heartbeat(book) as mine, Heartbeat(book) as other:
        other.running.add(keys[1])
        other.write()
        assert mine.elsewhere(keys) == {keys[1]}
        assert other.elsewhere(keys) == set()
    assert not list((tmp_path / "drivers").iterdir())


def test_a_killed_driver_is_known_to_be_dead_at_once(tmp_path):
    book, gone = Ledger(tmp_path), subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    heart = Heartbeat(book)
    heart.write()
    (path,) = (tmp_path / "drivers").iterdir()
    value = json.loads(path.read_text())
    path.write_text(json.dumps(value | {"pid": gone.pid}))
    assert len(drivers(book)) == 1
    gone.kill()
    gone.wait()
    assert drivers(book) == {}
    # Of another machine's processes nothing is known but their silence.
    path.write_text(json.dumps(value | {"pid": gone.pid, "place": "elsewhere"}))
    assert len(drivers(book)) == 1
    os.utime(path, (time.time() - 60, time.time() - 60))
    assert drivers(book) == {}


def test_pack_size():
    assert pack_size(None, 1000, 2, 60) == 1
    assert pack_size(120.0, 1000, 2, 60) == 1
    assert pack_size(1.0, 1000, 2, 60) == 60
    assert pack_size(1.0, 100, 2, 60) == 12  # four packs a slot are left
    assert pack_size(1.0, 3, 2, 60) == 1


def test_progress_counts_rate_and_cost_of_what_is_reported(tmp_path, monkeypatch):
    from raypipe.search.result import Result

    trials, price = probes(10), Price(cpus=2, gpus=0.5, cpu_hour=0.04, gpu_hour=2.0)
    book, keys = Ledger(tmp_path), list(trials)
    announce(book, trials, price, "scan")
    for key in keys[:2]:
        book.record(key, trials[key], Result([{"seconds": 3600.0}]))
    book.record_failure(keys[2], trials[keys[2]], "an earlier run's; it is tried again")
    clock = iter(range(0, 10_000, 10))
    monkeypatch.setattr("raypipe.cluster.live.time.monotonic", lambda: float(next(clock)))
    progress = Progress(status(book), price)
    for how in ("ok", "failed", "ok"):
        told = report("k", how, [{"seconds": 3600.0, "z_after": 2.34567, "sic": None}], "z_after")
        progress.add(told)
    now = progress.now
    assert (now.done, now.failed, now.left) == (4, 1, 5)
    assert now.per_minute == pytest.approx(6)
    assert now.seconds_left == pytest.approx(50)
    assert now.cost == pytest.approx(5 * (2 * 0.04 + 0.5 * 2.0))  # five hours of trials
    assert math.isclose(now.cpu_hours, 10)
    assert progress.note(Probe(7), told) == "1 failed, 6/min, 10 core h, cost 5.40, work 7: z_after 2.35"


@pytest.mark.ray
def test_impossible_requests_are_one_line(ray_local, tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(UserError, match=r"resources.trial_cpus = 64: this machine gives Ray 2"):
        Scan(run_probes, {}, probes(1), Ledger(tmp_path), Resources(trial_cpus=64)).run()


@pytest.mark.slow
def test_the_driver_does_not_grow_with_the_trials(tmp_path):
    """Ten times the trials, each a Tune trial of its own: at most 1.2 times the driver's peak memory."""
    peaks = {}
    for count in (60, 600):
        code = (
            "import resource, sys; import numpy as np\n"
            "from raypipe.cluster.fanout import Scan; from raypipe.store.ledger import Ledger\n"
            "from raypipe.cluster.runtime import ray_session; from raypipe.config import Resources\n"
            "from tests.cluster.trials import probes, run_probes\n"
            "resources = Resources(cpus=2, pack_seconds=0, object_store_gib=0.25)\n"
            f"trials, book = probes({count}), Ledger({str(tmp_path / str(count))!r})\n"
            "with ray_session(resources): Scan(run_probes, {'table': np.ones(3)}, trials, book, resources).run()\n"
            f"assert len(book.done(trials)) == {count}\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)\n"
        )
        environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        peaks[count] = float(done.stdout.split()[-1])
    print(f"\npeak memory of the driver, MiB: {peaks}")
    assert peaks[600] <= 1.2 * peaks[60]
