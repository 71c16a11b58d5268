"""MLflow model: ``features`` (n, 9) of events -> latent means of the autoencoder, (n, latent) float32.

The features are those of `raypipe.events.continuous.continuous_features`, on which it was trained.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import torch

from raypipe.cluster.train import load_autoencoder


class ServedAutoencoder(mlflow.pyfunc.PythonModel):
    """The trained autoencoder; ``predict`` returns an array (n, latent)."""

    def load_context(self, context: Any) -> None:
        """Read the state dict beside the model."""
        self.vae = load_autoencoder(Path(context.artifacts["autoencoder"]))

    @torch.no_grad()
    def predict(self, context: Any, model_input: Any, params: Any = None) -> np.ndarray:
        """Latent means of events."""
        features = torch.as_tensor(np.asarray(model_input["features"], np.float32))
        return self.vae.encode(features)[0].numpy()


mlflow.models.set_model(ServedAutoencoder())
