"""Flat arrays with an event number each: the few ragged operations the detector needs, vectorised."""

from __future__ import annotations

import numpy as np

TWO_PI = 2 * np.pi


def wrap_phi(phi: np.ndarray) -> np.ndarray:
    """``phi`` wrapped to [-pi, pi)."""
    return (phi + np.pi) % TWO_PI - np.pi


def same_event_pairs(event_a: np.ndarray, event_b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices (ia, ib) of all pairs of one entry of a and one of b in the same event; ``event_b`` must be sorted."""
    start = np.searchsorted(event_b, event_a, "left")
    count = np.searchsorted(event_b, event_a, "right") - start
    ia = np.repeat(np.arange(len(event_a)), count)
    within = np.arange(len(ia)) - np.repeat(np.cumsum(count) - count, count)
    return ia, np.repeat(start, count) + within


def delta_r(eta_a: np.ndarray, phi_a: np.ndarray, eta_b: np.ndarray, phi_b: np.ndarray) -> np.ndarray:
    """Distance in the eta-phi plane."""
    return np.hypot(eta_a - eta_b, wrap_phi(phi_a - phi_b))


def order_and_rank(event: np.ndarray, key: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Permutation that sorts by event, then by falling ``key``, and each sorted entry's place in its event (0, 1..)."""
    order = np.lexsort((-key, event))
    sorted_event = event[order]
    return order, np.arange(len(order)) - np.searchsorted(sorted_event, sorted_event, "left")


def sum_by_event(event: np.ndarray, values: np.ndarray, n_events: int) -> np.ndarray:
    """Sum of ``values`` in each of ``n_events`` events."""
    return np.bincount(event, weights=values, minlength=n_events).astype(np.float64)
