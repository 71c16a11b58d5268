"""Every stage through the real command line, tiny: what a user does, a crash in the middle, and a second run."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypipe.events.schema import tensor_values
from raypipe.events.table import read_table
from tests.conftest import ROOT

pytestmark = pytest.mark.ray

CONFIG = ROOT / "configs" / "contrastive" / "laptop.yaml"
SAMPLES = {
    "yy": 2600,
    "ggf": 300,
    "vbf": 160,
    "vh": 160,
    "tth": 160,
    "wn_150": 300,
    "wn_300": 160,
    "xsh_500_100": 300,
    "zp_400": 160,
}
TINY = [
    *(f"simulate.samples.{name}.events={n}" for name, n in SAMPLES.items()),
    "simulate.samples.yy.embedding_fraction=0.2",
    "simulate.shard_events=1400",
    "pseudodata.luminosity=0.25",
    "embedding.batch_size=32",
    "embedding.steps_per_epoch=6",
    "embedding.epochs=3",
    "embedding.warmup_epochs=1",
    "embedding.encoder.width=16",
    "embedding.encoder.heads=2",
    "embedding.encoder.pair_width=8",
    "flow.members=3",
    "flow.leave_out=1",
    "flow.layers=2",
    "flow.hidden=12",
    "flow.epochs=4",
    "flow.batch_size=128",
    "classifier.folds=3",
    "classifier.rounds=20",
    "selection.working_points=[0.05, 0.02]",
    "scan.strengths=[3.0]",
    "scan.instances=1",
    "scan.background_instances=2",
]


def start(command: str, output: Path, *extra: str, tiny: bool = True) -> subprocess.Popen:
    arguments = [sys.executable, "-m", "raypipe.cli", command, "--config", str(CONFIG), "--output", str(output)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_"))}
    return subprocess.Popen(
        [*arguments, *(TINY if tiny else []), *extra],
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def run(command: str, output: Path, *extra: str, tiny: bool = True) -> subprocess.CompletedProcess:
    process = start(command, output, *extra, tiny=tiny)
    try:
        out, err = process.communicate(timeout=400)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def ledger(output: Path) -> dict[str, list[dict]]:
    """Rows of every trial by key, without what depends on the machine."""
    files = sorted((output / "ledger" / "rows").glob("[!.]*.json"))
    tables = {f.stem: json.loads(f.read_text()) for f in files}
    return {
        key: [{k: repr(v) for k, v in row.items() if not k.startswith("seconds")} for row in rows]
        for key, rows in tables.items()
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, dict]:
    """A whole run, and the summary it printed."""
    folder = tmp_path_factory.mktemp("run")
    output = folder / "demo"
    done = run("scan", output, "--json", f"resources.artefacts={folder / 'shared'}")
    assert done.returncode == 0, done.stderr[-3000:]
    (folder / "screen.txt").write_text(done.stderr)
    return output, json.loads(done.stdout)


OURS = re.compile(
    r"(simulate|train encoder id 0|embed events id 0|train flows|scan): \d"  # progress
    r"| +raypipe: | +injected +cut| +(no signal|xsh_500_100|wn_150) |† The error is"  # the table
    r"|Mean significance |Tuned: |Without a signal: |(xsh_500_100|wn_150) at S/√B|Background where |Closure AUC "
    r"|Stages: |Report: |scan: /.*, 4 trials to run$|report: /.*, 8 rows$"
)


def test_nothing_but_our_own_lines_is_on_the_screen(finished):
    """No warning and no news of Ray, MLflow or any other library."""
    lines = (finished[0].parent / "screen.txt").read_text().splitlines()
    assert lines.pop(0) == f"scan: {finished[0]}, which keeps all that is finished"  # before anything is loaded
    assert [line for line in lines if not OURS.match(line)] == []
    assert lines[-1] == f"Report: {finished[0] / 'report.html'}"
    assert any(line.startswith("scan: 4 of 4 done") for line in lines)


def test_summary_has_what_people_quote(finished):
    output, printed = finished
    summary = json.loads((output / "summary.json").read_text())
    assert summary == printed
    assert [(r["signal"], r["strength"], r["instances"]) for r in summary["results"]] == [
        ("none", 0.0, 2),
        ("xsh_500_100", 3.0, 1),
        ("wn_150", 3.0, 1),
    ]
    for entry in summary["results"]:
        assert {"mean", "standard_error"} <= set(entry["z_before"])
        assert {"mean", "standard_error"} <= set(entry["z_after"])
        assert (entry["sic"] is None) == (entry["signal"] == "none")
    assert 0.3 < summary["closure_auc"]["mean"] < 0.7
    assert {"simulate", "encoder", "latents", "trial"} <= set(summary["stage_seconds"])
    assert sum(summary["stage_share"].values()) == pytest.approx(1)
    assert 0.2 < summary["peak_rss_gib"] < 8
    assert summary["failed_trials"] == []
    assert {"ray", "torch", "xgboost", "pythia8mc"} <= set(summary["versions"])
    assert len(summary["config_hash"]) == 20


def test_event_files_keep_the_contract(finished):
    output, _ = finished
    from raypipe.events.table import read_table

    manifest = json.loads((output / "events" / "dataset.json").read_text())
    ids = []
    for name, sample in manifest["samples"].items():
        assert sample["n"] >= SAMPLES[name]
        for split in ("embedding", "search"):
            table = read_table(output / "events" / split / f"{name}.parquet")
            assert set(table["split"].to_pylist()) == {split}
            assert sum(table["weight"].to_pylist()) == pytest.approx(sample["yield_per_fb"], rel=1e-6)
            ids.append(table["event_id"].to_numpy())
    assert len(np.unique(np.concatenate(ids))) == sum(map(len, ids))
    latents = pq.read_table(output / "encoder" / "latents.parquet")
    assert (latents["event_id"].to_numpy() == np.sort(np.concatenate(ids))).all()
    assert np.isfinite(tensor_values(latents["latent"])).all()


def test_page_is_self_contained(finished):
    output, summary = finished
    page = (output / "report.html").read_text()
    assert 'src="http' not in page
    assert "<script" not in page
    assert page.count("<svg ") == page.count("data:text/csv") >= 7
    for words in ("Without a signal", "xsh_500_100", "Closure AUC", "Where the time went", summary["config_hash"]):
        assert words in page
    for name in ("significances", "sic", "closure", "masses_signal", "latents_signal", "encoder_training"):
        assert (output / "figures" / f"{name}.svg").read_text().startswith("<?xml")
        assert (output / "figures" / f"{name}.csv").read_text().startswith("# panel 1: ")


def test_mlflow_holds_parameters_metrics_and_models_that_load(finished):
    import mlflow
    from mlflow.tracking import MlflowClient

    from raypipe.cluster.train import load_encoder
    from raypipe.fit.encoder import embed

    output, summary = finished
    uri = f"sqlite:///{output / 'mlflow.db'}"
    run_id = json.loads((output / "tracking.json").read_text())["run_id"]
    client = MlflowClient(uri)
    recorded = client.get_run(run_id)
    assert recorded.info.status == "FINISHED"
    assert recorded.data.params["flow.epochs"] == "4"
    assert recorded.data.metrics["closure_auc"] == pytest.approx(summary["closure_auc"]["mean"])
    assert len(client.get_metric_history(run_id, "encoder.loss")) == 3
    children = client.search_runs([recorded.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run_id}'")
    assert {run.info.run_name for run in children} == {"none/id", "xsh_500_100/id", "wn_150/id"}
    assert {m.name for m in client.search_registered_models()} == {"raypipe-encoder", "raypipe-flow"}
    previous = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:
        models = {m.name: m for m in client.search_logged_models([recorded.info.experiment_id])}
        assert set(models) == {"encoder", "flow"}
        table = pq.read_table(output / "events" / "search" / "tth.parquet").slice(0, 20)
        inputs = {
            "objects": tensor_values(table["objects"]),
            "event": np.stack([table["pt_yy"].to_numpy(), table["dr_yy"].to_numpy()], 1),
        }
        served = mlflow.pyfunc.load_model(f"models:/{models['encoder'].model_id}")
        latents = served.predict(inputs)
        means, _ = embed(load_encoder(output / "encoder")[0], list(inputs.values()))
        np.testing.assert_allclose(latents, means, rtol=1e-5)
        flow = mlflow.pyfunc.load_model(f"models:/{models['flow'].model_id}")
        density = flow.predict({"latent": latents, "mass": np.full(20, 125.0)})
        assert np.isfinite(density).all()
        assert served.metadata.signature.inputs.input_names() == ["objects", "event"]
    finally:
        mlflow.set_tracking_uri(previous)
    assert not list((output / "mlartifacts").rglob("*.pkl"))


def test_second_run_reuses_everything(finished):
    output, first = finished
    stamps = {f: f.stat().st_mtime_ns for f in output.rglob("*.parquet")}
    began = time.monotonic()
    again = run("scan", output, "--json")
    assert again.returncode == 0, again.stderr[-3000:]
    assert time.monotonic() - began < 60
    assert {f: f.stat().st_mtime_ns for f in output.rglob("*.parquet")} == stamps
    summary = json.loads(again.stdout)
    assert summary["results"] == first["results"]
    assert summary["stage_seconds"]["simulate"] == first["stage_seconds"]["simulate"]


def test_another_output_folder_trains_nothing_and_has_the_same_rows(finished, tmp_path):
    output, first = finished
    shared = output.parent / "shared"
    kinds = {path.name: len(list(path.iterdir())) for path in shared.iterdir()}
    # Ray Train's own folder is empty: its checkpoints go once the flows are made.
    assert kinds == {"shards": kinds["shards"], "encoder": 1, "latents": 1, "stages": 1, "train": 0}
    assert kinds["shards"] >= len(SAMPLES)
    stamps = {f: f.stat().st_mtime_ns for f in shared.rglob("*.*")}
    done = run("scan", tmp_path / "other", "--json", f"resources.artefacts={shared}", "tracking.enabled=false")
    assert done.returncode == 0, done.stderr[-3000:]
    summary = json.loads(done.stdout)
    assert {"encoder", "latents"}.isdisjoint(summary["stage_seconds"])
    assert summary["results"] == first["results"]
    assert ledger(tmp_path / "other") == ledger(output)
    assert {f: f.stat().st_mtime_ns for f in shared.rglob("*.*")} == stamps
    assert len(list((shared / "stages" / "flow").iterdir())) == 2  # one a pseudo-data set, whatever is injected
    for name in ("encoder.pt", "latents.parquet"):
        assert (tmp_path / "other" / "encoder" / name).samefile(output / "encoder" / name)


def test_killed_scan_goes_on_and_one_worker_gives_the_bits_of_two(finished, tmp_path):
    """The undisturbed run had two cores. This one has one, is killed after its first trial, and goes on with two."""
    output, _ = finished
    other = tmp_path / "killed"
    for part in ("events", "encoder"):
        shutil.copytree(output / part, other / part)
    process = start("scan", other, "resources.cpus=1")
    rows = other / "ledger" / "rows"
    deadline = time.monotonic() + 200
    while not list(rows.glob("[!.]*.json")):
        assert process.poll() is None, process.communicate()[1][-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    time.sleep(3)  # Ray's workers notice that their driver is gone
    kept = {f: f.stat().st_mtime_ns for f in rows.glob("[!.]*.json")}
    assert 0 < len(kept) < 4
    done = run("scan", other)
    assert done.returncode == 0, done.stderr[-3000:]
    assert {f: f.stat().st_mtime_ns for f in kept} == kept
    assert ledger(other) == ledger(output)


def test_scan_with_another_encoder_alone_has_a_report(finished, tmp_path):
    """Without the embedding ``id`` the report shows the encoder there is; two strengths make required injections."""
    output, _ = finished
    other = tmp_path / "background"
    shutil.copytree(output / "events", other / "events")
    done = run(
        "scan",
        other,
        "--json",
        "tracking.enabled=false",
        "scan.embeddings=[background]",
        "scan.signals=[wn_150]",
        "scan.background_instances=0",
        "scan.strengths=[2.0, 3.0]",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    summary = json.loads(done.stdout)
    assert [(e["embedding"], e["strength"]) for e in summary["results"]] == [("background", 2.0), ("background", 3.0)]
    assert [(e["signal"], e["working_point"]) for e in summary["required"]] == [("wn_150", 0.05), ("wn_150", 0.02)]
    assert not (other / "encoder").exists()
    page = (other / "report.html").read_text()
    assert "S/√B for 5σ, cut at 2.0%" in page
    assert (other / "figures" / "required.svg").read_text().startswith("<?xml")


def test_single_search_is_the_same_trial(finished):
    output, summary = finished
    done = run("search", output, "--json", "--signal", "wn_150", "--strength", "3", "--instance", "0")
    assert done.returncode == 0, done.stderr[-3000:]
    row = json.loads(done.stdout)[0]
    quoted = next(r for r in summary["results"] if r["signal"] == "wn_150")
    assert row["z_after"] == quoted["z_after"]["mean"]


BACKGROUND = """
from dataclasses import replace

