"""Does a cut change the mass spectrum of the background? A chi2 test of equal passing shares in all mass bins."""

from __future__ import annotations

import numpy as np
from scipy.stats import chi2


def sculpting_test(
    mass: np.ndarray, passed: np.ndarray, edges: np.ndarray, fewest: float = 5.0
) -> tuple[float, int, float]:
    """Homogeneity test of the passing share over mass bins (paper C, figure 3: no sculpting of m_yy).

    Neighbouring bins are joined until each expects at least ``fewest`` passing and failing events (Cochran's rule).

    Args:
        mass: (n,) background events. passed: (n,) whether each passes the cut. edges: bin edges.

    Returns:
        chi2, number of degrees of freedom (bins - 1) and p-value; ``(nan, 0, nan)`` when fewer than two bins are left.
    """
    total = np.histogram(mass, edges)[0].astype(float)
    kept = np.histogram(mass[passed], edges)[0].astype(float)
    share = kept.sum() / max(total.sum(), 1.0)
    rare = total * min(share, 1 - share)
    n, k = [], []
    start = 0
    for stop in range(1, len(rare) + 1):
        if rare[start:stop].sum() >= fewest:
            n.append(total[start:stop].sum())
            k.append(kept[start:stop].sum())
            start = stop
    if start < len(rare) and n:  # what is left over joins the last bin
        n[-1] += total[start:].sum()
        k[-1] += kept[start:].sum()
    if len(n) < 2:
        return float("nan"), 0, float("nan")
    n, k = np.array(n), np.array(k)
    value = float((((k - share * n) ** 2) / (share * (1 - share) * n)).sum())
    return value, len(n) - 1, float(chi2.sf(value, len(n) - 1))
