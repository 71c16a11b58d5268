"""The multilepton search through Ray and the command line on a user's own tables: resume, report, one-line errors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner

from raypipe.cli import main
from raypipe.cluster.run import Run
from raypipe.config import load_config
from raypipe.errors import UserError
from raypipe.events.table import write_table
from raypipe.search.multilepton_search import Multilepton
from raypipe.store.status import status

pytestmark = pytest.mark.ray


@pytest.fixture
def tables(tmp_path):
    """Recorded data with a bump of 40 events (CSV), reference and signal (Parquet), and their configuration."""
    rng = np.random.default_rng(1)

    def table(x, weight=None):
        columns = {"x": x[:, 0], "y": x[:, 1], "other": np.zeros(len(x))}
        return pa.table(columns if weight is None else {**columns, "w": np.full(len(x), weight)})

    background, bump = rng.normal(size=(150, 2)), rng.normal(2.0, 0.1, size=(40, 2))
    pa.csv.write_csv(table(np.r_[background, bump]), tmp_path / "data.csv")
    write_table(table(rng.normal(size=(6000, 2)), 150 / 150 / 6000), tmp_path / "reference.parquet")
    write_table(table(rng.normal(2.0, 0.1, size=(300, 2)), 1.0), tmp_path / "bump.parquet")
    values = {
        "search": "multilepton",
        "output": str(tmp_path / "run"),
        "blind": False,
        "features": ["x", "y"],
        "files": {
            "data": str(tmp_path / "data.csv"),
            "reference": str(tmp_path / "reference.parquet"),
            "weight": "w",
            "signals": {"a_125": str(tmp_path / "bump.parquet")},
            "acceptance": {"a_125": 0.2},
        },
        "networks": {"hidden": [16, 16], "members": 2, "epochs": 6},
        "bootstrap": {"count": 20},
        "scan": {"signals": ["a_125"], "strengths": [10, 60], "instances": 2, "calibration": 20},
        "resources": {"cpus": 2, "object_store_gib": 0.25},
    }
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_scan_report_and_search_from_the_command_line(tables, ray_local):
    run = CliRunner().invoke(main, ["scan", "--config", str(tables), "--json"])
    assert run.exit_code == 0, run.output
    folder = tables.parent / "run"
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["planned"], summary["finished"]) == (20 + 1 + 20 + 4, 45)
    assert summary["expected"] == pytest.approx(150)
    assert summary["combined"]["data_p"] == pytest.approx(1 / 21)  # the bump of 40 events, beyond every bootstrap
    limit = summary["tests"][-3]["limits"]["a_125"]["crossing"]
    assert limit["fb"]["value"] == pytest.approx(limit["events"]["value"] / (150 * 0.2))
    for number in range(1, 6):
        assert (folder / "figures" / f"figure{number}.svg").stat().st_size > 5000
    page = (folder / "report.html").read_text()
    assert "0.8 +0.7 −0.2" in page
    assert "What differs from the paper" in page
    assert (folder / "tracking.json").exists()  # MLflow has it
    # Again: everything is there. More bootstraps: only those are new. `search` reads the same ledger.
    before = {p.name: p.stat().st_mtime_ns for p in (folder / "ledger" / "rows").iterdir()}
    run = CliRunner().invoke(main, ["scan", "--config", str(tables), "bootstrap.count=23", "tracking.enabled=false"])
    assert run.exit_code == 0, run.output
    after = {p.name: p.stat().st_mtime_ns for p in (folder / "ledger" / "rows").iterdir()}
    assert len(after) == len(before) + 3
    assert all(after[name] == time for name, time in before.items())
    run = CliRunner().invoke(main, ["search", "--config", str(tables), "--json"])
    assert run.exit_code == 0, run.output
    found = json.loads(run.stdout)
    assert found["combined_p"] == pytest.approx(1 / 21)
    assert len(found["tests"]) == 12
    # Two results of another version of the code are counted, told, and not shown.
    rows, scans = folder / "ledger" / "rows", folder / "ledger" / "scans"
    announced = json.loads(next(scans.glob("scan-*.json")).read_text())
    for key in ("a" * 20, "b" * 20):
        (rows / f"{key}.json").write_bytes(next(rows.iterdir()).read_bytes())
    old = announced | {"trials": {"a" * 20: "old", "b" * 20: "old"}, "made_by": {"search": "another"}}
    (scans / "scan-old.json").write_text(json.dumps(old))
    run = CliRunner().invoke(main, ["report", "--config", str(tables), "--json", "tracking.enabled=false"])
    assert run.exit_code == 0, run.output
    told = json.loads(run.stdout)
    assert (told["other_versions"], told["finished"], told["planned"]) == (2, 45, 45)
    assert "holds 2 trials of another version" in run.stderr
    assert "holds 2 trials of another version" in (folder / "report.html").read_text()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["features=[x, z]"], "column 'z' is missing"),
        (["features=[x, other]"], "feature 'other' is constant"),
        (["files.weight=null"], "compare.expected: how many background events"),
        (["files.acceptance.a_125=0"], "never accepted"),
        (["bootstrap.count=19"], "bootstrap.count = 19"),
        (["files.data=absent.csv"], "absent.csv: no such file"),
    ],
)
def test_bad_input_is_one_line(tables, overrides, words):
    run = CliRunner().invoke(main, ["scan", "--config", str(tables), *overrides])
    assert run.exit_code == 2
    assert words in run.output
    assert len(run.output.strip().splitlines()) == 1


def test_a_failed_comparison_is_recorded_and_told(tables, ray_local):
    run = CliRunner().invoke(main, ["search", "--config", str(tables), "networks.batch_size=100000"])
    assert run.exit_code == 2
    assert "fewer than one batch (networks.batch_size = 100000)" in run.output


def test_a_comparison_that_hangs_is_ended_and_told(tables, ray_local):
    """`trial_timeout` and `max_failures` hold here, too: a hundred thousand epochs end after the given seconds."""
    given = ["networks.epochs=100000", "resources.trial_timeout=1", "resources.max_failures=0", "bootstrap.count=20"]
    with Run(load_config(tables, [*given, "scan.signals=[]", "scan.calibration=0"])) as run:
        trials = run.keys(run.search.grid()[:2], {})
        book = run.run_trials(trials)
    assert {row["kind"] for row in book.failures(trials).values()} == {"timeout"}
    assert len(book.failures(trials)) == 2
    assert status(book).failed == 2


def test_what_has_no_effect_is_refused(tables):
    with pytest.raises(UserError, match=r"resources\.pack_seconds: does not apply, `chunk` says how many"):
        load_config(tables, ["resources.pack_seconds=10"])


def test_nothing_to_simulate(tables):
    run = CliRunner().invoke(main, ["simulate", "--config", str(tables)])
    assert (run.exit_code, "there is nothing to simulate" in run.stderr) == (2, True)


def pools(given):
    """The search of a configuration, with its pools."""
    search = Multilepton(given)
    return search, search.pools(Path("."))[0]


def again(path, rows: int) -> None:
    """Write the first rows of a table behind it."""
    read, write = (pa.csv.read_csv, pa.csv.write_csv) if path.suffix == ".csv" else (pq.read_table, write_table)
    table = read(path)
    write(pa.concat_tables([table, table.slice(0, rows)]), path)


@pytest.mark.parametrize(("name", "rows", "total"), [("data.csv", 20, 190), ("reference.parquet", 300, 6000)])
def test_repeated_events_are_refused_dropped_or_kept(tables, name, rows, total):
    path = tables.parent / name
    again(path, rows)
    words = rf"{rows} of {total + rows} events .*{name} row {total} = .*{name} row 0,"
    with pytest.raises(UserError, match=words) as told:
        pools(load_config(tables))
    assert "files.duplicates=drop" in str(told.value)
    keys = set()
    for policy, events in (("drop", total), ("keep", total + rows)):
        run, found = pools(load_config(tables, [f"files.duplicates={policy}"]))
        keys.add(run.materials("tables", {})["events"])
        simulated = len(found.reference) + len(found.null) + len(found.nature)
        assert (len(found.data) if name == "data.csv" else simulated) == events
        word = "dropped" if policy == "drop" else "kept"
        assert run.notes == [f"{name.split('.')[0]}: {rows} events repeat an earlier one: {word}"]
    assert len(keys) == 2


def test_weights_with_signs_give_the_yield(tables):
    path = tables.parent / "reference.parquet"
    table = pq.read_table(path)
    signs = np.where(np.arange(6000) % 5 == 0, -1.0, 1.0)
    write_table(table.set_column(3, "w", pa.array(signs * table["w"].to_numpy())), path)
    with pytest.raises(UserError, match=r"column 'w', row 0: .* is negative: files\.weights=sign keeps the signs"):
        pools(load_config(tables))
    run, found = pools(load_config(tables, ["files.weights=sign"]))
    assert found.expected == pytest.approx(0.6 * 150)
    assert found.null.weight.min() >= 0
    assert len(run.notes) == 1
    assert "reference: 20.00% of the weights are negative; the yield is their sum, 0.600" in run.notes[0]


def test_the_data_are_no_reference(tables):
    data = tables.parent / "data.csv"
    with pytest.raises(UserError, match="holds the recorded data"):
        pools(
            load_config(
                tables,
                [
                    f"files.reference={data}",
                    "files.weight=null",
                    "compare.expected=90",
                    "files.signals={}",
                    "scan.signals=[]",
                ],
            )
        )
