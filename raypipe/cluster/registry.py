"""Encoder and background model in the MLflow registry: code plus state dicts, signature, input example; no pickles."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from raypipe import __version__
from raypipe.cluster.tracking import Recorder
from raypipe.config import Config
from raypipe.events.diphoton import View
from raypipe.events.schema import tensor_values
from raypipe.events.table import read_table

EXAMPLE = 4
"""Events of an input example."""
FEATURES = 9
"""Event features that an autoencoder sees."""


def model_examples(config: Config, events: Path, latents: Any) -> dict[str, dict[str, np.ndarray]]:
    """Inputs of both models from real events: the first of the first background sample and of the latent table."""
    name = config.pseudodata.background[0]
    view = View.of(config.embedding)
    table = read_table(events / "search" / f"{name}.parquet", view.columns).slice(0, EXAMPLE)
    return {
        "encoder": {
            "objects": view.objects(table).astype(np.float32),
            "event": view.event(table),
        },
        "flow": flow_example(latents),
    }


def flow_example(latents: Any) -> dict[str, np.ndarray]:
    """Input of a background model: the first events of a latent table."""
    first = latents.slice(0, EXAMPLE)
    return {
        "latent": tensor_values(first["latent"]).astype(np.float32),
        "mass": first["m_yy"].to_numpy().astype(np.float64),
    }


def register_models(config: Any, run: Recorder, flow: Path | None, examples: dict[str, Any]) -> None:
    """Log the run folder's encoder (or autoencoder) and a background model in ``run``, as ``raypipe-<name>``."""
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    autoencoder = (Path(config.output) / "encoder" / "vae.pt").exists()
    latent = getattr(config.embedding, "encoder", config.embedding).latent
    f32, f64 = np.dtype(np.float32), np.dtype(np.float64)
    served = resources.files("raypipe.cluster.served")
    encoder = Path(config.output) / "encoder"
    models = {}
    if autoencoder:
        models["autoencoder"] = (
            str(encoder),
            ModelSignature(
                Schema([TensorSpec(f32, (-1, FEATURES), "features")]), Schema([TensorSpec(f32, (-1, latent))])
            ),
        )
    elif encoder.exists():
        models["encoder"] = (
            str(encoder),
            ModelSignature(
                Schema([TensorSpec(f32, (-1, 11, 12), "objects"), TensorSpec(f32, (-1, 2), "event")]),
                Schema([TensorSpec(f32, (-1, latent))]),
            ),
        )
    if flow is not None:
        models["flow"] = (
            str(flow),
            ModelSignature(
                Schema([TensorSpec(f32, (-1, latent), "latent"), TensorSpec(f64, (-1,), "mass")]),
                Schema([TensorSpec(f64, (-1,))]),
            ),
        )
    with _active_run(run):
        for name, (artifact, signature) in models.items():
            mlflow.pyfunc.log_model(
                name=name,
                python_model=str(served.joinpath(f"{name}.py")),
                artifacts={name: artifact},
                signature=signature,
                input_example=examples.get(name),
                registered_model_name=f"raypipe-{name}",
                pip_requirements=[f"raypipe=={__version__}"],
            )


@contextlib.contextmanager
def _active_run(run: Recorder) -> Iterator[None]:
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
