"""The common event bootstrap against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from raypipe.stats.roc import bootstrapped_efficiency, poisson_weights, replicated_sic


def bootstrapped_sic(signal, signal_id, background, background_id, seed, weight=None, replicas=200):
    """SIC of one cut in every replica, as `raypipe.search.evaluate` makes it; masks of who passes."""
    efficiency = bootstrapped_efficiency(signal, poisson_weights(signal_id, seed, replicas))
    drawn = poisson_weights(background_id, seed, replicas)
    return replicated_sic(efficiency, bootstrapped_efficiency(background, drawn, weight))


def test_weights_are_poisson_and_belong_to_the_event():
    weights = poisson_weights(np.arange(20_000), seed=1, replicas=50)
    assert weights.mean() == pytest.approx(1, abs=0.005)  # a million of variance one: 0.001
    assert weights.var() == pytest.approx(1, abs=0.01)
    assert (weights == 0).mean() == pytest.approx(np.exp(-1), abs=0.002)
    assert (poisson_weights(np.array([17, 3]), seed=1, replicas=50) == weights[:, [17, 3]]).all()


def test_the_error_is_that_of_efficiencies():
    """Relative variance of eps_S / sqrt(eps_B): (1 - eps_S)/(n eps_S) + (1 - eps_B)/(4 m eps_B)."""
    n, m, eps_s, eps_b = 2000, 30_000, 0.4, 0.01
    signal, background = np.arange(n) < n * eps_s, np.arange(m) < m * eps_b
    ids = np.arange(n + m)
    replicas = bootstrapped_sic(signal, ids[:n], background, ids[n:], seed=2, replicas=500)
    exact = eps_s / np.sqrt(eps_b)
    error = exact * np.sqrt((1 - eps_s) / (n * eps_s) + (1 - eps_b) / (4 * m * eps_b))
    assert replicas.mean() == pytest.approx(exact, rel=0.01)
    assert replicas.std(ddof=1) == pytest.approx(error, rel=0.12)  # of 500 replicas: 3.2 %


def test_the_error_is_what_a_repetition_shows():
    """Evaluation samples drawn again and again: the spread of their SIC is the error that one of them quotes."""
    rng = np.random.default_rng(3)
    found, quoted = [], []
    for repeat in range(80):
        signal, background = rng.random(500) < 0.5, rng.random(5000) < 0.02
        found.append(signal.mean() / np.sqrt(background.mean()))
        ids = np.arange(5500) + 10_000 * repeat
        quoted.append(bootstrapped_sic(signal, ids[:500], background, ids[500:], seed=4, replicas=60).std(ddof=1))
    assert np.std(found, ddof=1) == pytest.approx(np.mean(quoted), rel=0.25)  # of 80 repetitions: 8 %


def test_what_shares_events_shares_their_fluctuation():
    """Two cuts on the same events: the error of their difference is far below that of independent ones."""
    rng = np.random.default_rng(5)
    s, b = rng.random(3000), rng.random(40_000)
    ids = np.arange(43_000)
    a, c = (
        bootstrapped_sic(s < 0.5 + shift, ids[:3000], b < 0.01, ids[3000:], seed=6, replicas=300) for shift in (0, 0.02)
    )
    assert np.std(a - c) < 0.3 * np.hypot(a.std(), c.std())


def test_expected_events_weigh_and_an_empty_cut_is_nan():
    ids = np.arange(4000)
    background = np.arange(2000) < 100
    weights = np.where(background, 2.0, 1.0)
    replicas = bootstrapped_sic(np.ones(2000, bool), ids[:2000], background, ids[2000:], 7, weights, replicas=400)
    assert replicas.mean() == pytest.approx(1 / np.sqrt(200 / 2100), rel=0.02)
    none = bootstrapped_sic(np.ones(2000, bool), ids[:2000], np.zeros(2000, bool), ids[2000:], 7, replicas=3)
    assert np.isnan(none).all()
