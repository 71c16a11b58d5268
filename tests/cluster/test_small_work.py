"""Small work: done in this process, soon, with the numbers of the cluster; its inputs are looked at first."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from raypipe.cli import main
from raypipe.cluster.tasks import pays, ray_map, spread
from raypipe.config import Resources
from tests.conftest import ROOT
from tests.search.test_table import OVERRIDES
from tests.search.toys import toy_table

LHCO = str(ROOT / "configs/lhco/laptop.yaml")
COMMAND = """
import json, sys, time
from raypipe.cli import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    loaded = [name for name in ("ray", "torch", "xgboost", "mlflow") if name in sys.modules]
    print(json.dumps({"status": end.code, "cpu": time.process_time(), "loaded": loaded}))
"""


@pytest.fixture(scope="module")
def libraries() -> float:
    """Core seconds that the libraries of any command on a table take to load, on this machine now."""
    code = "import time, pandas, pyarrow.parquet, pydantic, scipy.stats, rich.progress; print(time.process_time())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout)


def alone(*arguments: str | Path) -> tuple[dict, str]:
    """A command in a process of its own: its status, core seconds and heavy libraries; what it said."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_"))}
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *map(str, arguments)],
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.stdout, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    for name, table in (
        ("data", toy_table(550, 50, 1)),
        ("background", toy_table(600, 0, 2)),
        ("score", toy_table(500, 100, 3)),
        ("table", toy_table(10_000, 100, 4)),
        ("simulated", toy_table(10_000, 0, 5)),
    ):
        np.save(folder / f"{name}.npy", table)
    with open(folder / "read.csv", "w") as handle:
        np.savetxt(handle, toy_table(1780, 20, 6), delimiter=",", header="mass,a,b,label", comments="")
    (folder / "read.yaml").write_text("search: read\ncolumns: {mass: mass, features: [a, b], label: label}\n")
    return folder


def commands(files: Path, output: Path) -> dict[str, list[str | Path]]:
    """Small work of three kinds, and the table that it writes below ``output``."""
    tables = (f"data.path={files}/table.npy", f"background.path={files}/simulated.npy")
    return {
        "classify": [
            "classify",
            "--data",
            files / "data.npy",
            "--background",
            files / "background.npy",
            "--score",
            files / "score.npy",
            "--mass",
            "0",
            "--output",
            output / "scores.parquet",
        ],
        "read": ["read", "--config", files / "read.yaml", "--output", output, files / "read.csv"],
        "search": ["search", "--config", LHCO, "--output", output, *OVERRIDES, *tables],
    }


@pytest.mark.ray
@pytest.mark.parametrize("name", ["classify", "read", "search"])
def test_small_work_needs_no_cluster_and_gives_its_numbers(ray_local, files, tmp_path, libraries, name):
    for way in ("first", "again", "alone"):  # core seconds, too, grow beside other work: the least is what it takes
        found, said = alone(*commands(files, tmp_path / way)[name])
        assert found["status"] == 0, said
        assert not {"ray", "torch", "mlflow"}.intersection(found["loaded"])
        if found["cpu"] < 4 * libraries:  # Ray alone takes that, and 10 s of waiting
            break
    else:
        pytest.fail(f"{found['cpu']:.1f} core seconds, libraries alone {libraries:.1f}")
    alone_in = tmp_path / way
    assert CliRunner().invoke(main, [str(a) for a in commands(files, tmp_path / "ray")[name]]).exit_code == 0
    written = "read.parquet" if name == "read" else "scores.parquet"
    one, other = (pq.read_table(folder / written) for folder in (alone_in, tmp_path / "ray"))
    assert one.num_rows > 0
    assert one.equals(other)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("classify", ("--mass", "9"), "column 9 is missing (the file has 4 columns)"),
        ("classify", ("--score", "absent.npy"), "absent.npy: no such file"),
        ("read", ("--set", "columns.features=[a, z]"), "column 'z' is missing (present: mass, a, b, label)"),
        ("search", ("data.columns.features=[1, 7]",), "table.npy: column 7 is missing"),
        ("search", ("background.weight=8",), "simulated.npy: column 8 is missing"),
        ("search", ("background.path=absent.npy",), "absent.npy: no such file"),
    ],
)
def test_wrong_inputs_are_told_before_anything_starts(files, tmp_path, libraries, name, change, words):
    spent = []
    while len(spent) < 3 and min(spent, default=np.inf) >= 2 * libraries:  # 1.2 times; the least is what it takes
        found, said = alone(*commands(files, tmp_path)[name], *change)
        assert found["status"] == 2
        assert words in said
        assert len(said.strip().splitlines()) == 1
        assert found["loaded"] == []
        spent.append(found["cpu"])
    assert min(spent) < 2 * libraries


