"""Leptons, isolation and overlap on toy batches, against the numbers of the ATLAS card written out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from raypipe.simulate.detector import reconstruct
from raypipe.simulate.jets import fat_jets, jet_input, small_jets
from raypipe.simulate.selection import select

from .toys import ideal_card, particles

N = 20_000
E, MU, NEUTRON = 11, 13, 2112


def _single(pdg, pt, eta, card, seed=0):
    """One particle an event, N events."""
    return reconstruct(particles([(i, pdg, pt, eta, 0.3) for i in range(N)], N), card, np.random.default_rng(seed))


@pytest.mark.parametrize(
    ("pdg", "pt", "eta", "efficiency"),
    [
        (E, 50.0, 0.5, 0.95 * 0.95),
        (E, 150.0, 0.5, 0.99 * 0.95),
        (E, 50.0, 2.0, 0.83 * 0.85),
        (MU, 50.0, 0.5, 0.99 * 0.95),
        (MU, 50.0, 2.0, 0.98 * 0.85),
        (MU, 50.0, 2.6, 0.0),
        (E, 5.0, 0.5, 0.0),
    ],
)
def test_lepton_efficiency_is_track_times_identification(card, pdg, pt, eta, efficiency):
    seen = _single(pdg, pt, eta, card)
    found = len(seen.electrons if pdg == E else seen.muons) / N
    assert found == pytest.approx(efficiency, abs=4 * np.sqrt(efficiency * (1 - efficiency) / N))


def test_lepton_momentum_resolution(card):
    # Muon 1 % (+) 1e-4 pT. Electron: track 3 % (+) 1.3e-3 pT, ECal 1.4 % (+) 10.1 % / sqrt(E); 1/sigma^2 are added.
    muon = _single(MU, 100.0, 0.2, card).muons.pt
    assert muon.std() / 100 == pytest.approx(np.hypot(0.01, 0.01), rel=0.03)
    assert muon.mean() == pytest.approx(100, abs=5 * 1.4 / np.sqrt(len(muon)))
    track, calorimeter = np.hypot(0.03, 0.13), np.hypot(0.014, 0.101 / np.sqrt(100 * np.cosh(0.2)))
    electron = _single(E, 100.0, 0.2, card).electrons.pt
    assert electron.std() / 100 == pytest.approx((track**-2 + calorimeter**-2) ** -0.5, rel=0.03)


def test_hadronic_resolution(card):
    """Jets of one neutron: sigma_E of the HCal, sqrt((0.0302 E)^2 + 0.5205^2 E + 1.59^2) at E = 100 GeV."""
    seen = _single(NEUTRON, 100.0, 0.01, card)
    energy = seen.hcal.pt * np.cosh(seen.hcal.eta)
    assert energy.mean() == pytest.approx(100.0, abs=0.3)
    assert energy.std() == pytest.approx(np.sqrt(3.02**2 + 0.5205**2 * 100 + 1.59**2), rel=0.03)


@pytest.mark.parametrize(("pdg", "share", "kept"), [(E, 0.11, 1), (E, 0.13, 0), (MU, 0.24, 1), (MU, 0.26, 0)])
def test_isolation_cut(pdg, share, kept):
    """A photon of a share of the lepton's pT inside the cone of 0.5; the card cuts at 0.12 and 0.25."""
    rows = [(0, pdg, 60.0, 0.2, 0.3), (0, 22, 60.0 * share, 0.5, 0.3)]
    seen = reconstruct(particles(rows, 1), ideal_card(), np.random.default_rng(0))
    assert len(seen.electrons) + len(seen.muons) == kept


def _jets(rows):
    higgs = [(0, 22, 62.5, 0.0, 0.0), (0, 22, 62.5, 0.0, np.pi - 1e-3)]
    card, toys = ideal_card(), particles(sorted([*higgs, *rows]), 1)
    seen = reconstruct(toys, card, np.random.default_rng(0))
    pairs = select(seen.photons, 1)
    given = jet_input(seen, pairs.event)
    return seen, small_jets(given, toys, pairs.event, card, np.random.default_rng(1)), fat_jets(given, card.fat_jets)


def test_isolated_leptons_are_no_jets():
    for pdg in (E, MU):
        seen, jets, _ = _jets([(0, pdg, 60.0, 1.0, 1.5)])
        assert len(seen.electrons) + len(seen.muons) == 1
        assert len(jets) == 0


def test_a_muon_in_a_jet_is_part_of_it():
    seen, jets, _ = _jets([(0, MU, 30.0, 1.0, 1.5), (0, NEUTRON, 50.0, 1.0, 1.6)])
    assert len(seen.muons) == 0
    total = np.hypot(30 * np.cos(1.5) + 50 * np.cos(1.6), 30 * np.sin(1.5) + 50 * np.sin(1.6))
    assert jets.pt == pytest.approx([total * np.sqrt(2.8**2 / total + 1)], rel=5e-3)


def test_subjettiness_ratios_of_a_large_jet():
    """Pairs 0.1 and 0.2 apart and one more of equal pT: tau_3 = (2 x 0.05 + 2 x 0.1) / 5, tau_4 = 2 x 0.05 / 5."""
    at = [(-0.5, 0.0), (-0.4, 0.0), (0.4, 0.0), (0.6, 0.0), (0.0, 0.6)]
    *_, fat = _jets([(0, NEUTRON, 80.0, 0.3 + eta, 1.5 + phi) for eta, phi in at])
    assert fat.tau43 == pytest.approx([1 / 3], rel=0.03)
    assert 0.0 < fat.tau32[0] < 0.3
    *_, three = _jets([(0, NEUTRON, 120.0, 0.3 + eta, 1.5) for eta in (-0.5, 0.0, 0.5)])
    assert (three.tau32[0], three.tau43[0]) == (0.0, 0.0)