from raypipe.search.base import background
from raypipe.search.truth import idealised


@background("doubled")
def doubled(case, config, seed, tools):
    found = idealised(case, config, seed, tools)
    more = replace(found.template, weight=2 * found.template.weight, continuum=2 * found.template.continuum)
    return replace(found, template=more)
"""


def test_a_background_of_ones_own_is_one_function(finished, tmp_path, monkeypatch):
    output, _ = finished
    other = tmp_path / "run"
    for part in ("events", "encoder"):
        shutil.copytree(output / part, other / part)
    (tmp_path / "twice_the_background.py").write_text(BACKGROUND)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("RAYPIPE_PLUGINS", "twice_the_background")
    grid = ["scan.methods=[idealised, doubled]", "scan.signals=[wn_150]", "scan.background_instances=0"]
    done = run("scan", other, "--json", *grid, "tracking.enabled=false")
    assert done.returncode == 0, done.stderr[-3000:]
    entries = {e["method"]: e for e in json.loads(done.stdout)["results_all_working_points"]}
    assert set(entries) == {"idealised", "doubled"}
    assert entries["doubled"]["sic"] == entries["idealised"]["sic"]  # the cut is the same, its expectation twice
    assert entries["doubled"]["expected_after"]["mean"] == pytest.approx(
        2 * entries["idealised"]["expected_after"]["mean"]
    )
    page = (other / "report.html").read_text()
    assert "doubled" in page
    monkeypatch.delenv("RAYPIPE_PLUGINS")
    refused = run("scan", other, *grid)
    assert (refused.returncode, "scan.methods.1 = 'doubled': unknown; known are" in refused.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["scan", "pseudodata.luminosity=-3"], "pseudodata.luminosity = -3"),
        (["scan", "flow.epoch=3"], "unknown key 'flow.epoch'"),
        (["search", "--signal", "wn_300", "--strength", "1"], "--signal 'wn_300' is not in scan.signals"),
        (["search", "--signal", "wn_150"], "a signal needs a positive strength"),
    ],
)
def test_bad_arguments_are_one_line(tmp_path, arguments, words):
    done = run(arguments[0], tmp_path / "x", *arguments[1:], tiny=False)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_bad_files_are_one_line(finished, tmp_path):
    output, _ = finished
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    done = run("scan", blocked / "run")
    assert done.returncode == 2
    assert "cannot create this folder" in done.stderr

    done = run("report", tmp_path / "empty")
    assert done.returncode == 2
    assert "nothing to report yet" in done.stderr

    damaged = tmp_path / "damaged"
    shutil.copytree(output / "events", damaged / "events")
    target = damaged / "events" / "embedding" / "vh.parquet"
    good = target.read_bytes()
    target.write_bytes(good[:100] + bytes(len(good) - 100))  # same size, so that only reading can tell
    done = run("embed", damaged)
    assert done.returncode == 2
    assert "vh.parquet: not a readable Parquet file" in done.stderr.strip().splitlines()[-1]

    nan = tmp_path / "nan"
    shutil.copytree(output / "encoder", nan / "encoder")
    shutil.copytree(output / "events", nan / "events")
    path = nan / "encoder" / "latents.parquet"
    table = pq.read_table(path)
    masses = table["m_yy"].to_numpy().copy()
    masses[5] = np.nan
    from raypipe.events.table import write_table
    from raypipe.files import file_digest, read_json, write_json

    write_table(table.set_column(table.column_names.index("m_yy"), "m_yy", pa.array(masses)), path)
    record = read_json(nan / "encoder" / "latents.json")
    write_json(nan / "encoder" / "latents.json", record | {"digest": file_digest(path)})
    done = run("scan", nan)
    assert done.returncode == 2
    assert "latents.parquet: column 'm_yy', row 5: nan is not finite" in done.stderr.strip().splitlines()[-1]


def test_calibrate_makes_nothing_twice_and_the_report_shows_it(finished, tmp_path):
    output, summary = finished
    shared = f"resources.artefacts={output.parent / 'shared'}"
    mine = tmp_path / "calibrated"
    shutil.copytree(output, mine)
    before = ledger(mine)
    asked = ("--nulls", "10", "--smallest-p", "0.1", "--retrain", "1", "--json", shared)
    first = run("calibrate", mine, *asked)
    assert first.returncode == 0, first.stderr[-3000:]
    made = ledger(mine)
    assert len(made) == len(before) + 10 + 1
    assert {path.stem for path in (mine / "ledger" / "arrays").iterdir()} == before.keys()  # nulls have none
    more = run("calibrate", mine, *asked)
    assert more.stdout == first.stdout
    assert ledger(mine) == made  # nothing is made twice
    told = json.loads(more.stdout)
    assert [(of["reported"], of["nulls"] <= 10) for of in told["tails"]] == 3 * [(0.1, True)]
    assert Path(told["path"]).is_file()
    assert "reported p" in more.stderr

    done = run("report", mine, "--json", shared)
    assert done.returncode == 0, done.stderr[-3000:]
    shown = json.loads(done.stdout)
    assert "z_calibrated" in shown["results"][0]
    assert "z calibrated" in done.stderr
    assert "<h2>Calibration</h2>" not in (output / "report.html").read_text()
    assert "<h2>Calibration</h2>" in (mine / "report.html").read_text()
    assert shown["results"][0]["z_after"] == summary["results"][0]["z_after"]


def test_other_worlds_are_searched_beside_the_nominal_one(finished):
    """Same pseudo-data sets and encoder; the page tells what they change."""
    output, _ = finished
    where, shared = output.parent / "worlds", output.parent / "shared"
    done = run("scan", where, "--json", f"resources.artefacts={shared}", "scan.variations=[photon_scale, higgs_yield]")
    assert done.returncode == 0, done.stderr[-3000:]
    found, nominal = ledger(where), ledger(output)
    assert {key: found[key] for key in nominal} == nominal
    assert len(found) == 3 * len(nominal)
    entries = json.loads(done.stdout)["worlds"]
    assert {e["world"] for e in entries} == {"photon_scale", "higgs_yield"}
    assert all(len(e["z_bias"]["values"]) == e["instances"] for e in entries if e["z_bias"])
    assert "Other worlds" in (where / "report.html").read_text()
    ids = lambda folder: read_table(folder / "latents.parquet", ["event_id", "split"])  # noqa: E731
    assert set(ids(where / "worlds" / "photon_scale" / "encoder")["split"].to_pylist()) == {"search"}
    refused = run("scan", where, "scan.variations=[mpi]")
    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1
    assert "scan.variations" in refused.stderr