def test_a_wrong_column_of_the_last_file_is_told_before_the_first_is_read(tmp_path):
    for name, columns in (("a", "mass,a"), ("b", "mass,c")):
        (tmp_path / f"{name}.csv").write_text(f"{columns}\n" + "1.5,nan\n" * 100)
    (tmp_path / "read.yaml").write_text("search: read\ncolumns: {mass: mass, features: [a]}\n")
    files = [str(tmp_path / f"{name}.csv") for name in "ab"]
    done = CliRunner().invoke(main, ["read", "--config", f"{tmp_path}/read.yaml", "--output", str(tmp_path), *files])
    assert done.exit_code == 2
    assert "b.csv: column 'a' is missing (present: mass, c)" in done.output


@pytest.mark.parametrize(
    ("times", "left", "cores", "expected"),
    [
        ([], 1000, 8, False),
        ([9.0], 1000, 8, False),  # the first loads libraries
        ([9.0, 0.1], 100, 8, False),  # 10 s of work
        ([9.0, 0.1], 300, 8, True),  # 30 s of work, 26 saved
        ([9.0, 0.1], 300, 2, False),  # two cores save 15 s, as much as Ray takes
        ([9.0, 0.1], 320, 2, True),
        ([9.0, 10.0, 0.0], 4, float("inf"), True),
        ([9.0, 10.0], 100_000, 1, False),
    ],
)
def test_ray_starts_where_it_saves_more_than_it_takes(times, left, cores, expected):
    assert pays(times, left, cores) is expected


def test_work_that_pays_moves_to_ray_in_the_middle():
    """In a process of its own: some results from here, the others from tasks, in order."""
    code = (
        "import time, os\n"
        "from raypipe.cluster import tasks\n"
        "from raypipe.config import Resources\n"
        "tasks.START_SECONDS = 0.2\n"
        "def work(i):\n"
        "    end = time.process_time() + 0.05\n"
        "    while time.process_time() < end: pass\n"
        "    return i, os.getpid()\n"
        "with tasks.spread(Resources(cpus=2, object_store_gib=0.1)) as mapper:\n"
        "    found = list(mapper(work, range(20)))\n"
        "    again = list(mapper(work, range(3)))\n"
        "assert [i for i, _ in found] == list(range(20))\n"
        "assert [pid == os.getpid() for _, pid in found] == [True] * 2 + [False] * 18\n"
        "assert os.getpid() not in {pid for _, pid in again}\n"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_one_core_stays_here(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("raypipe.cluster.tasks.START_SECONDS", 0.0)
    monkeypatch.setattr("raypipe.cluster.tasks.ray_runs", lambda: False)
    with spread(Resources(cpus=1)) as mapper:
        assert list(mapper(lambda i: sum(range(10**5)) + i, range(5)))[4] == sum(range(10**5)) + 4


@pytest.mark.ray
def test_what_the_user_can_mend_is_told_in_its_own_words_by_a_task(ray_local):
    from raypipe.errors import UserError

    def refuse(item):
        raise UserError(f"x.npy: row {item}: mend it")

    with pytest.raises(UserError) as told:
        list(ray_map(refuse, [7]))
    assert str(told.value) == "x.npy: row 7: mend it"


@pytest.mark.ray
def test_results_come_as_they_end_and_may_bring_more_work(ray_local, tmp_path):
    def work(name):
        end = time.monotonic() + 60
        while name == "first" and not (tmp_path / "third is done").exists():
            assert time.monotonic() < end
            time.sleep(0.05)
        return name

    waiting, found = deque(["first", "second"]), []
    for name in ray_map(work, waiting, in_order=False):
        found.append(name)
        if name == "second":
            waiting.append("third")
        if name == "third":
            (tmp_path / "third is done").touch()
    assert found == ["second", "third", "first"]


@pytest.mark.ray
def test_errors_of_tasks_name_their_item(ray_local):
    def work(item):
        if item == "dies":
            os.kill(os.getpid(), 9)
        raise ValueError("no")

    with pytest.raises(RuntimeError, match=r"^item raises failed:\n[\s\S]*ValueError: no"):
        list(ray_map(work, ["raises"], name="item {}".format))
    with pytest.raises(RuntimeError, match=r"^item dies: its process died 2 times: "):
        list(ray_map(work, ["dies"], retries=1, name="item {}".format))
    with pytest.raises(ValueError, match="no"):
        list(ray_map(work, ["raises"]))
