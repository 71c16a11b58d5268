"""Pseudo-data: yields, independence and truth."""

from __future__ import annotations

import numpy as np
import pytest

from raypipe.config import MassWindow
from raypipe.errors import UserError
from raypipe.events.latents import Events
from raypipe.events.pseudodata import disjoint_instances, draw, expected_background, expected_overlap

WINDOW = MassWindow()


def sample(n: int, weight: float, first: int, mass: np.ndarray | None = None, spread: bool = False) -> Events:
    rng = np.random.default_rng(first)
    mass = rng.uniform(105, 160, n) if mass is None else mass
    w = np.full(n, weight) * (rng.uniform(0.5, 1.5, n) if spread else 1)
    latent, posterior = rng.normal(size=(n, 2)).astype("f4"), np.zeros((n, 2, 2), "f4")
    return Events(np.arange(first, first + n), mass, w, latent, np.zeros((n, 9), "f4"), posterior)


BACKGROUND = {"yy": sample(4000, 0.1, 0), "ggf": sample(500, 0.01, 10_000, spread=True)}
EVEN = BACKGROUND | {"ggf": sample(500, 0.01, 10_000)}
SIGNAL = sample(3000, 0.02, 20_000, np.random.default_rng(9).normal(125, 4, 3000))


def test_yields_are_poisson_around_weight_times_luminosity():
    counts = [len(draw(BACKGROUND, 5.0, WINDOW, seed=1, instance=i).events) for i in range(300)]
    expected = 5 * sum(e.weight.sum() for e in BACKGROUND.values())
    assert np.mean(counts) == pytest.approx(expected, abs=4 * np.sqrt(expected / 300))
    assert np.var(counts) == pytest.approx(expected, rel=0.35)


def test_injection_has_the_asked_strength_in_the_signal_region():
    b = expected_background(BACKGROUND, 5.0, WINDOW)
    inside = []
    for i in range(200):
        data = draw(BACKGROUND, 5.0, WINDOW, seed=1, instance=i, signal=("s", SIGNAL), strength=2.0)
        inside.append(WINDOW.inside(data.events.mass[data.is_signal]).sum())
        assert set(data.events.event_id[data.is_signal]) <= set(SIGNAL.event_id)
    wanted = 2 * np.sqrt(b)
    assert np.mean(inside) == pytest.approx(wanted, abs=4 * np.sqrt(wanted / 200))


def test_background_of_an_instance_does_not_depend_on_the_injection():
    plain = draw(BACKGROUND, 5.0, WINDOW, seed=1, instance=3)
    injected = draw(BACKGROUND, 5.0, WINDOW, seed=1, instance=3, signal=("s", SIGNAL), strength=3.0)
    other = draw(BACKGROUND, 5.0, WINDOW, seed=1, instance=4)
    assert set(injected.events.event_id[~injected.is_signal]) == set(plain.events.event_id)
    assert set(other.events.event_id) != set(plain.events.event_id)


def test_nothing_is_drawn_twice_and_the_rest_is_left_over():
    data = draw(BACKGROUND, 5.0, WINDOW, seed=1, instance=0, signal=("s", SIGNAL), strength=1.0)
    ids = data.events.event_id
    assert len(np.unique(ids)) == len(ids)
    every = np.concatenate([e.event_id for e in BACKGROUND.values()])
    assert set(data.left_over.event_id) == set(every) - set(ids)
    assert set(data.signal_left_over.event_id) == set(SIGNAL.event_id) - set(ids)


def test_what_is_left_over_can_stand_for_the_full_yield_of_every_sample():
    data = draw(BACKGROUND, 5.0, WINDOW, seed=1, instance=0)
    restored = data.left_over.weight * data.left_over_scale
    for name, events in BACKGROUND.items():
        mine = np.isin(data.left_over.event_id, events.event_id)
        assert 0 < mine.sum() < len(events), name
        assert restored[mine].sum() == pytest.approx(events.weight.sum())


def test_overlap_of_two_instances():
    sets = [set(draw(BACKGROUND, 5.0, WINDOW, seed=1, instance=i).events.event_id) for i in range(12)]
    shared = [len(a & b) / len(a) for i, a in enumerate(sets) for b in sets[:i]]
    assert np.mean(shared) == pytest.approx(expected_overlap(BACKGROUND, 5.0), abs=0.02)


def test_asking_for_more_than_was_simulated_is_refused():
    with pytest.raises(UserError, match=r"100 fb\^-1 needs \d+ events of 'yy' .* holds 4000"):
        draw(BACKGROUND, 100.0, WINDOW, seed=1, instance=0)
    with pytest.raises(UserError, match=r"strength 1000 needs \d+ events of 's'"):
        draw(BACKGROUND, 5.0, WINDOW, seed=1, instance=0, signal=("s", SIGNAL), strength=1000.0)
    outside = sample(50, 0.1, 0, np.full(50, 110.0))
    with pytest.raises(UserError, match="'s' has no events in 120-130 GeV"):
        draw(BACKGROUND, 5.0, WINDOW, seed=1, instance=0, signal=("s", outside), strength=1.0)


def test_disjoint_instances_share_nothing_and_keep_yield_and_weights():
    fit = disjoint_instances(EVEN, 1.0)
    assert fit == 7  # 4000 / (400 + 4 sqrt(800) + 1): yy; more of ggf
    sets = [draw(EVEN, 1.0, WINDOW, seed=1, instance=i, disjoint=True) for i in range(fit)]
    ids = np.concatenate([data.events.event_id for data in sets])
    assert len(np.unique(ids)) == len(ids)
    expected = sum(e.weight.sum() for e in EVEN.values())
    counts = [
        len(draw(EVEN, 1.0, WINDOW, seed=seed, instance=i, disjoint=True).events)
        for seed in range(40)
        for i in range(fit)
    ]
    assert np.mean(counts) == pytest.approx(expected, abs=4 * np.sqrt(expected / len(counts)))
    assert np.var(counts) == pytest.approx(expected, rel=0.35)
    for data in sets:
        every = np.r_[data.events.event_id, data.left_over.event_id]
        assert len(np.unique(every)) == len(every) == sum(map(len, EVEN.values()))


def test_more_disjoint_instances_than_fit_are_refused():
    with pytest.raises(UserError, match=r"8 instances .* 7 of 1 fb\^-1 fit into the 4000 search events of 'yy'"):
        draw(EVEN, 1.0, WINDOW, seed=1, instance=7, disjoint=True)
    assert expected_overlap(EVEN, 1.0, disjoint=True) == 0
    with pytest.raises(UserError, match=r"^pseudodata.disjoint: the events of 'ggf' have different weights$"):
        draw(BACKGROUND, 1.0, WINDOW, seed=1, instance=0, disjoint=True)
