"""`raypipe read`: streams into tables, counts what it skips, and does not depend on the workers."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import uproot
from click.testing import CliRunner

from raypipe.cli import main
from raypipe.config.read import Columns, EventSource, Source
from raypipe.errors import UserError
from raypipe.events.schema import EVENT_SCHEMA
from raypipe.search.reading import batches, collect, plan_read
from tests.conftest import ROOT
from tests.events.helpers import read_events, read_features
from tests.events.readers.test_tables import BY_PLACE, real
from tests.events.readers.trees import known_events, write_delphes

pytestmark = pytest.mark.ray
NARROW = {**known_events()[0], "Photon": [(90.0, 0.0, 0.0), (60.0, 0.0, 2.0)]}
"""m_yy = 123.7 GeV, inside the papers' window."""


def invoke(*arguments: str):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def test_delphes_files_with_a_bad_one_among_them(ray_local, tmp_path):
    good = write_delphes(tmp_path / "good.root", [NARROW] * 5 + known_events())
    other = write_delphes(tmp_path / "other.root", [NARROW] * 3)
    bad = write_delphes(tmp_path / "bad.root", [NARROW] * 3 + [NARROW | {"weight": -1.0}])
    (tmp_path / "cut.root").write_bytes(good.read_bytes()[:900])
    empty = write_delphes(tmp_path / "none.root", known_events()[1:2])  # nothing passes
    arguments = [
        "read",
        "--config",
        ROOT / "configs/read/delphes.yaml",
        "--output",
        tmp_path / "out",
        "--set",
        "source.sample=mine",
        "--set",
        "source.chunk_rows=2",
    ]
    files = [good, bad, tmp_path / "cut.root", empty, other]
    stopped = invoke(*arguments, *files)
    assert stopped.exit_code == 2
    assert "cut.root: not a readable ROOT file" in stopped.output
    stopped = invoke(*arguments, good, bad)
    assert stopped.exit_code == 2
    assert "bad.root: branch 'Event.Weight', event 3: the weight -1 is negative" in stopped.output
    assert not list((tmp_path / "out").glob("*.parquet"))

    done = invoke(*arguments, "--on-error", "skip", "--json", *files)
    assert done.exit_code == 0, done.output
    sidecar = json.loads((tmp_path / "out" / "read.json").read_text())
    assert (sidecar["n_files"], sidecar["n_skipped"], sidecar["written"]) == (5, 2, 8)
    assert [f["written"] for f in sidecar["files"]] == [5, 0, 3]
    assert {s["path"] for s in sidecar["skipped"]} == {str(bad), str(tmp_path / "cut.root")}
    table = read_events(tmp_path / "out" / "good.parquet")
    assert table.num_rows == 5
    assert table["m_yy"].to_numpy() == pytest.approx(np.sqrt(2 * 90 * 60 * (1 - np.cos(2.0))), rel=1e-6)
    ids = table["event_id"].to_pylist() + read_events(tmp_path / "out" / "other.parquet")["event_id"].to_pylist()
    assert len(set(ids)) == 8
    assert not list((tmp_path / "out").glob(".tmp-*"))


def different(number: int, weight: float = 1.0):
    """An event that passes the selection, with an invariant mass of its own."""
    return NARROW | {"Photon": [(90.0 + 0.01 * number, 0.0, 0.0), (60.0, 0.0, 2.0)], "weight": weight}


def test_repeated_events_are_refused_dropped_or_kept(ray_local, tmp_path):
    """The events of one job are there again, in the same file and in another."""
    events = [different(n) for n in range(60)]
    one = write_delphes(tmp_path / "one.root", [*events[:40], *events[:3]])
    two = write_delphes(tmp_path / "two.root", [*events[40:], *events[10:15]])
    arguments = [
        "read",
        "--config",
        ROOT / "configs/read/delphes.yaml",
        "--output",
        tmp_path / "out",
        "--set",
        "source.chunk_rows=7",
        one,
        two,
    ]
    refused = invoke(*arguments)
    assert refused.exit_code == 2
    words = f"8 of 68 events (11.76%) repeat an earlier one in all columns: {one} row 40 = {one} row 0, {one} row 41 = "
    assert words in refused.output
    assert "source.duplicates=drop uses each once" in refused.output
    assert not list((tmp_path / "out").glob("*.parquet"))
    for policy, written in (("keep", [43, 25]), ("drop", [40, 20])):
        done = invoke(*arguments, "--set", f"source.duplicates={policy}")
        assert done.exit_code == 0, done.output
        sidecar = json.loads((tmp_path / "out" / "read.json").read_text())
        assert [f["written"] for f in sidecar["files"]] == written
        assert (sidecar["repeated"], sidecar["written"]) == (8, sum(written))
        tables = [read_events(tmp_path / "out" / f"{name}.parquet") for name in ("one", "two")]
        assert [t.num_rows for t in tables] == written
        assert "8 events repeat an earlier one" in done.output
    masses = np.concatenate([t["m_yy"].to_numpy() for t in tables])
    assert len(np.unique(masses)) == 60
    assert tables[1]["event_id"].to_pylist() == list(range(43, 63))
    assert not list((tmp_path / "out").glob(".tmp-*"))


