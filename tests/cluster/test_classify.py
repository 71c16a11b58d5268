"""`raypipe classify` and `raypipe search` on tables, through the command line."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
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
        "classify", "--data", files / "data.npy", "--background", files / "background.npy", "--only-background",
        "--score", files / "score.npy", "--score", files / "background.npy", "--mass", "0", *FAST,
        "--output", tmp_path / "s.parquet", "--json",
    )  # fmt: skip
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


def test_formats_mix_where_the_names_agree(ray_local, files, tmp_path):
    done = invoke(
        "classify", "--data", files / "data.parquet", "--background", files / "background.csv", "--score",
        files / "data.parquet", "--mass", "mass", *FAST, "--output", tmp_path / "s.parquet",
    )  # fmt: skip
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


def test_search_on_a_table(ray_local, tmp_path, monkeypatch):
    from mlflow.tracking import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    np.save(tmp_path / "toy.npy", toy_table(8000, 80, 8))
    arguments = ["search", "--config", ROOT / "configs/lhco/laptop.yaml", "--output", tmp_path / "run", "--json"]
    overrides = [*OVERRIDES, f"data.path={tmp_path / 'toy.npy'}", "flow.epochs=3", "resources.cpus=2"]
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
