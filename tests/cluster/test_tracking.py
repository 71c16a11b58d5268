"""MLflow as a window on a scan: one parent, one child a group, models that load, on a file and on a server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import traceback
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from raypipe.cli.base import Commands
from raypipe.cluster.tracking import record, record_report, sqlite_path
from raypipe.config import load_config
from raypipe.errors import UserError
from raypipe.files import write_json
from raypipe.fit.vae import FeatureVae
from raypipe.report import contrastive, haxad
from raypipe.report.base import Report, curves_of
from raypipe.report.summary import build_summary
from raypipe.search.base import Found, Search, Served
from raypipe.search.result import Trial
from raypipe.store.files import Store
from raypipe.store.ledger import Ledger
from tests.cluster.head import free_ports
from tests.conftest import ROOT
from tests.fit.fits import fit_flows
from tests.search.test_contrastive import OVERRIDES


def rows_of_a_scan() -> list[dict]:
    """Two signals at three strengths, two instances, one working point; z is ten times the strength."""
    values = (
        "z_before",
        "sic",
        "truth_before",
        "truth_after",
        "auc",
        "n_after",
        "expected_after",
        "kappa",
        "background_efficiency",
        "signal_efficiency",
    )
    return [
        {
            "status": "ok",
            "key": f"{signal}{strength}{i}",
            "signal": signal,
            "strength": strength,
            "instance": i,
            "embedding": "id",
            "method": "cathode",
            "working_point": 0.01,
            "z_after": 10 * strength + i,
            "closure_auc": 0.5,
            **dict.fromkeys(values, 1.0),
        }
        for signal in ("wn_150", "zp_400")
        for strength in (0.5, 1.0, 2.0)
        for i in (0, 1)
    ]


def summary_of(rows: list[dict]) -> dict:
    return build_summary(rows, working_point=0.01, target=5.0)


def recorded(config, report: Report, rows: list[dict], **models: Served) -> str | None:
    """Record a scan with these models; the MLflow run id."""

    class Told(Search):
        def served(self, found, flow):
            return models

    keys = [row["key"] for row in rows]
    folder = Path(config.output)
    found = Found(folder, dict.fromkeys(keys), rows, dict, {}, {"trial": 1.0}, 1.0, 0, "d")
    (folder / "summary.json").write_text("{}")
    summary = {"code": "d", "keys": keys, "config_hash": "c", "stage_seconds": {"trial": 1.0}, "peak_rss_gib": 1.0}
    record_report(Told(config), found, report, summary, None)
    marker = folder / "tracking.json"
    return json.loads(marker.read_text())["run_id"] if marker.exists() else None


def test_curves_have_the_strength_as_step():
    groups = curves_of(summary_of(rows_of_a_scan())["results_all_working_points"], contrastive.CURVES)
    assert set(groups) == {"wn_150/id", "zp_400/id"}
    curve = {step: value for name, value, step in groups["zp_400/id"] if name == "z_after.wp0.01"}
    assert curve == {500: 5.5, 1000: 10.5, 2000: 20.5}
    errors = {step: value for name, value, step in groups["zp_400/id"] if name == "z_after.wp0.01.error"}
    assert errors[500] == pytest.approx(0.5)  # of two values one apart: their spread over the root of two


LAPTOP = ROOT / "configs/contrastive/laptop.yaml"
SECRETS = [
    "resources.storage=s3://AKIA:s3cret@bucket/x?session_token=s3cret2",
    "resources.artefacts=ftp://me:s3cret@host/x",
]


@pytest.mark.parametrize("name", ["a%20b", "q?x=1&y #1 100% é \N{GRINNING FACE} [1]'\""])
def test_a_run_folder_of_any_name_keeps_its_database_inside(tmp_path, monkeypatch, name):
    from mlflow.tracking import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    config = load_config(LAPTOP, SECRETS, output=f"runs/{name}")
    folder = tmp_path / "runs" / name
    folder.mkdir(parents=True)
    (folder / "made.txt").write_text("x")

    def fill(run):
        run.metrics([("z", 2.0, 0)])
        run.files([folder / "made.txt"])

    run_id = record(config, "one", {}, fill)
    assert run_id is not None
    assert record(config, "one", {}, fill) == run_id  # once
    assert {p.name for p in folder.iterdir()} == {"made.txt", "mlflow.db", "mlartifacts", "tracking.json"}
    assert [p.name for p in tmp_path.iterdir()] == ["runs"]
    assert [p.name for p in (tmp_path / "runs").iterdir()] == [name]
    assert len(list(folder.rglob("mlartifacts/**/made.txt"))) == 1
    uri = json.loads((folder / "tracking.json").read_text())["uri"]
    assert sqlite_path(uri) == folder / "mlflow.db"
    found = MlflowClient(uri).get_run(run_id)
    assert (found.info.status, found.data.metrics) == ("FINISHED", {"z": 2.0})
    # No password in any parameter, and none anywhere in what was written.
    assert found.data.params["resources.storage"] == "s3://***@bucket/x?session_token=***"
    assert found.data.params["resources.artefacts"] == "ftp://***@host/x"
    for path in folder.rglob("*"):
        assert not path.is_file() or b"s3cret" not in path.read_bytes(), path


@pytest.mark.parametrize(
    "uri",
    [
        "http://me:s3cret@127.0.0.1:9/",
        "postgresql://me:s3cret@127.0.0.1:9/db",
        "postgresql+psycopg2://me:s3%23cret@[bad/db?password=s3cret",
        "nonsense://me:s3cret@host/x",
        "sqlite:////proc/nowhere/mlflow.db?token=s3cret",
    ],
)
def test_a_server_that_fails_is_told_without_its_password(tmp_path, monkeypatch, capfd, uri):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    config = load_config(LAPTOP, [*SECRETS, f"tracking.uri='{uri}'"], output=tmp_path)
    assert record(config, "one", {}, lambda run: None) is None
    out, err = capfd.readouterr()
    assert out == ""
    assert "did not record this run" in " ".join(err.split())
    assert "s3cret" not in err
    assert "s3#cret" not in err
    assert list(tmp_path.iterdir()) == []


def test_a_traceback_and_a_notebook_show_no_password():
    uri = "http://me:s3cret@host/"
    with pytest.raises(UserError) as caught:
        load_config(LAPTOP, [*SECRETS, f"tracking.uri=[{uri}]"])
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))
    nonsense = uri.replace("http", "nonsense")
    with pytest.raises(UserError) as caught:
        Store(nonsense)
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))
    assert str(Store("memory://me:s3cret@host/x")) == "memory://***@host/x"
    config = load_config(LAPTOP, [*SECRETS, f"tracking.uri={uri}"])
    assert "s3cret" not in f"{config!r} {config} {config.tracking!r}"
    assert "uri='http://***@host/'" in repr(config)
    assert config.tracking.uri == uri


def test_a_failed_trial_is_kept_without_a_password(tmp_path):
    book = Ledger(tmp_path)
    book.record_failure("k", Trial("s", 1.0, 0), "Traceback\nOSError: s3://AKIA:s3cret@bucket/x?sig=s3cret: denied")
    assert book.rows(["k"])[0]["error"] == "Traceback\nOSError: s3://***@bucket/x?sig=***: denied"


def test_an_unexpected_error_is_printed_without_a_password():
    group = Commands("raypipe")

    @group.command()
    def fail() -> None:
        raise RuntimeError("cannot reach postgresql://me:s3cret@host/db")

    done = CliRunner().invoke(group, ["fail"])
    assert done.exit_code == 1
    assert "Traceback" in done.stderr
    assert "RuntimeError: cannot reach postgresql://***@host/db" in done.stderr
    assert "s3cret" not in done.output


def test_a_page_shows_the_configuration_without_passwords():
    shown = load_config(LAPTOP, [*SECRETS, "tracking.uri=http://me:s3cret@host/"]).shown()
    assert shown["tracking"]["uri"] == "http://***@host/"
    assert shown["flow"] == load_config(LAPTOP).model_dump(mode="json")["flow"]
    assert "s3cret" not in json.dumps(shown)
    for path in (ROOT / "raypipe" / "report").rglob("*.py"):  # what a page dumps is what may be shown
        assert "model_dump" not in path.read_text(), path


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A real MLflow server on the loopback interface."""
    folder = tmp_path_factory.mktemp("mlflow")
    (port,) = free_ports(1)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "RAY_"))}
    log = open(folder / "server.log", "w")  # noqa: SIM115
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--workers",
            "1",
            "--backend-store-uri",
            f"sqlite:///{folder}/server.db",
            "--artifacts-destination",
            str(folder / "artifacts"),
        ],
        env=environment,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    url, end = f"http://127.0.0.1:{port}", time.monotonic() + 180
    try:
        while True:
            try:
                with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
                    assert answer.status == 200
                    break
            except (OSError, urllib.error.URLError):
                assert process.poll() is None, (folder / "server.log").read_text()[-3000:]
                assert time.monotonic() < end
                time.sleep(0.5)
        yield url
    finally:
        os.killpg(process.pid, 9)
        process.wait(20)
        log.close()


