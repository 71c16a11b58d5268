"""Confidence intervals of efficiencies."""

from __future__ import annotations

import math

from scipy import special

ONE_SIGMA = 0.6826894921370859


def clopper_pearson(passed: float, total: float, level: float = ONE_SIGMA) -> tuple[float, float]:
    """Interval of an efficiency that covers at least ``level`` for every true value (Clopper and Pearson 1934).

    Quantiles of beta distributions; one-sided limits at 0 and 1 keep their full (1 - level)/2 tail.
    """
    _check(passed, total, level)
    tail = (1 - level) / 2
    low = 0.0 if passed == 0 else float(special.betaincinv(passed, total - passed + 1, tail))
    high = 1.0 if passed == total else float(special.betaincinv(passed + 1, total - passed, 1 - tail))
    return low, high


def wilson(passed: float, total: float, level: float = ONE_SIGMA) -> tuple[float, float]:
    """Score interval of an efficiency (Wilson 1927): shorter, covers ``level`` on average. Takes effective numbers of
    weighted events (not whole) as well.
    """
    _check(passed, total, level)
    z = float(special.ndtri(0.5 + level / 2))
    p = passed / total
    centre = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    return max(0.0, centre - half), min(1.0, centre + half)


def _check(passed: float, total: float, level: float) -> None:
    if not (0 <= passed <= total and total > 0 and 0 < level < 1):
        raise ValueError(f"an efficiency needs 0 <= passed <= total > 0 and 0 < level < 1; got {passed}/{total}")
