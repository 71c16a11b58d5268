"""MLflow as a window on a scan: one parent, one child a group, models that load, on a file and on a server."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
import torch

from raypipe.cluster.record import group_curves, record_run
from raypipe.config import load_config
from raypipe.fit.flows import fit_flows
from raypipe.report.summary import build_summary
from tests.cluster.head import free_ports
from tests.conftest import ROOT
from tests.search.test_contrastive import OVERRIDES


def rows_of_a_scan() -> list[dict]:
    """Two signals at three strengths, two instances, one working point; z is ten times the strength."""
    values = ("z_before", "sic", "truth_before", "truth_after", "auc", "n_after", "expected_after", "kappa",
              "background_efficiency", "signal_efficiency")  # fmt: skip
    return [
        {"status": "ok", "key": f"{signal}{strength}{i}", "signal": signal, "strength": strength, "instance": i,
         "embedding": "id", "method": "cathode",
         "working_point": 0.01, "z_after": 10 * strength + i, "closure_auc": 0.5, **dict.fromkeys(values, 1.0)}
        for signal in ("wn_150", "zp_400") for strength in (0.5, 1.0, 2.0) for i in (0, 1)
    ]  # fmt: skip


def summary_of(rows: list[dict]) -> dict:
    return build_summary(
        rows, working_point=0.01, target=5.0, stages={"scan": 1.0}, peak_rss_gib=1.0,
        provenance={"config_hash": "c", "code": "d", "keys": [row["key"] for row in rows]},
    )  # fmt: skip


def test_curves_have_the_strength_as_step():
    groups = group_curves(summary_of(rows_of_a_scan())["results_all_working_points"])
    assert set(groups) == {"wn_150/id", "zp_400/id"}
    curve = {step: value for name, value, step in groups["zp_400/id"] if name == "z_after.wp0.01"}
    assert curve == {500: 5.5, 1000: 10.5, 2000: 20.5}
    errors = {step: value for name, value, step in groups["zp_400/id"] if name == "z_after.wp0.01.error"}
    assert errors[500] == pytest.approx(0.5)  # of two values one apart: their spread over the root of two


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A real MLflow server on the loopback interface."""
    folder = tmp_path_factory.mktemp("mlflow")
    (port,) = free_ports(1)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "RAY_"))}
    log = open(folder / "server.log", "w")  # noqa: SIM115
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
         "--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination", str(folder / "artifacts")],
        env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
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


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "server"])
def test_a_scan_is_one_parent_with_a_child_a_group_and_models(kind, request, tmp_path, monkeypatch):
    import mlflow
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{tmp_path}/mlflow.db" if kind == "sqlite" else request.getfixturevalue("server")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    config = load_config(ROOT / "configs/contrastive/laptop.yaml",
                         [*OVERRIDES, f"output={tmp_path}", f"tracking.uri={uri}", "flow.epochs=2"])  # fmt: skip
    rng = np.random.default_rng(1)
    latents, masses = rng.standard_normal((600, 6)).astype("f4"), rng.uniform(105, 160, 600)
    flow = fit_flows(latents, masses, (105, 160), config.flow, seed=1, folds=config.classifier.folds)
    torch.save(flow.state(), tmp_path / "flow.pt")
    example = {"latent": latents[:3], "mass": masses[:3]}
    rows = rows_of_a_scan()
    summary = summary_of(rows)
    (tmp_path / "summary.json").write_text("{}")
    run_id = record_run(config, summary, [{"epoch": 0, "loss": 1.0}], {}, rows, tmp_path / "flow.pt", {"flow": example})
    assert run_id is not None
    assert record_run(config, summary, [], {}, rows, None) == run_id  # once

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
