"""What the bins add to -2 ln L: values, slopes and information against their expectations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Cost:
    """Of R data sets in B bins with expectation ``mu`` (R, B): ``value`` (R,) is -2 ln L.

    ``slope``: (R, B) derivative by mu. ``info``: (R, B) half the expected second derivative. ``beta``: (R, B) best
    factors of a simulated background, or None.
    """

    mu: np.ndarray
    value: np.ndarray
    slope: np.ndarray
    info: np.ndarray
    beta: np.ndarray | None = None


def gaussian(n: np.ndarray, mu: np.ndarray, variance: np.ndarray) -> Cost:
    """Chi-square."""
    value = ((n - mu) ** 2 / variance).sum(1)
    return Cost(mu, value, 2 * (mu - n) / variance, np.broadcast_to(1 / variance, mu.shape))


def poisson(n: np.ndarray, mu: np.ndarray, scale: np.ndarray, linear: bool) -> Cost:
    """Ratio to the saturated model (Baker and Cousins 1984, equation 8), of contents n/scale; NaN for mu <= 0.

    ``linear`` (mu in the parameters): information with the observed part n / mu^2, so that steps do not overshoot.
    """
    safe = np.where(mu > 0, mu, np.nan)
    value = (_deviance(n, safe) / scale).sum(1)
    slope, info = 2 * (1 - n / safe) / scale, 1 / (safe * scale)
    return Cost(mu, value, slope, (0.1 + 0.9 * n / safe) * info if linear else info)


def simulated(
    n: np.ndarray, b: np.ndarray, t: np.ndarray, scale: np.ndarray, error: np.ndarray, centre: np.ndarray | float
) -> Cost:
    """Poisson with mu = beta b + t, beta constrained to ``centre`` with the relative ``error`` of the simulation.

    Beta is profiled in closed form (Barlow-Beeston "lite", Conway 1103.0354, section 5). Neither it nor mu becomes
    negative: in an empty bin beta makes up for a negative t, and -2 ln L has a kink at t = 0 where beta is nought.
    """
    error = np.maximum(error, 1e-9)
    v = error**2
    linear = v * b * b / scale + t - centre * b
    constant = v * b * (t - n) / scale - centre * t
    root = np.sqrt(np.maximum(linear**2 - 4 * b * constant, 0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        # The root without cancellation, whichever sign ``linear`` has.
        beta = np.where(linear > 0, -2 * constant / (linear + root), (root - linear) / (2 * b))
        beta = np.where(n == 0, np.maximum(centre - v * b / scale, -t / b), beta)
        beta = np.where(b > 0, np.maximum(beta, 0.0), 1.0)
        mu = np.where(n == 0, np.maximum(beta * b + t, 0.0), beta * b + t)
        value = (_deviance(n, mu) / scale).sum(1) + (((beta - centre) / error) ** 2).sum(1)
        slope = 2 * (1 - n / np.where(n > 0, mu, 1.0)) / scale
        slope = np.where((n == 0) & (t < 0), 2 * (centre - beta) / (v * b), slope)  # of the constraint, at mu = 0
        info = 1 / (mu * scale + (error * b) ** 2)
    return Cost(mu, value, slope, info, beta)


def _deviance(n: np.ndarray, mu: np.ndarray) -> np.ndarray:
    """2 [mu - n + n ln(n / mu)] without cancellation for n near mu."""
    filled = np.where(n > 0, n, 1.0)
    away = (mu - filled) / filled
    with np.errstate(divide="ignore", invalid="ignore"):  # impossible expectations, refused by whoever asks
        return 2 * np.where(n > 0, filled * (away - np.log1p(away)), mu)
