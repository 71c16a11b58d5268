"""Channels that cover phase space with the density they claim."""

from __future__ import annotations

from math import factorial, pi

import numpy as np
import pytest

from raypipe.simulate.fourlepton.phase_space import N_CHANNELS, PhaseSpace

BEAM_ENERGY, MAX_ETA = 1000.0, 2.5


@pytest.fixture(scope="module")
def drawn():
    space = PhaseSpace(BEAM_ENERGY, min_pair=2.0, min_total=20.0, max_eta=MAX_ETA, z=(91.1876, 2.4952))
    shares = np.full(N_CHANNELS, 1 / N_CHANNELS)
    points = space.draw(60_000, shares, np.random.default_rng(3))
    densities = space.densities(points)
    return points, densities, shares @ densities


def test_momenta_are_conserved_and_on_shell(drawn):
    points, _, _ = drawn
    total = points.leptons.sum(axis=1)
    root = np.sqrt(points.s)
    assert total[:, 0] == pytest.approx(root, rel=1e-9)
    assert np.abs(total[:, 1:] / root[:, None]).max() < 1e-9
    mass2 = points.leptons[..., 0] ** 2 - (points.leptons[..., 1:] ** 2).sum(axis=2)
    assert np.abs(mass2 / points.s[:, None]).max() < 1e-9
    assert (points.leptons[..., 0] > 0).all()
    assert (np.abs(points.rapidity) <= MAX_ETA).all()
    assert np.abs(points.rapidity + np.log(root / BEAM_ENERGY)).max() > 0
    x = root / BEAM_ENERGY * np.exp(np.abs(points.rapidity))
    assert x.max() <= 1 + 1e-9


def test_each_channel_has_unit_norm(drawn):
    _, densities, mixture = drawn
    ratio = densities / mixture
    error = ratio.std(axis=1) / np.sqrt(ratio.shape[1])
    assert np.abs((ratio.mean(axis=1) - 1) / error).max() < 4.5
    assert error.max() < 0.02


def test_volume_of_four_body_phase_space(drawn):
    """Phi_4(s) = (2 pi)^-8 (pi/2)^3 s^2 / (3! 2!) for massless particles; the pair-mass limit hides 0.1 % of it."""
    points, _, mixture = drawn
    root = np.sqrt(points.s)
    reach = np.minimum(np.log(BEAM_ENERGY / root), MAX_ETA)
    volume = (2 * pi) ** -8 * (pi / 2) ** 3 * points.s**2 / (factorial(3) * factorial(2)) * 2 * reach
    for low, high in ((60, 120), (120, 300)):
        inside = (root > low) & (root < high)
        # An integral of one over ds dy dPhi_4, divided by the volume at each mass: the width of the interval in s.
        terms = np.where(inside, 1 / (mixture * volume), 0.0)
        error = terms.std() / np.sqrt(len(terms))
        assert terms.mean() == pytest.approx(high**2 - low**2, abs=4 * error + 0.003 * high**2)
        assert error < 0.05 * high**2
