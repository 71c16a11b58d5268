"""Jet energy scale, N-subjettiness, flavour tags, and the photons that must not enter jets."""

from __future__ import annotations

import awkward as ak
import numpy as np
import pytest

from raypipe.events.clustering import subjettiness
from raypipe.simulate.detector import reconstruct
from raypipe.simulate.jets import btag_efficiency, btag_score, fat_jets, jet_input, small_jets
from raypipe.simulate.selection import select

from .toys import ideal_card, particles


def _jets(rows, n_events, hadrons=(), card=None):
    card = card or ideal_card()
    toys = particles(sorted(rows), n_events, list(hadrons))
    seen = reconstruct(toys, card, np.random.default_rng(0))
    pairs = select(seen.photons, n_events)
    given = jet_input(seen, pairs.event)
    return small_jets(given, toys, pairs.event, card, np.random.default_rng(1)), fat_jets(given, card.fat_jets), pairs


def _higgs(event):
    return [(event, 22, 62.5, 0.0, 0.0), (event, 22, 62.5, 0.0, np.pi - 1e-3)]


def test_scale_and_photon_removal():
    # Two back-to-back photons of 62.5 GeV make m = 125; two hadrons of 40 and 30 GeV make the only jets.
    rows = [*_higgs(0), (0, 2112, 40.0, 1.0, 1.5), (0, 2112, 30.0, -2.0, -1.5)]
    jets, fat, pairs = _jets(rows, 1)
    assert pairs.mass == pytest.approx([125.0], rel=1e-3)
    order = np.argsort(-jets.pt)
    expected = [40 * np.sqrt((3 - 0.2 * 1.0) ** 2 / 40 + 1), 30 * np.sqrt((3 - 0.2 * 2.0) ** 2 / 30 + 1)]
    assert jets.pt[order] == pytest.approx(expected, rel=2e-3)
    assert jets.eta[order] == pytest.approx([1.0, -2.0], abs=2e-3)
    assert len(fat) == 0


def test_a_third_photon_is_no_jet():
    rows = [*_higgs(0), (0, 22, 185.0, 1.0, 1.5), (0, 2112, 40.0, -1.0, -1.5)]
    jets, _, pairs = _jets(rows, 1)
    assert pairs.mass == pytest.approx([125.0], rel=1e-3)
    assert jets.pt == pytest.approx([40 * np.sqrt(2.8**2 / 40 + 1)], rel=2e-3)  # the hadron alone
    assert pairs.n_photon.tolist() == [3]


def test_jets_go_to_their_event():
    # Event 0 fails the selection; 1 and 2 pass and are renumbered.
    rows = [(0, 2112, 200.0, 0.0, 1.0), *_higgs(1), (1, 2112, 50.0, 0.5, 1.5), *_higgs(2), (2, 2112, 90.0, 0.7, 1.5)]
    jets, _, pairs = _jets(rows, 3)
    assert pairs.event.tolist() == [1, 2]
    assert jets.event.tolist() == [0, 1]
    assert jets.eta == pytest.approx([0.5, 0.7], abs=2e-3)


def test_fat_jet_with_two_prongs():
    prongs = [(0, 2112, 150.0, 0.3, 1.5), (0, 2112, 150.0, 0.3, 2.1)]
    jets, fat, _ = _jets([*_higgs(0), *prongs], 1)
    assert len(jets) == 2
    assert fat.pt == pytest.approx([2 * 150 * np.cos(0.3)], rel=0.02)
    assert fat.mass == pytest.approx([2 * 150 * np.sin(0.3)], rel=0.05)
    assert fat.btag is None
    # Two constituents: tau_2 = tau_3 = tau_4 = 0, so the ratios mean nothing and are zero.
    assert fat.tau32.tolist() == fat.tau43.tolist() == [0.0]


def test_subjettiness_closed_form():
    # Three equal particles in a line, 0.1 and 0.5 from the middle one: tau_3 = 0, and the best two axes merge the close
    # pair, so that each of its members is 0.05 from its axis: tau_2 = 2 x 0.05 / (3 R0).
    phi = np.array([0.0, 0.1, 0.6])
    members = ak.zip(
        {"px": 100 * np.cos(phi), "py": 100 * np.sin(phi), "pz": 0 * phi, "E": 100 + 0 * phi}, with_name="Momentum4D"
    )
    tau = subjettiness(ak.unflatten(members, [3]), ak.Array([[[0, 1, 2]]]), 1.0, (1, 2, 3, 4))
    assert tau[0, 1] == pytest.approx(0.1 / 3, rel=0.01)
    assert tau[0, 2:] == pytest.approx([0.0, 0.0], abs=1e-6)
    assert tau[0, 0] > tau[0, 1]


@pytest.mark.parametrize(
    ("flavour", "pt", "expected"),
    [(5, 100.0, 0.728), (5, 30.0, 0.602), (4, 50.0, 0.130), (0, 200.0, 0.0035), (5, 500.0, 0.494)],
)
def test_btag_efficiency_table(card, flavour, pt, expected):
    """Values tabulated independently in the project's notes (Delphes formulas)."""
    found = btag_efficiency(np.array([flavour]), np.array([pt]), card.btag)[0]
    assert found == pytest.approx(expected, abs=0.0006)


def test_btag_score_reproduces_the_efficiency(card):
    n = 50_000
    for flavour, expected in ((5, 0.728), (4, 0.144), (0, 0.0027)):
        score = btag_score(
            np.full(n, flavour), np.full(n, 100.0), np.zeros(n), card.btag, np.random.default_rng(flavour)
        )
        assert (score > 0.5).mean() == pytest.approx(expected, abs=4 * np.sqrt(expected / n) + 5e-4)
        assert score.min() >= 0
        assert score.max() <= 1
    assert not btag_score(np.full(9, 5), np.full(9, 100.0), np.full(9, 2.6), card.btag, np.random.default_rng(0)).any()


def test_flavour_by_nearest_hadron_in_the_same_event():
    rows, hadrons, n = [], [], 400
    for event in range(n):
        rows += [*_higgs(event), (event, 2112, 100.0, 0.5, 1.5), (event, 2112, 100.0, -0.5, -1.5)]
        hadrons.append((event, 0.6, 1.5, True))  # 0.1 from the first, far from the second
    jets, _, _ = _jets(rows, n, hadrons)
    bottom = jets.eta > 0
    assert bottom.sum() == n
    expected = 0.8 * np.tanh(0.003 * 104.0) * 30 / (1 + 0.086 * 104.0)
    assert (jets.btag[bottom] > 0.5).mean() == pytest.approx(expected, abs=0.09)
    assert (jets.btag[~bottom] > 0.5).mean() < 0.02