def haxad_scan(folder) -> tuple:
    """Configuration and rows of a made-up scan: two strengths, two instances, one method; z is twice the strength."""
    config = load_config(ROOT / "configs/haxad/laptop.yaml", [f"output={folder}"])
    point = config.selection.working_points[0]
    names = (
        "fit_z_before",
        "fit_s_before",
        "asimov_before",
        "asimov_after",
        "sic",
        "s_before",
        "higgs_after",
        "z_after",
        "sculpting_p",
    )
    rows = [
        {
            "status": "ok",
            "key": f"{x}{i}",
            "signal": "wn_150",
            "strength": x,
            "instance": i,
            "method": "cathode",
            "working_point": point,
            "family": "exp",
            "fit_valid_after": True,
            "fit_z_after": 2 * x,
            "s_after": 10 * x,
            "fit_s_after": 10 * x + i,
            "fit_s_err_after": 5.0,
            **dict.fromkeys(names, 1.0),
        }
        for x in (1.0, 3.0)
        for i in (0, 1)
    ]
    summary = haxad.summarise(rows, config)
    curves = curves_of(summary["results"], haxad.QUANTITIES)
    report = Report(summary, [], metrics=haxad.metrics(summary), curves=curves)
    return config, rows, report


def test_a_haxad_scan_is_recorded_with_its_significances(tmp_path, monkeypatch):
    from mlflow.tracking import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    config, rows, report = haxad_scan(tmp_path)
    run_id = recorded(config, replace(report, history=[{"error": 3.0}, {"error": 2.0}]), rows)
    assert run_id is not None
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    parent = client.get_run(run_id)
    where = f"wp{config.selection.working_points[0]:g}"
    assert parent.data.metrics[f"fit_z_after.cathode.wn_150.3.{where}"] == 6.0
    assert parent.data.metrics[f"linearity.slope.{where}"] == pytest.approx(1.0)
    assert [m.value for m in client.get_metric_history(run_id, "encoder.error")] == [3.0, 2.0]
    (child,) = client.search_runs([parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run_id}'")
    assert child.info.run_name == "wn_150/id"
    curve = client.get_metric_history(child.info.run_id, f"fit_z_after.{where}")
    assert sorted((m.step, m.value) for m in curve) == [(1000, 2.0), (3000, 6.0)]


@pytest.mark.slow
def test_the_autoencoder_of_a_haxad_scan_is_a_model_that_loads(tmp_path, monkeypatch):
    import mlflow

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    config, rows, report = haxad_scan(tmp_path)
    given = config.embedding
    torch.manual_seed(1)
    vae = FeatureVae(9, given.latent, list(given.hidden)).eval()
    (tmp_path / "encoder").mkdir()
    torch.save(vae.state_dict(), tmp_path / "encoder" / "vae.pt")
    write_json(tmp_path / "encoder" / "encoder.json", {"embedding": given.model_dump(mode="json")})
    features = np.random.default_rng(1).standard_normal((4, 9)).astype("f4")
    assert recorded(
        config, report, rows, autoencoder=Served(tmp_path / "encoder", {"features": features}, (given.latent,))
    )
    previous = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    try:
        served = mlflow.pyfunc.load_model("models:/raypipe-autoencoder/1")
        with torch.no_grad():
            latent = vae.encode(torch.as_tensor(features))[0].numpy()
        np.testing.assert_allclose(served.predict({"features": features}), latent, rtol=1e-6)
    finally:
        mlflow.set_tracking_uri(previous)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "server"])
