"""Calorimeter cells, resolution, and energy and momentum balance on toy particles."""

from __future__ import annotations

import numpy as np
import pytest

from raypipe.errors import UserError
from raypipe.simulate.calorimeter import energy_sigma, log_normal
from raypipe.simulate.card import CARDS, load_card, parse_card
from raypipe.simulate.detector import reconstruct
from raypipe.simulate.particles import has_quark

from .toys import ideal_card, particles


def test_resolution_formula(card):
    energy, eta = np.array([100.0, 100.0, 50.0]), np.array([0.5, -3.5, 2.0])
    expected = [
        np.sqrt((0.014 * 100) ** 2 + 0.101**2 * 100),
        np.sqrt((0.035 * 100) ** 2 + 0.285**2 * 100),
        np.sqrt((0.014 * 50) ** 2 + 0.101**2 * 50),
    ]
    assert energy_sigma(card.ecal, energy, eta) == pytest.approx(expected)
    assert energy_sigma(card.hcal, np.array([40.0]), np.array([1.0])) == pytest.approx(
        np.sqrt((0.0302 * 40) ** 2 + 0.5205**2 * 40 + 1.59**2)
    )


def test_log_normal_moments():
    values = log_normal(np.full(200_000, 5.0), np.full(200_000, 2.0), np.random.default_rng(1))
    assert values.mean() == pytest.approx(5.0, abs=5 * 2 / np.sqrt(200_000))
    assert values.std() == pytest.approx(2.0, rel=0.02)
    assert values.min() > 0


def test_smeared_photon_has_the_resolution_of_the_card(card):
    n = 20_000
    toys = particles([(i, 22, 62.5, 0.0, 0.3) for i in range(n)], n)
    ecal = reconstruct(toys, card, np.random.default_rng(2)).ecal
    energy = ecal.pt * np.cosh(ecal.eta)
    expected = np.sqrt((0.014 * 62.5) ** 2 + 0.101**2 * 62.5)
    assert energy.mean() == pytest.approx(62.5, abs=5 * expected / np.sqrt(n))
    assert energy.std() == pytest.approx(expected, rel=5 / np.sqrt(2 * n))
    assert np.abs(ecal.eta).max() < 0.0175  # inside its cell ..
    assert np.ptp(ecal.eta) > 0.016  # .. and filling it


def test_photon_efficiency(card):
    n = 20_000
    for eta, expected in ((0.7, 0.95), (-2.0, 0.85), (2.6, 0.0)):
        toys = particles([(i, 22, 50.0, eta, 1.0) for i in range(n)], n)
        found = len(reconstruct(toys, card, np.random.default_rng(3)).photons)
        assert found / n == pytest.approx(expected, abs=4 * 0.5 / np.sqrt(n)), eta


def test_isolation_rejects_a_photon_in_hadrons():
    # 50 GeV photons; a charged pion of 7 GeV (14 %) at R = 0.3 spoils one, at R = 0.7 does not; 5 GeV (10 %) does not.
    rows = [(i, 22, 50.0, 0.2, 0.0) for i in range(3)]
    rows += [(0, 211, 7.0, 0.5, 0.0), (1, 211, 7.0, 0.9, 0.0), (2, 211, 5.0, 0.5, 0.0)]
    toys = particles(sorted(rows), 3)
    seen = reconstruct(toys, ideal_card(), np.random.default_rng(4))
    assert seen.photons.event.tolist() == [1, 2]


def test_ideal_detector_conserves_energy_and_momentum():
    rng = np.random.default_rng(5)
    kinds = np.array([22, 211, 11, 13, 130, 310, 2112])
    rows = [
        (event, int(rng.choice(kinds)), rng.uniform(1, 80), rng.uniform(-2.4, 2.4), rng.uniform(-np.pi, np.pi))
        for event in range(50)
        for _ in range(30)
    ]
    rows += [(event, 12, 40.0, 0.0, 0.7) for event in range(50)]  # the neutrino is what is missing
    toys = particles(sorted(rows), 50)
    seen = reconstruct(toys, ideal_card(), np.random.default_rng(6))
    seen_energy = sum((t.pt * np.cosh(t.eta)).sum() for t in (seen.ecal, seen.hcal))
    deposited = ~np.isin(np.abs(toys.pdg), (12, 13))
    assert seen_energy == pytest.approx(toys.energy[deposited].sum(), rel=1e-9)
    visible = toys.pdg != 12
    for met, component in ((seen.met_x, np.cos), (seen.met_y, np.sin)):
        truth = -np.bincount(toys.event[visible], (toys.pt * component(toys.phi))[visible])
        # Directions are random within cells of a degree: sigma = 1 degree / sqrt(12) x sqrt(30) x ~47 GeV ~ 1.3 GeV.
        assert np.std(met - truth) < 2.0
        assert abs(np.mean(met - truth)) < 0.8


def test_met_smearing_adds_in_quadrature(card):
    n = 4000
    toys = particles([(i, 12, 1.0, 0.0, 0.0) for i in range(n)], n)
    seen = reconstruct(toys, card, np.random.default_rng(7), met_smearing=10.0)
    for met in (seen.met_x, seen.met_y):
        assert met.std() == pytest.approx(10.0, rel=5 / np.sqrt(2 * n))
    assert not reconstruct(toys, card, np.random.default_rng(7)).met_x.any()


def test_invisible_particles_leave_nothing():
    toys = particles([(0, pdg, 100.0, 0.0, 0.0) for pdg in (12, -14, 16, 1000022)] + [(0, 22, 5.0, 5.2, 0.0)], 1)
    seen = reconstruct(toys, ideal_card(), np.random.default_rng(8))
    assert len(seen.ecal) == len(seen.hcal) == 0
    assert seen.met_x[0] == seen.met_y[0] == 0


def test_heavy_hadrons():
    pdg = np.array([511, -521, 5122, 5, 553, 411, 4122, 443, 211, 2212, 5101, 1000005, 22, 15])
    assert pdg[has_quark(pdg, 5)].tolist() == [511, -521, 5122, 553]
    assert pdg[has_quark(pdg, 4)].tolist() == [411, 4122, 443]


def test_card_refuses_nonsense():
    with pytest.raises(UserError, match=r"unknown detector card 'cmss' \(known: atlas, cms, cms_run1\)"):
        load_card("cmss")
    text = (CARDS / "atlas.yaml").read_text()
    with pytest.raises(UserError, match=r"x\.yaml: isolation_con: Extra inputs are not permitted|isolation_cone"):
        parse_card(text.replace("isolation_cone:", "isolation_con:"), "x.yaml")
    with pytest.raises(UserError, match=r"x\.yaml: ecal\.resolution\.0\.constant"):
        parse_card(text.replace("constant: 0.014", "constant: -1"), "x.yaml")
