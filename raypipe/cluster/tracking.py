"""MLflow: the window on a run. Only the driver writes, and only after the ledger has it."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from raypipe.files import digest, read_json, write_json
from raypipe.progress import console

PARAMETERS, METRICS = 100, 1000
"""Most that a server takes in one request."""


def tracking_uri(config: Any) -> str:
    """Where runs are recorded: MLFLOW_TRACKING_URI, the configured URI, or an SQLite file in the output folder."""
    given = os.environ.get("MLFLOW_TRACKING_URI") or config.tracking.uri
    return given or f"sqlite:///{(Path(config.output) / 'mlflow.db').resolve()}"


class Recorder:
    """One MLflow run while it is written.

    Attributes:
        uri: of the tracking server or file. run_id: of the run.
    """

    def __init__(self, client: Any, uri: str, experiment: str, run_id: str) -> None:
        self.client, self.uri, self.experiment, self.run_id = client, uri, experiment, run_id
        self._now = int(time.time() * 1000)

    def parameters(self, values: Mapping[str, Any], tags: Mapping[str, str] | None = None) -> None:
        """Log parameters (cut at 500 characters) and tags."""
        from mlflow.entities import Param, RunTag

        made = [Param(k, str(v)[:500]) for k, v in values.items()]
        marks = [RunTag(k, v) for k, v in (tags or {}).items()]
        for start in range(0, len(made), PARAMETERS):
            self.client.log_batch(
                self.run_id, params=made[start : start + PARAMETERS], tags=[] if start else marks
            )  # fmt: skip

    def metrics(self, values: Iterable[tuple[str, float, int]]) -> None:
        """Log (name, value, step)."""
        from mlflow.entities import Metric

        made = [Metric(name, float(value), self._now, step) for name, value, step in values]
        for start in range(0, len(made), METRICS):
            self.client.log_batch(self.run_id, metrics=made[start : start + METRICS])

    def files(self, paths: Iterable[Path], folder: str | None = None) -> None:
        """Log files or folders."""
        for path in paths:
            self.client.log_artifact(self.run_id, str(path), folder)

    def child(self, name: str, parameters: Mapping[str, Any], metrics: Iterable[tuple[str, float, int]]) -> None:
        """A finished run below this one."""
        made = self.client.create_run(self.experiment, run_name=name, tags={"mlflow.parentRunId": self.run_id})
        recorder = Recorder(self.client, self.uri, self.experiment, made.info.run_id)
        recorder.parameters(parameters)
        recorder.metrics(metrics)
        self.client.set_terminated(made.info.run_id, "FINISHED")


def record(
    config: Any, name: str, made_of: dict[str, Any], fill: Callable[[Recorder], None],
    tags: Mapping[str, str] | None = None,
) -> str | None:  # fmt: skip
    """Record one run with the configuration as parameters, once: the same ``made_of`` and configuration are not
    recorded twice (``tracking.json``).

    A tracking server that cannot be reached costs a warning, never the results, which are on disk by now.

    Args:
        made_of: what the results were made of, JSON-ready. fill: logs metrics and files.

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
        run_id = _record(config, uri, name, fill, tags)
    except Exception as error:  # whatever a client library raises: the physics is done and must be reported
        console.print(f"[yellow]MLflow at {uri} did not record this run: {error}[/yellow]", highlight=False)
        return None
    write_json(marker, {"key": key, "run_id": run_id, "uri": uri})
    return run_id


def _record(
    config: Any, uri: str, name: str, fill: Callable[[Recorder], None], tags: Mapping[str, str] | None
) -> str:  # fmt: skip
    for logger in ("mlflow", "alembic"):
        logging.getLogger(logger).setLevel(logging.WARNING)
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
        recorder = Recorder(client, uri, experiment_id, run_id)
        recorder.parameters(_flat(config.model_dump(mode="json")), tags)
        fill(recorder)
    except BaseException:
        client.set_terminated(run_id, "FAILED")
        raise
    client.set_terminated(run_id, "FINISHED")
    return run_id


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as dotted keys."""
    out: dict[str, Any] = {}
    for name, value in values.items():
        out |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return out