def test_a_scan_is_one_parent_with_a_child_a_group_and_models(kind, request, tmp_path, monkeypatch):
    import mlflow
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{tmp_path}/mlflow.db" if kind == "sqlite" else request.getfixturevalue("server")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    config = load_config(
        ROOT / "configs/contrastive/laptop.yaml",
        [*OVERRIDES, f"output={tmp_path}", f"tracking.uri={uri}", "flow.epochs=2"],
    )
    rng = np.random.default_rng(1)
    latents, masses = rng.standard_normal((600, 6)).astype("f4"), rng.uniform(105, 160, 600)
    flow = fit_flows(latents, masses, (105, 160), config.flow, seed=1, folds=config.classifier.folds)
    torch.save(flow.state(), tmp_path / "flow.pt")
    example = {"latent": latents[:3], "mass": masses[:3]}
    rows = rows_of_a_scan()
    summary = summary_of(rows)
    curves = curves_of(summary["results_all_working_points"], contrastive.CURVES)
    report = Report(summary, [], metrics={}, curves=curves, history=[{"epoch": 0, "loss": 1.0}])
    run_id = recorded(config, report, rows, flow=Served(tmp_path / "flow.pt", example, (), np.float64))
    assert run_id is not None
    assert recorded(config, Report(summary, []), rows) == run_id  # once

    client = MlflowClient(uri)
    parent = client.get_run(run_id)
    assert parent.info.status == "FINISHED"
    assert parent.data.params["flow.epochs"] == "2"
    found = client.search_runs([parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run_id}'")
    assert {run.info.run_name for run in found} == {"wn_150/id", "zp_400/id"}  # not one a trial
    assert {run.info.status for run in found} == {"FINISHED"}
    history = client.get_metric_history(found[0].info.run_id, "z_after.wp0.01")
    assert sorted((m.step, m.value) for m in history) == [(500, 5.5), (1000, 10.5), (2000, 20.5)]
    versions = client.search_model_versions("name = 'raypipe-flow'")
    assert [version.run_id for version in versions] == [run_id]
    previous = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:
        served = mlflow.pyfunc.load_model("models:/raypipe-flow/1")
        assert served.metadata.signature.inputs.input_names() == ["latent", "mass"]
        kept = served.input_example
        np.testing.assert_allclose(np.asarray(kept["latent"]), example["latent"], rtol=1e-6)
        density = served.predict({"latent": latents[:5], "mass": masses[:5]})
        np.testing.assert_allclose(density, flow.log_prob(latents[:5], masses[:5]), rtol=1e-6)
    finally:
        mlflow.set_tracking_uri(previous)


@pytest.mark.slow
def test_a_server_behind_a_password_is_never_shown_with_it(server, tmp_path, monkeypatch, capfd):
    """MLflow prints the address of every run it ends; its registry prints too."""
    from mlflow.tracking import MlflowClient

    uri = server.replace("http://", "http://me:s3cret@")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    config = load_config(LAPTOP, [*SECRETS, f"tracking.uri={uri}", "tracking.experiment=secret"], output=tmp_path)
    run_id = record(config, "one", {}, lambda run: run.child("two", {"uri": uri}, [("z", 1.0, 0)]))
    out, err = capfd.readouterr()
    assert (run_id is None, out) == (False, "")
    assert "http://***@127.0.0.1" in err
    assert "s3cret" not in err
    client = MlflowClient(server)
    runs = client.search_runs([client.get_run(run_id).info.experiment_id])
    assert len(runs) == 2
    for run in runs:
        assert "s3cret" not in json.dumps(run.to_dictionary())
    assert "s3cret" not in (tmp_path / "tracking.json").read_text()
    assert "MLFLOW_TRACKING_URI" not in os.environ
