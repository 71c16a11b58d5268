"""Train an ensemble of conditional flows on sideband latents, and draw background events from it (CATHODE step one).

Source: paper C, section III.2, and CATHODE (2109.00546): a density p(latent | m_yy) learned in the sidebands is
interpolated to masses of the signal region.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from raypipe.config import Flow as FlowConfig
from raypipe.files import code_digest, digest
from raypipe.fit.conditional import ConditionalFlow
from raypipe.fit.flow_training import MIN_EVENTS, FlowTraining, Sidebands
from raypipe.models import native

__all__ = ["MIN_EVENTS", "ConditionalFlow", "fit_flows", "fit_flows_once"]


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
    """Train ``config.members`` flows together on (latents, masses) of the sidebands of one pseudo-data set.

    Args:
        latents: (n, d); masses: (n,) GeV; window: mass range mapped to [-1, 1].
        folds: parts of the data; a search takes as many as its classifier has folds.
        posterior: see `Sidebands`.

    Raises:
        UserError: too few sideband events, NaN or infinite latents, or a flow that diverged.
    """
    training = FlowTraining([Sidebands(latents, masses, seed, posterior)], window, config, folds=folds, device=device)
    while not training.finished:
        record = training.finish_epoch(training.train_epoch())
        if on_epoch:
            on_epoch(record)
    return training.flows()[0]


def fit_flows_once(
    latents: np.ndarray,
    masses: np.ndarray,
    window: tuple[float, float],
    config: FlowConfig,
    *,
    seed: int,
    folds: int = 5,
    device: str = "cpu",
    posterior: np.ndarray | None = None,
    stage: Callable[[str, str, Callable[[], dict[str, Any]]], dict[str, Any]] | None = None,
) -> tuple[ConditionalFlow, str | None]:
    """`fit_flows`, or the same flow as trained before on the same sidebands; also its key if ``stage`` keeps it.

    The key holds the events, the window, the configuration, the seed and the code. What comes back has the bits of
    what was trained, but no history.
    """

    def train() -> ConditionalFlow:
        return fit_flows(latents, masses, window, config, seed=seed, folds=folds, device=device, posterior=posterior)

    if stage is None:
        return train(), None
    arrays = hashlib.sha256()
    for values in (latents, masses, *(() if posterior is None else (posterior,))):
        arrays.update(np.ascontiguousarray(values).tobytes())
    key = digest(
        {
            "events": arrays.hexdigest(),
            "window": list(window),
            "flow": config.model_dump(mode="json"),
            "seed": seed,
            "folds": folds,
            "device": device,
            "torch": torch.__version__,
            "kernel": native.name(),
            "code": code_digest("models", "fit"),
        }
    )
    return ConditionalFlow.from_state(stage("flow", key, lambda: train().state())), key
