"""MLflow: the window on a run. Only the driver writes, and only after the ledger has it."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from raypipe import __version__
from raypipe.config import Config
from raypipe.files import digest, read_json, write_json
from raypipe.progress import console


def tracking_uri(config: Config) -> str:
    """Where runs are recorded: MLFLOW_TRACKING_URI, the configured URI, or an SQLite file in the output folder."""
    given = os.environ.get("MLFLOW_TRACKING_URI") or config.tracking.uri
    return given or f"sqlite:///{(Path(config.output) / 'mlflow.db').resolve()}"


def record_run(
    config: Config, summary: dict[str, Any], history: list[dict[str, float]], figures: dict[str, Path],
    ledger: Path, flow: Path | None,
) -> str | None:  # fmt: skip
    """Record one finished scan: parameters, metrics, encoder and flow models with signatures, figures, ledger rows.

    A run that was recorded already (same keys of trials, in ``tracking.json``) is not recorded twice. A tracking
    server that cannot be reached costs a warning, never the results, which are on disk by now.

    Returns:
        The MLflow run id, or None if tracking is off or failed.
    """
    if not config.tracking.enabled:
        return None
    output = Path(config.output)
    uri = tracking_uri(config)
    key = digest(
        {"uri": uri, "config": summary["config_hash"], "code": summary["code"], "rows": sorted(summary["keys"])}
    )
    marker = output / "tracking.json"
    if marker.exists() and read_json(marker).get("key") == key:
        return read_json(marker)["run_id"]
    try:
        run_id = _record(config, uri, summary, history, figures, ledger, flow)
    except Exception as error:  # whatever a client library raises: the physics is done and must be reported
        console.print(f"[yellow]MLflow at {uri} did not record this run: {error}[/yellow]", highlight=False)
        return None
    write_json(marker, {"key": key, "run_id": run_id, "uri": uri})
    return run_id


def _record(
    config: Config, uri: str, summary: dict[str, Any], history: list[dict[str, float]], figures: dict[str, Path],
    ledger: Path, flow: Path | None,
) -> str:  # fmt: skip
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    import mlflow
    from mlflow.entities import Metric
    from mlflow.tracking import MlflowClient

    # Never mlflow.set_experiment: it exports a variable that Ray's own MLflow code prefers to its arguments.
    mlflow.set_tracking_uri(uri)
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(config.tracking.experiment)
    if experiment is None:
        local = uri.startswith("sqlite:")
        place = (Path(config.output) / "mlartifacts").resolve().as_uri() if local else None
        experiment_id = client.create_experiment(config.tracking.experiment, artifact_location=place)
    else:
        experiment_id = experiment.experiment_id
    run = client.create_run(experiment_id, run_name=f"{config.search}-{config.embedding.name}-{summary['config_hash']}")
    run_id = run.info.run_id
    try:
        for name, value in _flat(config.model_dump(mode="json")).items():
            client.log_param(run_id, name, str(value)[:500])
        for name in ("config_hash", "code"):
            client.set_tag(run_id, f"raypipe.{name}", summary[name])
        now = int(time.time() * 1000)
        metrics = [Metric(k, float(v), now, 0) for k, v in _result_metrics(summary).items()]
        metrics += [
            Metric(f"encoder.{k}", float(v), now, int(r["epoch"]))
            for r in history
            for k, v in r.items()
            if k != "epoch"
        ]
        for start in range(0, len(metrics), 1000):
            client.log_batch(run_id, metrics=metrics[start : start + 1000])
        for path in figures.values():
            client.log_artifact(run_id, str(path), "figures")
        client.log_artifact(run_id, str(Path(config.output) / "summary.json"))
        client.log_artifact(run_id, str(ledger), "ledger")
        _log_models(config, run_id, flow)
    except BaseException:
        client.set_terminated(run_id, "FAILED")
        raise
    client.set_terminated(run_id, "FINISHED")
    return run_id


def _log_models(config: Config, run_id: str, flow: Path | None) -> None:
    """Encoder and flow as models from code: state dicts and a script, nothing pickled."""
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    latent = config.embedding.encoder.latent
    f32, f64 = np.dtype(np.float32), np.dtype(np.float64)
    served = resources.files("raypipe.cluster.served")
    models = {
        "encoder": (
            str(Path(config.output) / "encoder"),
            ModelSignature(
                Schema([TensorSpec(f32, (-1, 11, 12), "objects"), TensorSpec(f32, (-1, 2), "event")]),
                Schema([TensorSpec(f32, (-1, latent))]),
            ),
        )
    }
    if flow is not None:
        models["flow"] = (
            str(flow),
            ModelSignature(
                Schema([TensorSpec(f32, (-1, latent), "latent"), TensorSpec(f64, (-1,), "mass")]),
                Schema([TensorSpec(f64, (-1,))]),
            ),
        )
    with _active_run(run_id):
        for name, (artifact, signature) in models.items():
            mlflow.pyfunc.log_model(
                name=name, python_model=str(served.joinpath(f"{name}.py")), artifacts={name: artifact},
                signature=signature, pip_requirements=[f"raypipe=={__version__}"],
            )  # fmt: skip


@contextlib.contextmanager
def _active_run(run_id: str) -> Any:
    import mlflow

    mlflow.start_run(run_id=run_id)
    try:
        yield
    finally:
        # end_run would mark the run finished whatever comes after; the caller decides that.
        mlflow.end_run("RUNNING")


def _result_metrics(summary: dict[str, Any]) -> dict[str, float]:
    metrics = {f"seconds.{stage}": seconds for stage, seconds in summary["stage_seconds"].items()}
    metrics["peak_rss_gib"] = summary["peak_rss_gib"]
    if summary["closure_auc"]:
        metrics["closure_auc"] = summary["closure_auc"]["mean"]
    for entry in summary["results_all_working_points"]:
        where = f"{entry['signal']}.{entry['strength']:g}.wp{entry['working_point']:g}"
        for name in ("z_before", "z_after", "sic"):
            if entry[name]:
                metrics[f"{name}.{where}"] = entry[name]["mean"]
    return metrics


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            out |= _flat(value, f"{prefix}{name}.")
        else:
            out[f"{prefix}{name}"] = value
    return out
