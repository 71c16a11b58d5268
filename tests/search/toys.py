"""A feature table with sidebands where everything is known."""

from __future__ import annotations

import numpy as np

WINDOW = {"low": 2.5, "sr_low": 3.3, "sr_high": 3.7, "high": 5.0}
SIGNAL = 2.2
"""Mean of the signal in both underlying normal features; its width is 0.4."""


def underlying(mass: np.ndarray) -> np.ndarray:
    """Mean of the background's normal features: it moves with the mass."""
    return np.stack([0.5 * (mass - 3.5), -0.3 * (mass - 3.5)], axis=1)


def toy_table(background: int, signal: int, seed: int) -> np.ndarray:
    """(n, 4): mass in TeV, two features in (0, 1) (the logistic function of normals), label; shuffled."""
    rng = np.random.default_rng(seed)
    u, width = rng.random(background), WINDOW["high"] - WINDOW["low"]
    mass = WINDOW["low"] - 0.9 * np.log(1 - u * (1 - np.exp(-width / 0.9)))
    z = underlying(mass) + rng.normal(size=(background, 2))
    mass = np.r_[mass, rng.normal(3.5, 0.05, signal)]
    z = np.r_[z, rng.normal(SIGNAL, 0.4, (signal, 2))]
    label = np.r_[np.zeros(background), np.ones(signal)]
    return np.c_[mass, 1 / (1 + np.exp(-z)), label][rng.permutation(background + signal)]


def log_likelihood_ratio(table: np.ndarray) -> np.ndarray:
    """The best possible classifier of `toy_table`."""
    z = np.log(table[:, 1:3] / (1 - table[:, 1:3]))
    background = ((z - underlying(table[:, 0])) ** 2).sum(1) / 2
    return background - ((z - SIGNAL) ** 2).sum(1) / (2 * 0.4**2)
