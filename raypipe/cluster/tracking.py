"""MLflow: runs and registered models. Only the driver writes, and only after the ledger has it."""

import contextlib
import io
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import numpy as np
import pyarrow as pa

from raypipe.config.load import flat
from raypipe.errors import redact
from raypipe.events.table import write_table
from raypipe.files import digest, read_json, write_json
from raypipe.progress import console, say
from raypipe.report.base import Report
from raypipe.search.base import Found, Search, Served


def tracking_uri(config: Any) -> str:
    """Where runs are recorded: MLFLOW_TRACKING_URI, the configured URI, or an SQLite file in the output folder."""
    if given := os.environ.get("MLFLOW_TRACKING_URI") or config.tracking.uri:
        return given
    text = str(Path(config.output, "mlflow.db").resolve())
    # Encoded, slashes too: MLflow makes the parent folder of what stands there.
    return f"sqlite:///{text}" if quote(text) == text else f"sqlite:////{quote(text[1:], safe='')}"


def sqlite_path(uri: str) -> Path | None:
    """The file of an SQLite URI; None for any other."""
    name = uri.removeprefix("sqlite:///")
    return None if name == uri else Path(unquote(name.partition("?")[0]))


@contextlib.contextmanager
def mlflow_speaks(uri: str, tell: bool = True) -> Iterator[None]:
    """While MLflow works: what it prints (addresses, warnings) comes afterwards, on standard error, without secrets."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            yield
    finally:
        text = redact(said.getvalue().strip(), uri)
        if text and tell:
            say(text)


class Recorder:
    """One MLflow run while it is written, on the tracking server or in the file ``uri``."""

    def __init__(self, client: Any, uri: str, experiment: str, run_id: str) -> None:
        self.client, self.uri, self.experiment, self.run_id = client, uri, experiment, run_id
        self._now = int(time.time() * 1000)

    def parameters(self, values: Mapping[str, Any], tags: Mapping[str, str] | None = None) -> None:
        """Log parameters (cut at 500 characters) and tags, without secrets."""
        from mlflow.entities import Param, RunTag

        made = [Param(k, redact(str(v))[:500]) for k, v in values.items()]
        marks = [RunTag(k, redact(v)) for k, v in (tags or {}).items()]
        self.client.log_batch(self.run_id, params=made, tags=marks)  # in as many requests as a server needs

    def metrics(self, values: Iterable[tuple[str, float, int]]) -> None:
        """Log (name, value, step)."""
        from mlflow.entities import Metric

        self.client.log_batch(
            self.run_id, [Metric(name, float(value), self._now, step) for name, value, step in values]
        )

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
    config: Any,
    name: str,
    made_of: dict[str, Any],
    fill: Callable[[Recorder], None],
    tags: Mapping[str, str] | None = None,
) -> str | None:
    """Record one run with the configuration as parameters, once: the same ``made_of`` and configuration are not
    recorded twice (``tracking.json``). Returns its MLflow id, or None if tracking is off or failed.

    A tracking server that cannot be reached costs a warning, never the results, which are on disk by now.

    Args:
        made_of: what the results were made of, JSON-ready. fill: logs metrics and files.
    """
    if not config.tracking.enabled:
        return None
    uri = tracking_uri(config)
    shown = redact(uri)
    marker = Path(config.output) / "tracking.json"
    key = digest({"uri": shown, "config": config.physics_hash(), **made_of})
    if marker.exists() and read_json(marker).get("key") == key:
        return read_json(marker)["run_id"]
    try:
        with mlflow_speaks(uri):
            run_id = _record(config, uri, name, fill, tags)
    except Exception as error:  # whatever a client library raises: the physics is done and must be reported
        text = redact(f"MLflow at {uri} did not record this run: {error}", uri)
        console.print(text, style="yellow", highlight=False, markup=False)
        return None
    write_json(marker, {"key": key, "run_id": run_id, "uri": shown})
    return run_id


def _record(config: Any, uri: str, name: str, fill: Callable[[Recorder], None], tags: Mapping[str, str] | None) -> str:
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    for logger in ("mlflow", "alembic"):
        logging.getLogger(logger).setLevel(logging.WARNING)
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(config.tracking.experiment)
    if experiment is None:
        place = (Path(config.output) / "mlartifacts").resolve().as_uri() if sqlite_path(uri) else None
        experiment_id = client.create_experiment(config.tracking.experiment, artifact_location=place)
    else:
        experiment_id = experiment.experiment_id
    run_id, ended = client.create_run(experiment_id, run_name=name).info.run_id, "FAILED"
    try:
        recorder = Recorder(client, uri, experiment_id, run_id)
        recorder.parameters(dict(flat(config.shown())), tags)
        fill(recorder)
        ended = "FINISHED"
    finally:
        client.set_terminated(run_id, ended)
    return run_id


def record_report(search: Search, found: Found, report: Report, summary: Mapping[str, Any], flow: Path | None) -> None:
    """Record a reported scan: a parent run with parameters, metrics, models, figures and ledger rows, and one child
    run for each (signal, configuration) with its curves over the strength.

    ``flow``: a background model to register, if there is one.
    """

    def fill(run: Recorder) -> None:
        metrics = {f"seconds.{stage}": value for stage, value in summary["stage_seconds"].items()}
        metrics |= {"peak_rss_gib": summary["peak_rss_gib"]} | report.metrics
        run.metrics((name, value, 0) for name, value in metrics.items())
        run.metrics(
            (f"encoder.{name}", value, int(epoch.get("epoch", number)))
            for number, epoch in enumerate(report.history)
            for name, value in epoch.items()
            if name != "epoch"
        )
        for group, curves in report.curves.items():
            signal, configuration = group.split("/")
            run.child(group, {"signal": signal, "configuration": configuration}, curves)
        run.files(report.figures.values(), "figures")
        run.files([found.folder / "summary.json"])
        with tempfile.TemporaryDirectory(prefix="raypipe-") as scratch:
            write_table(pa.Table.from_pylist(found.rows), Path(scratch) / "ledger.parquet")
            run.files([Path(scratch) / "ledger.parquet"])
        models = search.served(found, flow)
        run.files([flow] if flow and "flow" not in models else [])
        if models:
            register_models(run, models)

    made_of = {"code": summary["code"], "rows": sorted(summary["keys"])}
    tags = {f"raypipe.{name}": summary[name] for name in ("config_hash", "code")}
    record(search.config, f"{search.config.search}-{summary['config_hash']}", made_of, fill, tags)


def register_models(run: Recorder, models: Mapping[str, Served]) -> None:
    """Log models in ``run`` and register them as ``raypipe-<name>``: code plus state dicts, no pickles."""
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    before = os.environ.get("MLFLOW_TRACKING_URI")
    with contextlib.ExitStack() as stack:
        stack.callback(mlflow.set_tracking_uri, before)  # the next run of this process has a server of its own
        # Never mlflow.set_experiment: it exports a variable that Ray's own MLflow code prefers to its arguments.
        mlflow.set_tracking_uri(run.uri)
        mlflow.start_run(run_id=run.run_id)
        stack.callback(mlflow.end_run, "RUNNING")  # not finished yet: the caller decides that
        for name, model in models.items():
            inputs = [TensorSpec(v.dtype, (-1, *v.shape[1:]), column) for column, v in model.example.items()]
            output = TensorSpec(np.dtype(model.dtype), (-1, *model.output))
            logged = mlflow.pyfunc.log_model(
                name=name,
                python_model=str(Path(__file__).with_name("served.py")),
                artifacts={name: str(model.artifact)},
                signature=ModelSignature(Schema(inputs), Schema([output])),
                input_example=dict(model.example),
                pip_requirements=[f"raypipe=={version('raypipe')}"],  # of the installation, which MLflow compares
            )
            _register(run, f"raypipe-{name}", logged)


def _register(run: Recorder, name: str, logged: Any) -> None:
    """The next version of a registered model. ``log_model`` would register it too, and say so on the screen."""
    from mlflow.exceptions import MlflowException

    try:
        run.client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    run.client.create_model_version(name, logged.model_uri, run.run_id, model_id=logged.model_id)
