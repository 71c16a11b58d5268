"""The event table: slots, order, padding, the azimuth convention and the nine features."""

from __future__ import annotations

import numpy as np
import pytest

from raypipe.events.objects import Objects, order_and_rank, same_event_pairs, wrap_phi
from raypipe.events.schema import FEATURES, OBJECT_FEATURES
from raypipe.simulate.selection import Diphotons
from raypipe.simulate.table import columns

from .toys import candidates

PT, ETA, PHI, MASS = range(4)


def _pairs(phis):
    n = len(phis)
    phi = np.array(phis, dtype=float)
    return Diphotons(
        event=np.arange(n),
        pt=np.tile([70.0, 60.0], (n, 1)),
        eta=np.tile([0.5, -0.5], (n, 1)),
        phi=np.stack([phi, phi + 0.0], axis=1),
        mass=np.full(n, 125.0),
        pair_pt=np.full(n, 130.0),
        pair_phi=phi,
        n_photon=np.full(n, 2),
    )


def _jetlist(rows):
    values = np.array(rows, dtype=float).reshape(-1, 8).T
    return Objects(values[0].astype(int), *values[1:])


NO_LEPTONS = candidates([(0, 1.0, 0.0, 0.0)]).take(np.array([False]))


def _table(phis, jets=(), fat=(), electrons=NO_LEPTONS, muons=NO_LEPTONS, met=None):
    met = np.zeros((len(phis), 2)) if met is None else np.array(met, dtype=float)
    return columns(_pairs(phis), _jetlist(jets), _jetlist(fat), (electrons, muons), (met[:, 0], met[:, 1]))


def test_slots_are_ordered_and_padded():
    jets = [(1, pt, 0.1, 0.0, 5.0, 0.9, 0, 0) for pt in (30, 90, 50, 40, 70)] + [(0, 33, 0.2, 0.0, 4.0, 0.3, 0, 0)]
    fat = [(1, 250, 0.3, 0.0, 80.0, 0, 0.4, 0.6), (1, 300, 0.3, 0.0, 90.0, 0, 0.5, 0.7)]
    found = _table([0.0, 0.0], jets, fat, electrons=candidates([(0, 20.0, 1.0, 0.0)]))["objects"]
    assert found.shape == (2, 11, 12)
    assert found[1, :6, PT].tolist() == [90, 70, 50, 40, 300, 250]  # the fifth jet has no slot
    assert found[1, 4, 5:7] == pytest.approx([0.5, 0.7])
    assert found[0, :, PT].tolist() == [33, 0, 0, 0, 0, 0, 20, 0, 0, 0, 0]
    assert found[0, 0, [ETA, MASS, 4]] == pytest.approx([0.2, 4.0, 0.3])
    one_hot = found[:, :, 7:]
    assert one_hot.sum(axis=2).tolist() == [[1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1], [1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 1]]
    kinds = np.array(OBJECT_FEATURES[7:])
    assert kinds[one_hot[0, [0, 6, 10]].argmax(axis=1)].tolist() == ["is_jet", "is_electron", "is_met"]
    assert not found[0][found[0, :, 7:].sum(axis=1) == 0].any()  # absent means all zero


def test_azimuth_is_measured_from_the_diphoton():
    jets = [(0, 50, 0, -3.0, 5, 0, 0, 0), (1, 50, 0, 1.5, 5, 0, 0, 0)]
    found = _table([3.0, 0.5], jets, met=[[0.0, 10.0], [0.0, 10.0]])["objects"]
    assert found[:, 0, PHI] == pytest.approx([2 * np.pi - 6.0, 1.0])
    assert found[:, 10, PHI] == pytest.approx([np.pi / 2 - 3.0, np.pi / 2 - 0.5])
    assert found[:, 10, PT] == pytest.approx([10.0, 10.0])


def test_azimuth_stays_inside_the_range_after_rounding():
    found = _table([0.0], [(0, 50, 0, np.pi - 1e-9, 5, 0, 0, 0)])["objects"]
    assert -np.pi <= float(found[0, 0, PHI]) < np.pi
    assert wrap_phi(np.array([np.pi, -np.pi, 7.0])) == pytest.approx([-np.pi, -np.pi, 7 - 2 * np.pi])


def test_rotating_an_event_changes_nothing_but_the_photons():
    jets = np.array([(0, 90, 0.3, 1.0, 9, 0.1, 0, 0), (0, 50, -0.4, -2.0, 5, 0.2, 0, 0)])
    turn = 2.2
    turned = jets.copy()
    turned[:, 3] += turn
    first = _table([0.4], jets, met=[[10 * np.cos(0.1), 10 * np.sin(0.1)]])
    second = _table([0.4 + turn], turned, met=[[10 * np.cos(0.1 + turn), 10 * np.sin(0.1 + turn)]])
    assert second["objects"] == pytest.approx(first["objects"], abs=1e-5)
    assert second["features"] == pytest.approx(first["features"], rel=1e-5)


def test_features():
    jets = [
        (0, 90, 0.5, 1.0, 0, 0, 0, 0),
        (0, 60, -0.5, -1.0, 0, 0, 0, 0),
        (0, 29, 1.0, 2.0, 0, 0, 0, 0),
        (1, 40, 0.0, 0.0, 5, 0, 0, 0),
    ]
    found = _table([0.0, 0.0], jets, muons=candidates([(1, 20.0, 1.0, 0.0)]), met=[[3.0, 4.0], [0.0, 0.0]])
    values = dict(zip(FEATURES, found["features"].T, strict=True))
    assert values["pt_yy"] == pytest.approx([130.0, 130.0])
    assert values["dr_yy"] == pytest.approx([1.0, 1.0])
    m_jj = np.sqrt(2 * 90 * 60 * (np.cosh(1.0) - np.cos(2.0)))
    assert values["m_jj"] == pytest.approx([m_jj, 0.0], rel=1e-6)
    assert values["dr_jj"] == pytest.approx([np.hypot(1.0, 2.0), 0.0], rel=1e-6)
    assert values["ht"] == pytest.approx([150.0, 40.0])  # jets above 30 GeV only
    assert values["has_lepton"].tolist() == [0, 1]
    assert values["met"] == pytest.approx([5.0, 0.0])
    assert values["n_photon"].tolist() == [2, 2]
    assert values["n_jet"].tolist() == [3, 1]


def test_ragged_helpers():
    ia, ib = same_event_pairs(np.array([0, 2, 2]), np.array([0, 0, 1, 2]))
    assert list(zip(ia, ib, strict=True)) == [(0, 0), (0, 1), (1, 3), (2, 3)]
    order, rank = order_and_rank(np.array([1, 0, 1, 1]), np.array([5.0, 1.0, 9.0, 7.0]))
    assert order.tolist() == [1, 2, 3, 0]
    assert rank.tolist() == [0, 0, 1, 2]
