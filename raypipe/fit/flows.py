"""Train an ensemble of conditional flows on sideband latents, and draw background from it (CATHODE, 2109.00546)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from raypipe.config import Flow as FlowConfig
from raypipe.files import code_of, digest
from raypipe.fit.conditional import ConditionalFlow
from raypipe.fit.flow_stack import MIN_EVENTS, Sidebands, blocks_of
from raypipe.fit.flow_training import FlowTraining
from raypipe.fit.training import OnEpoch, finish
from raypipe.models import native

__all__ = ["MIN_EVENTS", "ConditionalFlow", "FlowSet", "fit_flows"]


@dataclass(frozen=True)
class FlowSet:
    """The flows of one pseudo-data set, before they are trained; masses of ``window`` (GeV) are mapped to [-1, 1]."""

    sidebands: Sidebands
    window: tuple[float, float]
    config: FlowConfig
    folds: int = 5
    device: str = "cpu"

    @property
    def key(self) -> str:
        """Hash of the events, the window, the configuration, the seed and the code."""
        data, arrays = self.sidebands, hashlib.sha256()
        for values in (data.latents, data.masses, *(() if data.posterior is None else (data.posterior,))):
            arrays.update(np.ascontiguousarray(values).tobytes())
        return digest(
            {
                "events": arrays.hexdigest(),
                "window": list(self.window),
                "flow": self.config.model_dump(mode="json"),
                "seed": data.seed,
                "folds": self.folds,
                "device": self.device,
                "torch": torch.__version__,
                "kernel": native.name(),
                "code": code_of("raypipe.fit.flows"),
            }
        )

    @property
    def blocks(self) -> list[list[int]]:
        """See `raypipe.fit.flow_stack.blocks_of`."""
        return blocks_of(self.sidebands, self.config, self.folds)

    def fit(self, on_epoch: OnEpoch | None = None) -> ConditionalFlow:
        """Train ``config.members`` flows in this process. Raises `UserError`: a flow that diverged."""
        training = FlowTraining([self.sidebands], self.window, self.config, folds=self.folds, device=self.device)
        finish(training, on_epoch)
        return training.flow(0)


def fit_flows(
    latents: np.ndarray,
    masses: np.ndarray,
    window: tuple[float, float],
    config: FlowConfig,
    *,
    seed: int,
    folds: int = 5,
    device: str = "cpu",
    posterior: np.ndarray | None = None,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
) -> ConditionalFlow:
    """`FlowSet.fit` of latents (n, d) and masses (n,) in GeV; ``posterior``: see `Sidebands`."""
    return FlowSet(Sidebands(latents, masses, seed, posterior), window, config, folds, device).fit(on_epoch)
