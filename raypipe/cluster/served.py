"""Models as MLflow serves them, each loaded from the artifact of its name: code plus state dicts, no pickles.

=============  =====================================================================  ==========================
encoder        ``objects`` (n, 11, 12) and ``event`` (n, 2), float32                  latent means (n, latent)
autoencoder    ``features`` (n, 9) of `raypipe.events.continuous`, as it was trained  latent means (n, latent)
flow           ``latent`` (n, d) float32 and ``mass`` (n,) in GeV                     log p(latent | mass), nats
=============  =====================================================================  ==========================
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import torch

from raypipe.cluster.train import load_autoencoder, load_encoder
from raypipe.fit.encoder import embed
from raypipe.fit.flows import ConditionalFlow

Predict = Callable[[Mapping[str, Any]], np.ndarray]


def _encoder(folder: Path) -> Predict:
    if (loaded := load_encoder(folder)) is None:
        raise FileNotFoundError(f"{folder}: no encoder here")
    return lambda given: embed(loaded[0], [np.asarray(given[name]) for name in ("objects", "event")])[0]


def _autoencoder(folder: Path) -> Predict:
    vae = load_autoencoder(folder).requires_grad_(False)
    return lambda given: vae.encode(torch.as_tensor(np.asarray(given["features"], np.float32)))[0].numpy()


def _flow(file: Path) -> Predict:
    flow = ConditionalFlow.from_state(torch.load(file, weights_only=True))
    return lambda given: flow.log_prob(np.asarray(given["latent"]), np.asarray(given["mass"]).reshape(-1))


MODELS = {"encoder": _encoder, "autoencoder": _autoencoder, "flow": _flow}


class _Events:
    """A model of one artifact. MLflow would take type hints of a ``predict`` in its own class for a signature, and warn
    where there are none: the model has a signature, and ``predict`` stands here."""

    def load_context(self, context: Any) -> None:
        """Read the state dict beside the model."""
        ((name, path),) = context.artifacts.items()
        self.of = MODELS[name](Path(path))

    def predict(self, context, model_input, params=None):
        """What it says of events."""
        return self.of(model_input)


class ServedModel(_Events, mlflow.pyfunc.PythonModel):
    """The model of the one artifact that it was logged with."""


mlflow.models.set_model(ServedModel())
