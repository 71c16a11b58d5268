"""Upper limits on a signal strength from the response of a statistic (large is anomalous) to injected signal."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from raypipe.stats.calibration import bands


@dataclass(frozen=True)
class Limit:
    """A 95 % limit in strength; None where the scan does not reach it; ``bound``: its first point is excluded."""

    value: float | None
    low: float | None
    high: float | None
    bound: bool = False

    def scaled(self, factor: float) -> Limit:
        """In other units."""
        scaled = (None if v is None else v * factor for v in (self.value, self.low, self.high))
        return Limit(*scaled, bound=self.bound)


def crossing(strengths: np.ndarray, values: np.ndarray, level: float) -> float | None:
    """The last strength from which on ``values`` stay at or above ``level``, linear in between; None if they do not."""
    above = np.asarray(values) >= level
    if not above[-1]:
        return None
    first = len(above) - int(np.argmin(above[::-1])) if not above.all() else 0
    if first == 0:
        return float(strengths[0])
    x0, x1, y0, y1 = strengths[first - 1], strengths[first], values[first - 1], values[first]
    return float(x0 + (level - y0) / (y1 - y0) * (x1 - x0))


def crossing_limit(null: np.ndarray, strengths: np.ndarray, injected: np.ndarray) -> Limit:
    """Where the mean over injections (s, instances) leaves the 2 sigma band of the null (N,) (paper B, section 4).

    The uncertainty is the paper's: where mean + and - one standard deviation over the injections cross.
    """
    level = bands(null)["high_2"]
    mean, spread = injected.mean(1), injected.std(1, ddof=1)
    value = crossing(strengths, mean, level)
    bound = value is not None and bool(value <= strengths[0])
    return Limit(value, crossing(strengths, mean + spread, level), crossing(strengths, mean - spread, level), bound)


def cls(observed: float, null: np.ndarray, strengths: np.ndarray, injected: np.ndarray) -> np.ndarray:
    """``CLs = p_{s+b} / (1 - p_b)`` at strength 0 (where it is 1) and each of ``strengths`` (Read 2002).

    ``1 - p_b`` is counted from the replicas as ``(1 + n) / (N + 1)``; ``p_{s+b}`` is from a normal distribution,
    because ten injections cannot be counted to 5 %.
    """
    below = (1 + (null <= observed).sum()) / (len(null) + 1)
    p = stats.norm.cdf(observed, injected.mean(1), np.maximum(injected.std(1, ddof=1), 1e-300))
    return np.r_[1.0, np.minimum(p / below, 1.0)]


def cls_limit(
    observed: float, null: np.ndarray, strengths: np.ndarray, injected: np.ndarray, confidence: float = 0.95
) -> float | None:
    """Strength above which CLs stays at or below ``1 - confidence``; CLs is interpolated in its logarithm."""
    values = cls(observed, null, strengths, injected)[1:]
    return crossing(strengths, -np.log(np.maximum(values, 1e-12)), -math.log(1 - confidence))


def expected_cls_limit(null: np.ndarray, strengths: np.ndarray, injected: np.ndarray) -> Limit:
    """CLs limit for a background-only observation: at the median of the replicas; the interval holds the limits at
    their 1 sigma quantiles. It need not be ordered as the observation is: signal also widens a statistic."""
    found = bands(null)
    value, *others = (cls_limit(found[k], null, strengths, injected) for k in ("median", "low_1", "high_1"))
    known = [v for v in (value, *others) if v is not None]
    low, high = (min(known), max(known)) if known else (None, None)
    bound = value is not None and bool(value <= strengths[0])
    return Limit(value, low, None if None in others else high, bound)
