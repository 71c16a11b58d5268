"""The signal region and the sidebands of the conditional mass."""

from __future__ import annotations

import numpy as np

from raypipe.config.sections import MassWindow


def in_signal_region(mass: np.ndarray, window: MassWindow) -> np.ndarray:
    """Mask of masses in the signal region [sr_low, sr_high)."""
    return (mass >= window.sr_low) & (mass < window.sr_high)


def in_sidebands(mass: np.ndarray, window: MassWindow) -> np.ndarray:
    """Mask of masses in the window but not in the signal region."""
    return (mass >= window.low) & (mass < window.high) & ~in_signal_region(mass, window)
