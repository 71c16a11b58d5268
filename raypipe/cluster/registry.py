"""Models in the MLflow registry: code plus state dicts, signature, input example; no pickles."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any

import numpy as np

from raypipe import __version__
from raypipe.search.base import Served


def register_models(run: Any, models: Mapping[str, Served]) -> None:
    """Log models in ``run`` (a `raypipe.cluster.tracking.Recorder`) and register them as ``raypipe-<name>``."""
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    served = resources.files("raypipe.cluster.served")
    with _active_run(run):
        for name, model in models.items():
            inputs = [TensorSpec(v.dtype, (-1, *v.shape[1:]), column) for column, v in model.example.items()]
            output = TensorSpec(np.dtype(model.dtype), (-1, *model.output))
            mlflow.pyfunc.log_model(
                name=name,
                python_model=str(served.joinpath(f"{name}.py")),
                artifacts={name: str(model.artifact)},
                signature=ModelSignature(Schema(inputs), Schema([output])),
                input_example=dict(model.example),
                registered_model_name=f"raypipe-{name}",
                pip_requirements=[f"raypipe=={__version__}"],
            )


@contextlib.contextmanager
def _active_run(run: Any) -> Iterator[None]:
    import mlflow

    before = os.environ.get("MLFLOW_TRACKING_URI")
    # Never mlflow.set_experiment: it exports a variable that Ray's own MLflow code prefers to its arguments.
    mlflow.set_tracking_uri(run.uri)
    try:
        mlflow.start_run(run_id=run.run_id)
        try:
            yield
        finally:
            # end_run would mark the run finished whatever comes after; the caller decides that.
            mlflow.end_run("RUNNING")
    finally:
        mlflow.set_tracking_uri(before)  # the next run of this process has a server of its own
