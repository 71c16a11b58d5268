"""The nine event features as numbers that a density can follow: logarithms of energies, steps smeared.

Uniform noise of one step's width makes counts continuous (1306.0186); absent ones go to a narrow bump below the rest.
"""

import numpy as np
from scipy.special import ndtri

from raypipe import seeds
from raypipe.events.schema import FEATURES

LOGARITHMIC = {"pt_yy": 10.0, "m_jj": 50.0, "ht": 50.0, "met": 10.0}
"""Energies, entered as log(1 + x / scale), with their scale in GeV."""
COUNTS = ("has_lepton", "n_photon", "n_jet")
ABSENT = ("m_jj", "dr_jj", "ht")  # Zero where there are too few jets


def continuous_features(features: np.ndarray, event_ids: np.ndarray, seed: int) -> np.ndarray:
    """Continuous versions (n, 9) float64 of the nine features (n, 9); the noise belongs to the event's id."""
    out = np.array(features, dtype=np.float64)
    for k, name in enumerate(FEATURES):
        absent = out[:, k] == 0
        if name in LOGARITHMIC:
            out[:, k] = np.log1p(np.maximum(out[:, k], 0) / LOGARITHMIC[name])
        if name in COUNTS:
            out[:, k] += seeds.uniform_by_id(event_ids, seed, "dequantise", name) - 0.5
        if name in ABSENT:
            noise = ndtri(seeds.uniform_by_id(event_ids[absent], seed, "absent", name))
            out[absent, k] = -1.0 + 0.1 * noise
    return out
