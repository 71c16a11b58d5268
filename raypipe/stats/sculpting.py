"""Does a cut change the mass spectrum of the background? A chi2 test of equal passing shares in all mass bins."""

from __future__ import annotations

import numpy as np
from scipy.stats import chi2

from raypipe.stats.bins import groups


def sculpting_test(
    mass: np.ndarray, passed: np.ndarray, edges: np.ndarray, fewest: float = 5.0
) -> tuple[float, int, float]:
    """Homogeneity test of the passing share over mass bins (paper C, figure 3): chi2, degrees of freedom, p-value.

    Neighbouring bins are joined until each expects at least ``fewest`` passing and failing events (Cochran's rule);
    ``(nan, 0, nan)`` when fewer than two bins are left.
    """
    total = np.histogram(mass, edges)[0].astype(float)
    kept = np.histogram(mass[passed], edges)[0].astype(float)
    share = kept.sum() / max(total.sum(), 1.0)
    starts = groups(total * min(share, 1 - share), fewest)
    if len(starts) < 2:
        return float("nan"), 0, float("nan")
    n, k = np.add.reduceat(total, starts), np.add.reduceat(kept, starts)
    value = float((((k - share * n) ** 2) / (share * (1 - share) * n)).sum())
    return value, len(n) - 1, float(chi2.sf(value, len(n) - 1))
