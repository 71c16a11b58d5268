"""The diphoton selection on hand-made photons, with its cut flow."""

from __future__ import annotations

import numpy as np
import pytest

from raypipe.simulate.selection import ATLAS, STEPS, select

from .toys import candidates


def _pair(event, pt1, pt2):
    """Two photons at eta 0 whose opening angle gives 125 GeV: m^2 = 2 pt1 pt2 (1 - cos)."""
    return [(event, pt1, 0.0, 0.0), (event, pt2, 0.0, np.arccos(1 - 125.0**2 / (2 * pt1 * pt2)))]


def test_cut_flow_counts_each_cut():
    photons = candidates(
        [
            (0, 80.0, 0.0, 0.0),  # one photon
            *_pair(1, 70.0, 60.0),  # passes
            (2, 30.0, -2.3, 0.0),
            (2, 28.0, 2.3, 3.0),  # m = 290: fails the trigger
            (3, 150.0, 0.0, 0.0),
            (3, 24.0, 1.4, 3.0),  # fires on the single photon, fails 0.3
            *_pair(4, 120.0, 36.0),  # 36 / 125 = 0.288: fails the paper's 0.3, passes ATLAS's 0.25
            (5, 90.0, 0.0, 0.0),
            (5, 90.0, 0.0, np.pi),  # m = 180: outside the window
        ]
    )
    found = select(photons, 7)
    assert tuple(found.cut_flow) == STEPS
    assert list(found.cut_flow.values()) == [7, 5, 4, 2, 1]
    assert found.event.tolist() == [1]
    assert found.mass == pytest.approx([125.0])
    assert select(photons, 7, ATLAS).event.tolist() == [1, 4]


def test_pair_nearest_125_of_three():
    # The hardest photon is not part of the pair; leading first in the result.
    photons = candidates([(0, 60.0, 0.0, np.pi), (0, 185.0, 1.0, 1.5), (0, 65.0, 0.0, 0.0), (0, 64.0, 0.0, 3.1)])
    found = select(photons, 1)
    assert found.pt.tolist() == [[65.0, 64.0]]
    assert found.mass == pytest.approx([2 * np.sqrt(65 * 64) * np.sin(1.55)])
    assert found.n_photon.tolist() == [4]


def test_pair_momentum():
    found = select(candidates(_pair(0, 70.0, 60.0)), 1)
    phi = np.arccos(1 - 125.0**2 / (2 * 70 * 60))
    assert found.pair_pt == pytest.approx([np.hypot(70 + 60 * np.cos(phi), 60 * np.sin(phi))])
    assert found.pair_phi == pytest.approx([np.arctan2(60 * np.sin(phi), 70 + 60 * np.cos(phi))])


def test_no_photons_at_all():
    empty = candidates([(0, 1.0, 0.0, 0.0)]).take(np.array([False]))
    found = select(empty, 3)
    assert len(found.mass) == 0
    assert found.cut_flow["generated"] == 3
    assert found.cut_flow["two_photons"] == 0
