"""MLflow model: events -> latent means. Input: ``objects`` (n, 11, 12) and ``event`` (n, 2), float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import numpy as np

from raypipe.cluster.train import load_encoder
from raypipe.fit.encoder import embed


class ServedEncoder(mlflow.pyfunc.PythonModel):
    """The trained encoder; ``predict`` returns an array (n, latent)."""

    def load_context(self, context: Any) -> None:
        """Read the state dict beside the model."""
        if (loaded := load_encoder(Path(context.artifacts["encoder"]))) is None:
            raise FileNotFoundError(f"{context.artifacts['encoder']}: no encoder here")
        self.encoder = loaded[0]

    def predict(self, context: Any, model_input: Any, params: Any = None) -> np.ndarray:
        """Latent means of events."""
        inputs = (np.asarray(model_input[name], np.float32) for name in ("objects", "event"))
        return embed(self.encoder, *inputs)[0]


mlflow.models.set_model(ServedEncoder())
