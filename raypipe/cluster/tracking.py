"""MLflow: the window on a run. Only the driver writes, and only after the ledger has it."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa

from raypipe.cluster.registry import register_models
from raypipe.config import Config
from raypipe.events.table import write_table
from raypipe.files import digest, read_json, write_json
from raypipe.progress import console
from raypipe.report.summary import is_main

CURVES = ("z_before", "z_after", "sic", "truth_before", "truth_after", "auc")
"""What the child runs draw over the strength."""


def tracking_uri(config: Config) -> str:
    """Where runs are recorded: MLFLOW_TRACKING_URI, the configured URI, or an SQLite file in the output folder."""
    given = os.environ.get("MLFLOW_TRACKING_URI") or config.tracking.uri
    return given or f"sqlite:///{(Path(config.output) / 'mlflow.db').resolve()}"


def record_run(
    config: Config, summary: dict[str, Any], history: list[dict[str, float]], figures: dict[str, Path],
    rows: list[dict[str, Any]], flow: Path | None, examples: dict[str, Any] | None = None,
) -> str | None:  # fmt: skip
    """Record one finished scan: a parent run with parameters, metrics, models, figures and ledger rows, and one child
    run for each (signal, configuration) with its curves over the strength.

    Not one run a trial: an MLflow run costs a third of a second, and ten thousand of them are not readable. A scan
    that was recorded already (same keys of trials, in ``tracking.json``) is not recorded twice. A tracking server that
    cannot be reached costs a warning, never the results, which are on disk by now.

    Args:
        rows: of the ledger.
        flow: a background model to register, if there is one.
        examples: inputs of the models by model name (`raypipe.cluster.registry`).

    Returns:
        The MLflow run id of the parent, or None if tracking is off or failed.
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
        run_id = _record(config, uri, summary, history, figures, rows, flow, examples or {})
    except Exception as error:  # whatever a client library raises: the physics is done and must be reported
        console.print(f"[yellow]MLflow at {uri} did not record this run: {error}[/yellow]", highlight=False)
        return None
    write_json(marker, {"key": key, "run_id": run_id, "uri": uri})
    return run_id


def _record(
    config: Config, uri: str, summary: dict[str, Any], history: list[dict[str, float]], figures: dict[str, Path],
    rows: list[dict[str, Any]], flow: Path | None, examples: dict[str, Any],
) -> str:  # fmt: skip
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    import mlflow
    from mlflow.entities import Metric, Param, RunTag
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
    run = client.create_run(experiment_id, run_name=f"{config.search}-{summary['config_hash']}")
    run_id = run.info.run_id
    now = int(time.time() * 1000)
    try:
        params = [Param(k, str(v)[:500]) for k, v in _flat(config.model_dump(mode="json")).items()]
        tags = [RunTag(f"raypipe.{name}", summary[name]) for name in ("config_hash", "code")]
        for start in range(0, len(params), 100):  # the server's limit
            client.log_batch(run_id, params=params[start : start + 100], tags=tags if start == 0 else [])
        metrics = [Metric(k, float(v), now, 0) for k, v in _result_metrics(summary).items()]
        metrics += [
            Metric(f"encoder.{k}", float(v), now, int(r["epoch"]))
            for r in history
            for k, v in r.items()
            if k != "epoch"
        ]
        for start in range(0, len(metrics), 1000):
            client.log_batch(run_id, metrics=metrics[start : start + 1000])
        for group, curves in group_curves(summary["results_all_working_points"]).items():
            child = client.create_run(experiment_id, run_name=group, tags={"mlflow.parentRunId": run_id})
            client.log_batch(
                child.info.run_id, metrics=[Metric(name, value, now, step) for name, value, step in curves],
                params=[Param("signal", group.split("/")[0]), Param("configuration", group.split("/")[1])],
            )  # fmt: skip
            client.set_terminated(child.info.run_id, "FINISHED")
        for path in figures.values():
            client.log_artifact(run_id, str(path), "figures")
        client.log_artifact(run_id, str(Path(config.output) / "summary.json"))
        if rows:
            with tempfile.TemporaryDirectory(prefix="raypipe-") as scratch:
                write_table(pa.Table.from_pylist(rows), Path(scratch) / "ledger.parquet")
                client.log_artifact(run_id, str(Path(scratch) / "ledger.parquet"))
        register_models(config, run_id, flow, examples)
    except BaseException:
        client.set_terminated(run_id, "FAILED")
        raise
    client.set_terminated(run_id, "FINISHED")
    return run_id


def group_curves(entries: list[dict[str, Any]]) -> dict[str, list[tuple[str, float, int]]]:
    """Metrics of the child runs: for every ``signal/configuration`` triples (name, value, step).

    A step is the injected S/sqrt(B) in thousandths, since MLflow's are integers; the name holds the working point.
    """
    groups: dict[str, list[tuple[str, float, int]]] = {}
    for entry in entries:
        way = entry["embedding"] if entry["method"] == "cathode" else f"{entry['embedding']}-{entry['method']}"
        curves = groups.setdefault(f"{entry['signal']}/{way}", [])
        step = round(1000 * entry["strength"])
        for name in CURVES:
            if entry[name]:
                where = f"{name}.wp{entry['working_point']:g}"
                curves.append((where, float(entry[name]["mean"]), step))
                if entry[name]["standard_error"] is not None:
                    curves.append((f"{where}.error", float(entry[name]["standard_error"]), step))
    return groups


def _result_metrics(summary: dict[str, Any]) -> dict[str, float]:
    metrics = {f"seconds.{stage}": seconds for stage, seconds in summary["stage_seconds"].items()}
    metrics["peak_rss_gib"] = summary["peak_rss_gib"]
    if summary["closure_auc"]:
        metrics["closure_auc"] = summary["closure_auc"]["mean"]
    for entry in summary["results_all_working_points"]:
        way = "" if is_main(entry) else f"{entry['embedding']}.{entry['method']}."
        where = f"{way}{entry['signal']}.{entry['strength']:g}.wp{entry['working_point']:g}"
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
