"""`raypipe classify` and `raypipe search` on tables, through the command line."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import uproot
from click.testing import CliRunner

from raypipe.cli import main
from raypipe.fit.classify import classify, contest_of
from tests.conftest import ROOT
from tests.fit.test_classify import SMALL
from tests.search.test_table import OVERRIDES
from tests.search.toys import toy_table

pytestmark = pytest.mark.ray

FAST = ["--folds", "4", "--ensemble", "2", "--rounds", "20", "--leaves", "16"]


def invoke(*arguments: str):
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    tables = {"data": toy_table(3000, 60, 1), "background": toy_table(3000, 30, 2), "score": toy_table(1500, 300, 3)}
    for name, table in tables.items():
        np.save(folder / f"{name}.npy", table)
    np.save(folder / "narrow.npy", tables["score"][:, 1:3])
    names = ("mass", "a", "b", "label")
    pq.write_table(pa.table(dict(zip(names, tables["data"].T, strict=True))), folder / "data.parquet")
    with open(folder / "background.csv", "w") as handle:
        np.savetxt(handle, tables["background"], delimiter=",", header=",".join(names), comments="")
    return folder


def test_classify_writes_scores_and_a_summary(ray_local, files, tmp_path):
    done = invoke(
        "classify",
        "--data",
        files / "data.npy",
        "--background",
        files / "background.npy",
        "--only-background",
        "--score",
        files / "score.npy",
        "--score",
        files / "background.npy",
        "--mass",
        "0",
        *FAST,
        "--output",
        tmp_path / "s.parquet",
        "--json",
    )
    assert done.exit_code == 0, done.output
    table = pq.read_table(tmp_path / "s.parquet")
    assert table.column_names == ["row", "file", "score", "background_percentile", "out_of_fold", "mass", "label"]
    assert table.num_rows == 1800 + 3030
    summary = json.loads((tmp_path / "s.json").read_text())
    assert summary["features"] == ["1", "2"]  # the label was found and left out
    assert summary["label"] == "3"
    assert summary["files"]["background"]["events"] == 3000
    assert summary["scored_out_of_fold"] == 3000
    assert summary["evaluation"]["signal"] == 330
    assert summary["evaluation"]["auc"] > 0.8
    # The cluster computes what the pure function does.
    arrays = {k: np.load(files / f"{k}.npy") for k in ("data", "background", "score")}
    pure = arrays["background"][arrays["background"][:, 3] == 0][:, 1:3]
    score = np.r_[arrays["score"], arrays["background"]][:, 1:3]
    expected = classify(contest_of(arrays["data"][:, 1:3], pure, score, _like(summary), seed=1))
    assert (table["score"].to_numpy() == expected.score).all()


def _like(summary: dict):
    return SMALL.model_validate(summary["classifier"])


def test_workers_train_every_fit_together(ray_local, tmp_path):
    """Two actors share the rows of each fit; the scores tell signal from background as those of one process do."""
    rng, arguments = np.random.default_rng(5), ["classify", "--folds", "2", "--ensemble", "1", "--leaves", "16"]
    for name, signal in (("data", 2400), ("background", 0), ("score", 1500)):
        truth = np.arange(3000) < signal
        np.save(tmp_path / f"{name}.npy", np.c_[rng.normal(0.7 * truth[:, None], 1, (3000, 2)), truth])
        arguments += [f"--{name}", tmp_path / f"{name}.npy"]
    found = {}
    for workers, more in ((None, []), (2, ["--workers", "2"])):
        done = invoke(*arguments, "--features", "0,1", *more, "--output", tmp_path / "out" / "s.parquet")
        assert done.exit_code == 0, done.output
        found[workers] = json.loads((tmp_path / "out" / "s.json").read_text())
        assert found[workers]["workers"] == workers
    assert [summary["classifier"]["engine"] for summary in found.values()] == ["xgboost", "xgboost_ray"]
    alone, together = (found[workers]["evaluation"] for workers in (None, 2))
    assert 0.72 < alone["auc"] < 0.758 + 2 * alone["auc_error"]  # Phi(0.7) = 0.758 at best
    assert abs(together["auc"] - alone["auc"]) < alone["auc_error"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["s.json", "s.parquet"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--workers", "64"], "64 workers for the trees: the cluster has cores for 2"),
        (["--workers", "1"], "1 is not in the range x>=2"),
        (["--engine", "ray_train"], "--engine ray_train: says nothing without --workers N"),
    ],
)
def test_workers_that_make_no_sense_are_one_line(ray_local, files, tmp_path, more, words):
    named = [part for name in ("data", "background", "score") for part in (f"--{name}", files / f"{name}.npy")]
    done = invoke("classify", *named, "--output", tmp_path / "s.parquet", *more)
    assert done.exit_code == 2, done.output
    assert words in done.output
    assert len(done.output.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_formats_mix_where_the_names_agree(ray_local, files, tmp_path):
    done = invoke(
        "classify",
        "--data",
        files / "data.parquet",
        "--background",
        files / "background.csv",
        "--score",
        files / "data.parquet",
        "--mass",
        "mass",
        *FAST,
        "--output",
        tmp_path / "s.parquet",
    )
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "s.json").read_text())["features"] == ["a", "b"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"--background": "background.csv"}, "share no feature column"),
        ({"--score": "narrow.npy"}, "the tables have 3, 3, 2 columns without names"),
        ({"--features": "1,9"}, "column 9 is missing (the file has 4 columns)"),
        ({"--label": "truth"}, "'truth' (--label) is in none of the tables"),
        ({"--score": "absent.npy"}, "absent.npy: no such file"),
        ({"--format": "excel"}, "--format 'excel'"),
        ({"--mass": "17"}, "column 17"),
    ],
)
def test_bad_requests_are_one_line(files, tmp_path, change, words):
    arguments = {"--data": "data.npy", "--background": "background.npy", "--score": "score.npy"} | change
    for key in ("--data", "--background", "--score"):
        arguments[key] = str(files / arguments[key])
    flat = [part for pair in arguments.items() for part in pair]
    done = invoke("classify", *flat, "--output", tmp_path / "s.parquet")
    assert done.exit_code == 2, done.output
    assert words in done.output
    assert len(done.output.strip().splitlines()) == 1


def test_one_table_cannot_be_both_classes(files, tmp_path):
    """Nor can a copy of it under another name or in another format; two tables of one file can."""
    with open(tmp_path / "copy.csv", "w") as handle:
        handle.write((files / "background.csv").read_text())
    pq.write_table(pa.csv.read_csv(files / "background.csv"), tmp_path / "same.parquet")
    rest = ["--score", files / "background.csv", "--output", tmp_path / "s.parquet", *FAST]
    for other in (files / "background.csv", tmp_path / "copy.csv", tmp_path / "same.parquet"):
        for data, background in (([other], [files / "background.csv"]), ([files / "data.parquet", other], [other])):
            named = [part for k, v in (("--data", data), ("--background", background)) for f in v for part in (k, f)]
            done = invoke("classify", *named, *rest)
            assert done.exit_code == 2, done.output
            assert "its events are data" in done.output
            assert "--background-key" in done.output
            assert len(done.output.strip().splitlines()) == 1


@pytest.mark.parametrize("kind", ["root", "h5"])
def test_tables_of_one_file_are_the_classes(ray_local, files, tmp_path, kind):
    """Each class has a key of its own; the same tables in files of their own give the same scores."""
    rng = np.random.default_rng(1)
    tables = {"sr": rng.normal(0.5, 1, (800, 2)), "sb": rng.normal(0, 1, (900, 2)), "new": rng.normal(0, 1, (300, 2))}
    path = tmp_path / f"all.{kind}"
    if kind == "root":
        with uproot.recreate(path) as file:
            for name, values in tables.items():
                file.mktree(name, {"a": "float64", "b": "float64"})
                file[name].extend({"a": values[:, 0], "b": values[:, 1]})
    else:
        with h5py.File(path, "w") as file:
            for name, values in tables.items():
                file[name] = values
    keys = ["--data-key", "sr", "--background-key", "sb", "--key", "new"]
    one = ["classify", "--data", path, "--background", path, "--score", path, *FAST]
    one += ["--output", tmp_path / "one.parquet"]
    done = invoke(*one, *keys, "--json")
    assert done.exit_code == 0, done.output
    summary = json.loads((tmp_path / "one.json").read_text())
    assert {name: (f["key"], f["events"]) for name, f in summary["files"].items()} == {
        "data": ("sr", 800),
        "background": ("sb", 900),
        "score": ("new", 300),
    }
    assert summary["auc_data_background"] == pytest.approx(0.69, abs=0.05)  # Phi(0.5), less what few events cost
    expected = classify(contest_of(tables["sr"], tables["sb"], tables["new"], _like(summary), seed=1))
    assert pq.read_table(tmp_path / "one.parquet")["score"].to_numpy() == pytest.approx(expected.score, abs=1e-9)
    for same in (["--key", "sr"], ["--data-key", "sr", "--background-key", "sr", "--score-key", "new"]):
        refused = invoke(*one, *same)
        assert refused.exit_code == 2
        assert "its events are data" in refused.output


def test_weights_count_in_fits_shares_auc_and_evaluation(ray_local, tmp_path):
    """One half of the data lies at 2 and has weight 9, the other at 0 like the background and has weight 1."""
    rng = np.random.default_rng(2)
    x = np.r_[rng.normal(2, 1, 1500), rng.normal(0, 1, 1500)]
    np.save(tmp_path / "data.npy", np.c_[x, np.repeat([9.0, 1.0], 1500), np.repeat([1, 0], 1500)])
    np.save(tmp_path / "background.npy", np.c_[rng.normal(0, 1, 3000), np.ones(3000), np.zeros(3000)])
    arguments = [
        "classify",
        "--data",
        tmp_path / "data.npy",
        "--background",
        tmp_path / "background.npy",
        *FAST,
        "--score",
        tmp_path / "data.npy",
        "--features",
        "0",
        "--label",
        "2",
        "--output",
        tmp_path / "s.parquet",
    ]
    found = {}
    for name, more in (("weighted", ["--weight", "1"]), ("plain", [])):
        done = invoke(*arguments, *more)
        assert done.exit_code == 0, done.output
        found[name] = json.loads((tmp_path / "s.json").read_text())
    far = 0.9214  # Phi(2 / sqrt 2)
    assert found["weighted"]["auc_data_background"] == pytest.approx(0.9 * far + 0.05, abs=0.02)
    assert found["plain"]["auc_data_background"] == pytest.approx(0.5 * far + 0.25, abs=0.03)
    assert 0.003 < found["weighted"]["auc_error"] < 0.01
    missing = invoke(*arguments, "--weight", "7")
    assert missing.exit_code == 2
    assert "column 7 is missing" in missing.output


def test_negative_weights_are_refused_or_meant(ray_local, tmp_path):
    rng = np.random.default_rng(3)
    np.save(tmp_path / "data.npy", np.c_[rng.normal(0, 1, (1000, 2)), np.ones(1000)])
    signs = np.where(np.arange(3000) % 5 == 0, -1.0, 1.0)
    np.save(tmp_path / "nlo.npy", np.c_[rng.normal(0, 1, (3000, 2)), signs])
    arguments = [
        "classify",
        "--data",
        tmp_path / "data.npy",
        "--background",
        tmp_path / "nlo.npy",
        "--score",
        tmp_path / "nlo.npy",
        "--features",
        "0,1",
        "--output",
        tmp_path / "s.parquet",
        *FAST,
    ]
    refused = invoke(*arguments, "--weight", "2")
    assert refused.exit_code == 2
    assert "column 2, row 0: the weight -1 is negative: --weights sign keeps the signs" in refused.output
    lonely = invoke(*arguments, "--weights", "sign")
    assert lonely.exit_code == 2
    assert "--weights sign: says nothing without --weight COL" in lonely.output
    done = invoke(*arguments, "--weight", "2", "--weights", "sign")
    assert done.exit_code == 0, done.output
    summary = json.loads((tmp_path / "s.json").read_text())
    assert summary["notes"] == [
        "background: 20.00% of the weights are negative; the yield is their sum, 0.600 of that of the moduli; trees "
        "take averages over nearest events"
    ]
    percentile = pq.read_table(tmp_path / "s.parquet")["background_percentile"].to_numpy()
    assert signs[percentile <= 0.3].sum() / signs.sum() == pytest.approx(0.3, abs=0.01)
    assert summary["auc_data_background"] == pytest.approx(0.5, abs=4 * summary["auc_error"])


def test_repeated_events_are_told(ray_local, files, tmp_path):
    table = np.load(files / "data.npy")
    np.save(tmp_path / "twice.npy", np.concatenate([table, table[:500]]))
    done = invoke(
        "classify",
        "--data",
        tmp_path / "twice.npy",
        "--background",
        files / "background.npy",
        "--score",
        files / "score.npy",
        "--mass",
        "0",
        *FAST,
        "--output",
        tmp_path / "s.parquet",
    )
    assert done.exit_code == 0, done.output
    notes = json.loads((tmp_path / "s.json").read_text())["notes"]
    assert notes == ["data: 500 events repeat an earlier one: each is held out with it"]


def test_the_search_refuses_repeated_events_and_data_as_background(ray_local, tmp_path):
    """Rows are named by file; a file given twice, the same events in two files, the data as their own background."""
    table = toy_table(3000, 0, 8)
    np.save(tmp_path / "a.npy", table)
    np.save(tmp_path / "b.npy", np.concatenate([toy_table(2000, 0, 9), table[:100]]))
    common = ["search", "--config", ROOT / "configs/lhco/laptop.yaml", "--output", tmp_path / "run", *OVERRIDES]
    a, b = tmp_path / "a.npy", tmp_path / "b.npy"
    for more, words in (
        (
            [f"data.path=[{a}, {b}]"],
            f"100 of 5100 events (1.96%) repeat an earlier one in all columns: {b} row 2000 = "
            f"{a} row 0, {b} row 2001 = {a} row 1",
        ),
        ([f"data.path=[{a}, {a}]"], f"3000 of 6000 events (50.00%) repeat an earlier one in all columns: {a} row 0 = "),
        ([f"data.path={a}", f"background.path={a}"], f"background.path: {a} holds the data"),
        ([f"data.path={a}", "data.duplicates=some"], "data.duplicates"),
    ):
        done = invoke(*common, *more)
        assert done.exit_code == 2, done.output
        assert words in done.output.splitlines()[-1]
    done = invoke(*common, f"data.path=[{a}, {b}]", "data.duplicates=drop", "flow.epochs=2")
    assert done.exit_code == 0, done.output
    assert "100 events repeat an earlier one: dropped" in done.output
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["rows"][0]["repeated"] == 100


def test_search_on_a_table(ray_local, tmp_path, monkeypatch):
    from mlflow.tracking import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    np.save(tmp_path / "toy.npy", toy_table(8000, 80, 8))
    arguments = ["search", "--config", ROOT / "configs/lhco/laptop.yaml", "--output", tmp_path / "run", "--json"]
    overrides = [
        *OVERRIDES,
        "tracking.enabled=true",
        f"data.path={tmp_path / 'toy.npy'}",
        "flow.epochs=3",
        "resources.cpus=2",
    ]
    done = invoke(*arguments, *overrides)
    assert done.exit_code == 0, done.output
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    row = summary["rows"][0]
    assert row["sic"] > 1
    scores = pq.read_table(tmp_path / "run" / "scores.parquet")
    assert scores.column_names == ["event_id", "mass", "score", "background_percentile", "label"]
    assert scores.num_rows == row["n_before"]
    assert (scores["background_percentile"].to_numpy() <= 0.02).sum() == row["n_after"]
    found = json.loads((tmp_path / "run" / "tracking.json").read_text())
    recorded = MlflowClient(found["uri"]).get_run(found["run_id"]).data
    assert recorded.metrics["z_after.wp0.02"] == pytest.approx(row["z_after"])
    assert recorded.params["flow.epochs"] == "3"
    assert len(list((tmp_path / "run" / "mlartifacts").rglob("flow.pt"))) == 1
    stamp = (tmp_path / "run" / "scores.parquet").stat().st_mtime_ns
    again = invoke(*arguments, *overrides)
    assert again.exit_code == 0
    assert (tmp_path / "run" / "scores.parquet").stat().st_mtime_ns == stamp
    elsewhere = [*overrides, f"resources.storage=file://{tmp_path}/store", "tracking.enabled=false"]
    assert invoke(*arguments, *elsewhere, "--output", tmp_path / "second").exit_code == 0
    assert len(list((tmp_path / "store" / "rows").iterdir())) == 1
    assert not (tmp_path / "second" / "ledger").exists()
    refused = invoke(*arguments, *overrides, "resources.artefacts=/shared")
    assert "resources.artefacts: does not apply" in refused.output
    refused = invoke(*arguments, *overrides, "data.path=/nowhere.h5")
    assert refused.exit_code == 2
    assert "/nowhere.h5: no such file" in refused.output
