"""Bounded features for a flow: logit and back (CATHODE, 2109.00546)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raypipe.config.table import Preprocess
from raypipe.errors import UserError

_EDGE = 1e-9


@dataclass(frozen=True)
class Scaler:
    """Maps features (n, d) to the space of the flow; the flow itself standardises."""

    kind: str
    low: np.ndarray
    """(d,) lower bounds."""
    high: np.ndarray

    def bounded(self, features: np.ndarray) -> np.ndarray:
        """Features clipped to the bounds: what lies beyond what the sidebands know must not be seen as such."""
        return np.clip(features, self.low, self.high) if self.kind == "logit" else features

    def forward(self, features: np.ndarray) -> np.ndarray:
        """To the space of the flow."""
        if self.kind == "standard":
            return features
        u = np.clip((features - self.low) / (self.high - self.low), _EDGE, 1 - _EDGE)
        return np.log(u / (1 - u))

    def inverse(self, values: np.ndarray) -> np.ndarray:
        """Back to features; float64."""
        if self.kind == "standard":
            return values.astype(np.float64)
        return self.low + (self.high - self.low) / (1 + np.exp(-values.astype(np.float64)))


def fit_scaler(features: np.ndarray, names: tuple[str, ...], config: Preprocess) -> Scaler:
    """Bounds from the sideband events, ``config.margin`` of the range wider on either side.

    Raises:
        UserError: a feature that never varies.
    """
    low, high = features.min(0), features.max(0)
    flat = np.flatnonzero(high <= low)
    if len(flat):
        raise UserError(f"feature {names[flat[0]]!r} is {low[flat[0]]:g} in every sideband event: leave it out")
    wider = config.margin * (high - low)
    return Scaler(config.kind, low - wider, high + wider)
