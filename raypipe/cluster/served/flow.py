"""MLflow model: log-density of latents given the mass. Input: ``latent`` (n, d) float32 and ``mass`` (n,) in GeV."""

from __future__ import annotations

from typing import Any

import mlflow
import numpy as np
import torch

from raypipe.fit.flows import ConditionalFlow


class ServedFlow(mlflow.pyfunc.PythonModel):
    """The trained background model; ``predict`` returns log p(latent | mass) in nats, (n,)."""

    def load_context(self, context: Any) -> None:
        """Read the state dict beside the model."""
        self.flow = ConditionalFlow.from_state(torch.load(context.artifacts["flow"], weights_only=True))

    def predict(self, context: Any, model_input: Any, params: Any = None) -> np.ndarray:
        """Log-densities of events."""
        return self.flow.log_prob(np.asarray(model_input["latent"]), np.asarray(model_input["mass"]).reshape(-1))


mlflow.models.set_model(ServedFlow())