def test_repeated_rows_of_a_table_count_where_ids_are_places(ray_local, tmp_path):
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(300, 3))
    np.save(tmp_path / "x.npy", np.c_[np.concatenate([rows, rows[:30]]), np.arange(330)])
    config = tmp_path / "read.yaml"
    config.write_text("search: read\ncolumns: {mass: 0, features: [1, 2]}\n")
    arguments = ["read", "--config", config, "--output", tmp_path / "out", tmp_path / "x.npy"]
    refused = invoke(*arguments)
    assert refused.exit_code == 2
    assert "30 of 330 events (9.09%)" in refused.output
    assert f"{tmp_path / 'x.npy'} row 300 = {tmp_path / 'x.npy'} row 0" in refused.output
    done = invoke(*arguments, "--set", "source.duplicates=drop")
    assert done.exit_code == 0, done.output
    assert pq.read_table(tmp_path / "out" / "x.parquet")["event_id"].to_pylist() == list(range(300))
    # With ids of their own they are different events; flags and unit masses repeat by themselves.
    done = invoke(*arguments, "--set", "columns.event_id=3")
    assert done.exit_code == 0, done.output
    np.save(tmp_path / "x.npy", np.c_[rng.integers(100, 180, 3000), rng.integers(0, 2, (3000, 2))].astype(float))
    done = invoke(*arguments)
    assert done.exit_code == 0, done.output


def test_weights_with_signs_sum_to_the_yield(ray_local, tmp_path):
    """A fifth of the weights is -2: the yield is 0.6 of that of the moduli, in the table and in the sidecar."""
    tree = write_delphes(tmp_path / "nlo.root", [different(n, -2.0 if n % 5 == 0 else 2.0) for n in range(50)])
    arguments = ["read", "--config", ROOT / "configs/read/delphes.yaml", "--output", tmp_path / "out", tree]
    refused = invoke(*arguments)
    assert refused.exit_code == 2
    assert "event 0: the weight -2 is negative: weights: one would overcount, weights: sign keeps" in refused.output
    done = invoke(*arguments, "--set", "source.weights=sign")
    assert done.exit_code == 0, done.output
    assert "10 weights are negative: the yield is their sum, 60 (0.600 of that of the moduli)" in done.output
    file = json.loads((tmp_path / "out" / "read.json").read_text())["files"][0]
    assert (file["weight"], file["sum_of_moduli"], file["negative_weights"]) == (60.0, 100.0, 10)
    assert read_events(tmp_path / "out" / "nlo.parquet")["weight"].to_numpy().sum() == 60.0
    page = invoke("report", "--events", tmp_path / "out", "--output", tmp_path / "page")
    assert page.exit_code == 0, page.output


