"""Flows of arrays, for tests."""

from __future__ import annotations

import numpy as np

from raypipe.config import Flow
from raypipe.fit.flows import ConditionalFlow, FlowSet, Sidebands


def fit_flows(
    latents: np.ndarray,
    masses: np.ndarray,
    window: tuple[float, float],
    config: Flow,
    *,
    seed: int,
    folds: int = 5,
    posterior: np.ndarray | None = None,
) -> ConditionalFlow:
    """`FlowSet.fit` of latents (n, d) and masses (n,) in GeV; ``posterior``: see `Sidebands`."""
    return FlowSet(Sidebands(latents, masses, seed, posterior), window, config, folds).fit()
