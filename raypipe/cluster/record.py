"""MLflow record of a scan that has no trained model to register: parameters, metrics and files."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

from raypipe.cluster.tracking import tracking_uri
from raypipe.files import digest, read_json, write_json
from raypipe.progress import console


def record_values(
    config: Any, name: str, metrics: dict[str, float], artifacts: dict[str, list[Path]], made_of: dict[str, Any]
) -> str | None:
    """Record one run, once: the same ``made_of`` and configuration are not recorded twice (``tracking.json``).

    A tracking server that cannot be reached costs a warning, never the results, which are on disk by now.

    Args:
        artifacts: folder in the run -> files or folders. made_of: what the results were made of, JSON-ready.

    Returns:
        The MLflow run id, or None if tracking is off or failed.
    """
    if not config.tracking.enabled:
        return None
    uri = tracking_uri(config)
    marker = Path(config.output) / "tracking.json"
    key = digest({"uri": uri, "config": config.physics_hash(), **made_of})
    if marker.exists() and read_json(marker).get("key") == key:
        return read_json(marker)["run_id"]
    try:
        run_id = _record(config, uri, name, metrics, artifacts)
    except Exception as error:  # whatever a client library raises: the physics is done and must be reported
        console.print(f"[yellow]MLflow at {uri} did not record this run: {error}[/yellow]", highlight=False)
        return None
    write_json(marker, {"key": key, "run_id": run_id, "uri": uri})
    return run_id


def _record(config: Any, uri: str, name: str, metrics: dict[str, float], artifacts: dict[str, list[Path]]) -> str:
    for logger in ("mlflow", "alembic"):
        logging.getLogger(logger).setLevel(logging.WARNING)
    from mlflow.entities import Metric, Param
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(config.tracking.experiment)
    if experiment is None:
        local = uri.startswith("sqlite:")
        place = (Path(config.output) / "mlartifacts").resolve().as_uri() if local else None
        experiment_id = client.create_experiment(config.tracking.experiment, artifact_location=place)
    else:
        experiment_id = experiment.experiment_id
    run_id = client.create_run(experiment_id, run_name=name).info.run_id
    try:
        parameters = [Param(k, str(v)[:500]) for k, v in flat(config.model_dump(mode="json")).items()]
        for start in range(0, len(parameters), 100):
            client.log_batch(run_id, params=parameters[start : start + 100])
        now = int(time.time() * 1000)
        values = [Metric(k, float(v), now, 0) for k, v in metrics.items()]
        for start in range(0, len(values), 1000):
            client.log_batch(run_id, metrics=values[start : start + 1000])
        for folder, paths in artifacts.items():
            for path in paths:
                client.log_artifact(run_id, str(path), folder or None)
    except BaseException:
        client.set_terminated(run_id, "FAILED")
        raise
    client.set_terminated(run_id, "FINISHED")
    return run_id


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as dotted keys."""
    out: dict[str, Any] = {}
    for name, value in values.items():
        out |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return out