def test_stream_equals_the_plain_reader_whatever_the_pieces(ray_local, tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        np.save(tmp_path / f"{name}.npy", np.c_[rng.normal(size=(500, 3)), rng.integers(0, 2, 500)])
    paths = [str(tmp_path / f"{name}.npy") for name in ("a", "b")]
    found = [collect(paths, Source(chunk_rows=rows), BY_PLACE) for rows in (130, 10_000)]
    plain = [read_features(path, Source(), BY_PLACE) for path in paths]
    for one in found:
        assert (one.event_id == np.arange(1000)).all()
        assert (one.features == np.concatenate([p.features for p in plain])).all()
        assert (one.label == np.concatenate([p.label for p in plain])).all()


def test_one_stream_for_every_kind_of_file(ray_local, tmp_path):
    """A search sees the same events, whichever file they are in."""
    rng = np.random.default_rng(1)
    table = np.c_[rng.normal(size=(300, 3)), rng.integers(0, 2, 300)]
    np.save(tmp_path / "little.npy", table)
    np.save(tmp_path / "big.npy", table.astype(">f8"))
    (tmp_path / "bare.csv").write_text("\n\n".join(" ".join(map(repr, row)) for row in table.tolist()))
    with uproot.recreate(tmp_path / "flat.root") as file:
        file.mkrntuple("events", {name: table[:, k] for k, name in enumerate("abcd")})
    for path in sorted(tmp_path.iterdir()):
        found = collect([str(path)], Source(chunk_rows=70), BY_PLACE)
        assert (found.mass == table[:, 0]).all()
        assert (found.features == table[:, 1:3]).all()
        assert (found.label == (table[:, 3] == 1)).all()
        assert (found.event_id == np.arange(300)).all()


def test_a_bad_value_deep_in_a_file_is_told(ray_local, tmp_path):
    table = np.ones((300, 4))
    table[222, 1] = np.nan
    np.save(tmp_path / "x.npy", table)
    with pytest.raises(UserError, match=r"x\.npy: column '1', row 222: nan is not finite"):
        collect([str(tmp_path / "x.npy")], Source(chunk_rows=100), BY_PLACE)


def test_events_stream_in_the_event_schema(ray_local, tmp_path):
    path = write_delphes(tmp_path / "e.root", [NARROW] * 7)
    source = EventSource(chunk_rows=3)
    parts = list(batches(plan_read([path], source), source))
    assert all(table.schema.equals(EVENT_SCHEMA) for _, table, _ in parts)
    assert np.concatenate([t["event_id"].to_numpy() for _, t, _ in parts]).tolist() == list(range(7))


def test_refusals(tmp_path):
    np.save(tmp_path / "x.npy", np.ones((3, 2)))
    (tmp_path / "y").mkdir()
    np.save(tmp_path / "y" / "x.npy", np.ones((3, 2)))
    config = ["read", "--config", ROOT / "configs/read/delphes.yaml", "--output", tmp_path / "out"]
    for arguments, words in (
        ([*config, tmp_path / "x.npy"], "say which column is what"),
        ([*config, tmp_path / "x.npy", tmp_path / "y" / "x.npy"], "two files are called 'x'"),
        (
            ["read", "--config", ROOT / "configs/lhco/laptop.yaml", "--set", "data.path=x", tmp_path / "x.npy"],
            "expected a file with search: read",
        ),
    ):
        done = invoke(*arguments)
        assert done.exit_code == 2, done.output
        assert words in done.output


def test_raw_lhc_olympics_events_become_a_feature_table(ray_local, tmp_path):
    path = real("readers", "events_anomalydetection_tiny.h5")
    done = invoke("read", "--config", ROOT / "configs/read/lhco.yaml", "--output", tmp_path, "--json", path)
    assert done.exit_code == 0, done.output
    table = pq.read_table(tmp_path / "events_anomalydetection_tiny.parquet")
    assert table.column_names == ["event_id", "mass", "weight", "m_j1", "delta_m", "tau21_1", "tau21_2", "label"]
    assert (table.num_rows, sum(table["label"].to_pylist())) == (1000, 93)
    again = read_features(
        tmp_path / "events_anomalydetection_tiny.parquet",
        Source(),
        Columns(mass="mass", features=["m_j1"], label="label", event_id="event_id"),
    )
    assert len(again) == 1000


def feature_config(folder, **columns):
    path = folder / "read.yaml"
    path.write_text(json.dumps({"search": "read", "output": str(folder / "out"), "columns": columns}))
    return path


def test_nothing_but_skipped_files_is_a_failure(ray_local, tmp_path):
    """Whether a file cannot be opened, lacks a column, or holds a bad value: with nothing left the status is 1."""
    config = feature_config(tmp_path, mass="m", features=["a"])
    (tmp_path / "columns.csv").write_text("m,b\n1,2\n")
    (tmp_path / "late.csv").write_text("m,a\n1,2\n3,x\n")
    (tmp_path / "short.csv").write_text("m,a\n1,2\n3\n")
    (tmp_path / "good.csv").write_text("m,a\n1,2\n3,4\n")
    bad = ["absent.npy", "columns.csv", "late.csv", "short.csv"]
    for names in ([bad[0]], bad[2:], bad):
        done = invoke("read", "--config", config, "--on-error", "skip", *(tmp_path / name for name in names))
        assert done.exit_code == 1, done.output
        assert f"none of {len(names)} files could be read" in done.output
        sidecar = json.loads((tmp_path / "out" / "read.json").read_text())
        assert [s["path"] for s in sidecar["skipped"]] == [str(tmp_path / name) for name in names]
        assert not list((tmp_path / "out").glob("*.parquet"))
    reasons = [s["reason"].split(": ", 1)[1] for s in sidecar["skipped"]]
    assert reasons[1:3] == [
        "column 'a' is missing (present: m, b)",
        "column 'a' has type string, expected numbers: row 1 holds 'x' (line 3)",
    ]
    assert reasons[3].startswith("line 3: 1 values where there are 2 columns")
    done = invoke(
        "read", "--config", config, "--on-error", "skip", *(tmp_path / n for n in ["columns.csv", "good.csv"])
    )
    assert done.exit_code == 0, done.output
    assert pq.read_table(tmp_path / "out" / "good.parquet")["mass"].to_pylist() == [1, 3]


def test_ids_and_rows_of_text_tables_arrive_whole(ray_local, tmp_path):
    """Without a header no row is lost; ids of all 64 bits are written as they are, also where a column changes late."""
    n = 30_000
    ids = [10**16 + 3 * k for k in range(n - 1)] + [2**64 - 1]
    rows = [f"{i};{100 + k % 80};{k}" for k, i in enumerate(ids)]
    rows[-1] = rows[-1].rpartition(";")[0] + ";0.5"
    for name, end in (("one", "\n"), ("two", "\r\r\n"), ("gaps", "\n\n")):
        (tmp_path / f"{name}.csv").write_bytes(end.join(rows).encode())
        config = feature_config(tmp_path, mass=1, features=[2], event_id=0)
        done = invoke("read", "--config", config, tmp_path / f"{name}.csv")
        assert done.exit_code == 0, done.output
        table = pq.read_table(tmp_path / "out" / f"{name}.parquet")
        assert table["event_id"].to_pylist() == ids
        assert table["mass"].to_pylist() == [100 + k % 80 for k in range(n)]
        assert table["2"].to_pylist() == [*range(n - 1), 0.5]
        config = feature_config(tmp_path, mass=1, features=[2])
        assert invoke("read", "--config", config, tmp_path / f"{name}.csv").exit_code == 0
        assert pq.read_table(tmp_path / "out" / f"{name}.parquet")["event_id"].to_pylist() == list(range(n))
    config = feature_config(tmp_path, mass=1, features=[2], event_id=2)
    done = invoke("read", "--config", config, tmp_path / "one.csv")
    assert done.exit_code == 2
    assert "column '2', row 29999: '0.5' is no event id" in done.output
    assert "(line 30000)" in done.output


def test_large_ids_of_a_later_file_decide_the_type_of_all(ray_local, tmp_path):
    for name, ids in (("a", [1, 2]), ("b", [2**63, 4]), ("negative", [-1, 5])):
        column = pa.array(ids, pa.uint64() if ids[0] > 9 else pa.int64())
        pq.write_table(pa.table({"m": [1.0, 2.0], "a": [0.0, 0.0], "id": column}), tmp_path / f"{name}.parquet")
    config = feature_config(tmp_path, mass="m", features=["a"], event_id="id")
    done = invoke("read", "--config", config, *(tmp_path / f"{n}.parquet" for n in "ab"))
    assert done.exit_code == 0, done.output
    columns = Columns(mass="mass", features=["a"], event_id="event_id")
    found = collect([str(tmp_path / "out" / f"{n}.parquet") for n in "ab"], Source(), columns)
    assert found.event_id.tolist() == [1, 2, 2**63, 4]
    done = invoke("read", "--config", config, *(tmp_path / f"{n}.parquet" for n in ["b", "negative"]))
    assert done.exit_code == 2
    assert "negative.parquet: column 'event_id': a negative id, beside ids beyond 2^63" in done.output
