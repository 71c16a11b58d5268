"""The CMS-like card: resolutions and efficiencies of its formulas on toy leptons, photon collection, isolation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from raypipe.errors import UserError
from raypipe.simulate.calorimeter import energy_sigma
from raypipe.simulate.card import load_card, parse_card
from raypipe.simulate.detector import momentum_sigma
from raypipe.simulate.fourlepton.selection import collect_photons, reconstruct_leptons
from raypipe.simulate.particles import Particles
from tests.simulate.toys import ideal_card, particles

N = 20_000


@pytest.fixture(scope="module")
def cms():
    return load_card("cms")


def single(pdg, pt, eta, n=N) -> Particles:
    """``n`` events with one particle each."""
    event, full = np.arange(n), np.full
    return Particles(
        n_events=n,
        event=event,
        pdg=full(n, pdg),
        pt=full(n, float(pt)),
        eta=full(n, float(eta)),
        phi=np.linspace(-3, 3, n),
        energy=full(n, pt * np.cosh(eta)),
        hadron_event=np.empty(0, int),
        hadron_eta=np.empty(0),
        hadron_phi=np.empty(0),
        hadron_bottom=np.empty(0, bool),
    )


def test_card_numbers(cms):
    """The ECal formula of the CMS card, Delphes 3.4.2, written out."""
    energy = np.array([20.0, 50.0, 200.0])
    base = np.sqrt((0.008 * energy) ** 2 + 0.11**2 * energy + 0.40**2)
    for eta, factor in ((0.0, 1.0), (1.2, 1 + 0.64 * 1.2**2), (-1.8, 2.16 + 5.6 * 0.2**2), (2.4, 2.16 + 5.6 * 0.4**2)):
        assert energy_sigma(cms.ecal, energy, np.full(3, eta)) == pytest.approx(factor * base, rel=1e-12)
    forward = np.sqrt((0.107 * energy) ** 2 + 2.08**2 * energy)
    assert energy_sigma(cms.ecal, energy, np.full(3, 3.0)) == pytest.approx(forward, rel=1e-12)


def test_a_card_may_extend_another(cms):
    run1 = load_card("cms_run1")
    assert (run1.electron.min_pt, run1.muon.min_pt) == (7.0, 5.0)
    assert run1.electron.efficiency == cms.electron.efficiency
    same = run1.model_copy(update={"name": "cms", "electron": cms.electron, "muon": cms.muon})
    assert same == cms
    with pytest.raises(UserError, match="unknown detector card 'cmss'"):
        parse_card("extends: cmss", "x.yaml")
    with pytest.raises(UserError, match=r"x\.yaml: electron\.min_pt"):
        parse_card("extends: cms\nname: x\nelectron: {min_pt: -1}", "x.yaml")


def test_atlas_card_has_no_eta_shape():
    card = load_card("atlas")
    energy, eta = np.linspace(5, 300, 50), np.linspace(-4.8, 4.8, 50)
    constant, stochastic = np.where(np.abs(eta) < 3.2, 0.014, 0.035), np.where(np.abs(eta) < 3.2, 0.101, 0.285)
    expected = np.sqrt((constant * energy) ** 2 + stochastic**2 * energy)
    assert energy_sigma(card.ecal, energy, eta) == pytest.approx(expected, rel=1e-15)
    assert card.electron_cone == 0


@pytest.mark.parametrize(
    ("pdg", "pt", "eta", "efficiency"),
    [
        (11, 30, 0.7, 0.95 * 0.95),
        (-11, 30, 2.0, 0.83 * 0.85),
        (11, 150, 0.7, 0.99 * 0.95),
        (11, 30, 2.6, 0.0),
        (13, 30, 0.7, 0.99 * 0.95),
        (-13, 30, 2.0, 0.98 * 0.95),
        (13, 30, 2.45, 0.0),
        (13, 9, 0.7, 0.0),
    ],
)
def test_efficiencies(cms, pdg, pt, eta, efficiency):
    electrons, muons = reconstruct_leptons(single(pdg, pt, eta), cms, np.random.default_rng(1))
    found, others = (muons, electrons) if abs(pdg) == 13 else (electrons, muons)
    error = np.sqrt(max(efficiency * (1 - efficiency), 1e-4) / N)
    # Electrons near a crack or with a lost tower are not modelled: the formula is all there is.
    assert len(found) / N == pytest.approx(efficiency, abs=4 * error)
    assert (found.charge == -np.sign(pdg)).all()
    assert len(others) == 0


@pytest.mark.parametrize(("pt", "eta"), [(20, 0.2), (45, 1.0), (45, 2.0), (100, 0.2)])
def test_muon_resolution(cms, pt, eta):
    _, found = reconstruct_leptons(single(13, pt, eta), cms, np.random.default_rng(2))
    expected = momentum_sigma(cms.muon_momentum, np.array([pt]), np.array([eta]))[0]
    assert found.pt.std() / pt == pytest.approx(expected, rel=0.03)
    assert found.pt.mean() / pt == pytest.approx(1, abs=4 * expected / np.sqrt(len(found)))


@pytest.mark.parametrize(("pt", "eta"), [(20, 0.2), (45, 1.0), (45, 2.0), (100, 0.2)])
def test_electron_resolution_combines_track_and_calorimeter(cms, pt, eta):
    found, _ = reconstruct_leptons(single(11, pt, eta), cms, np.random.default_rng(3))
    energy = pt * np.cosh(eta)
    track = momentum_sigma(cms.electron_momentum, np.array([pt]), np.array([eta]))[0]
    calorimeter = energy_sigma(cms.ecal, np.array([energy]), np.array([eta]))[0] / energy
    expected = 1 / np.sqrt(track**-2 + calorimeter**-2)
    assert found.pt.std() / pt == pytest.approx(expected, rel=0.03)
    assert expected < min(track, calorimeter)


def test_photons_near_an_electron_belong_to_it():
    event = [
        (0, 11, 30.0, 0.50, 1.00),
        (0, 22, 5.0, 0.52, 1.02),
        (0, 22, 4.0, 0.50, 1.20),
        (0, 22, 3.0, 0.50, -1.00),
        (1, 22, 5.0, 0.52, 1.02),
        (1, 13, 30.0, 0.50, 1.00),
    ]
    before = particles(event, 2)
    after = collect_photons(before, 0.05)
    assert after.pdg.tolist() == [11, 22, 22, 22, 13]
    assert after.energy.sum() == pytest.approx(before.energy.sum())
    for axis in (np.cos, np.sin):
        assert (after.pt * axis(after.phi)).sum() == pytest.approx((before.pt * axis(before.phi)).sum())
    assert after.pt[0] == pytest.approx(35.0, abs=0.01)
    assert collect_photons(before, 0.0) is before


def test_electron_between_two_takes_the_nearer():
    event = [(0, 11, 30.0, 0.50, 1.00), (0, -11, 30.0, 0.56, 1.00), (0, 22, 5.0, 0.54, 1.00)]
    after = collect_photons(particles(event, 1), 0.05)
    assert after.pt.tolist() == pytest.approx([30.0, 35.0], rel=1e-6)


def test_isolation_sees_hadrons_and_photons_but_not_leptons():
    card = ideal_card()
    card = card.model_copy(update={"electron_cone": 0.0})
    for pdg, near, pt, kept in (
        (13, 211, 8.0, False),
        (13, 211, 7.0, True),
        (13, 22, 8.0, False),
        (13, 130, 8.0, False),
        (13, -13, 20.0, True),
        (11, 211, 4.0, False),
        (11, 211, 3.0, True),
        (11, -11, 20.0, True),
    ):
        event = particles([(0, pdg, 30.0, 0.5, 1.0), (0, near, pt, 0.7, 1.2)], 1)
        found = reconstruct_leptons(event, card, np.random.default_rng(4))[abs(pdg) == 13]
        assert (found.charge == -np.sign(pdg)).any() == kept, (pdg, near, pt)
    far = particles([(0, 13, 30.0, 0.5, 1.0), (0, 211, 50.0, 1.2, 1.0)], 1)
    assert [len(kind) for kind in reconstruct_leptons(far, card, np.random.default_rng(5))] == [0, 1]


def test_empty_batches_are_ordinary(cms):
    nothing = single(11, 30, 0.5, n=0)
    found = reconstruct_leptons(replace(nothing, n_events=3), cms, np.random.default_rng(6))
    assert [len(kind) for kind in found] == [0, 0]
