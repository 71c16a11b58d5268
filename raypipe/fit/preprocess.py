"""Features for a flow: bounded ones to the whole line by logit (CATHODE, 2109.00546), others made smooth, and back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raypipe import seeds
from raypipe.config.table import Preprocess
from raypipe.fit.smooth import Pieces, Plain, fit_feature


@dataclass(frozen=True)
class Scaler:
    """Maps features (n, d) to the space of the flow; the flow itself standardises."""

    names: tuple[str, ...]
    features: tuple[Plain | Pieces, ...]

    def bounded(self, features: np.ndarray) -> np.ndarray:
        """The nearest values that the sidebands know: what lies beyond them must not be seen as such."""
        return self._each("bounded", features)

    def forward(self, features: np.ndarray, seed: int) -> np.ndarray:
        """To the space of the flow; ``seed``: of what spreads values that many events share."""
        noise = seeds.generator(seed, "dequantise").random(features.shape)
        columns = zip(self.features, features.T, noise.T, strict=True)
        return np.column_stack([feature.forward(x, uniform) for feature, x, uniform in columns])

    def inverse(self, values: np.ndarray) -> np.ndarray:
        """Back to features, with the values that they take; float64."""
        return self._each("inverse", values.astype(np.float64))

    def _each(self, what: str, values: np.ndarray) -> np.ndarray:
        return np.column_stack([getattr(f, what)(column) for f, column in zip(self.features, values.T, strict=True)])

    @property
    def said(self) -> str:
        """Which features were not smooth, and how; empty where all are."""
        return "; ".join(f"{name}: {f.said}" for name, f in zip(self.names, self.features, strict=True) if f.said)


def fit_scaler(features: np.ndarray, names: tuple[str, ...], config: Preprocess) -> Scaler:
    """The maps of all features from the sideband events (n, d), of which each varies."""
    logit = config.kind == "logit"
    return Scaler(names, tuple(fit_feature(x, logit=logit, margin=config.margin) for x in features.T))
