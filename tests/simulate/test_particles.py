"""Changes to particles before the detector: jets turned into photons; and the search for heavy hadrons."""

from __future__ import annotations

from collections import Counter

import awkward as ak
import numpy as np
import pytest

from raypipe.events.objects import delta_r
from raypipe.simulate import processes
from raypipe.simulate.generator import Generator
from raypipe.simulate.jets import CONE, MEAN, WIDTH, hard_partons, jets_as_photons
from raypipe.simulate.particles import HADRON_MIN_PT, flatten, has_quark

from .toys import particles


def test_toy_jet():
    n = 4000
    rows = [
        row
        for i in range(n)
        for row in ((i, 211, 30.0, 0.5, 1.0), (i, 22, 20.0, 0.7, 1.0), (i, 14, 9.0, 0.6, 1.0), (i, 211, 5.0, 0.5, 1.9))
    ]
    # The parton points 0.2 away from the jet; a neutrino inside and a pion outside stay.
    fake = jets_as_photons(particles(rows, n), np.full(n, 0.6), np.full(n, 1.2), np.random.default_rng(0))
    assert Counter(fake.pdg.tolist()) == {22: n, 14: n, 211: n}
    assert (np.diff(fake.event) >= 0).all()
    photon = fake.pdg == 22
    assert fake.pt[photon].mean() / 50 == pytest.approx(MEAN, abs=5 * WIDTH / np.sqrt(n))  # one jet in 18 is cut at 1
    assert fake.pt[photon].max() <= 50.0 + 1e-9
    assert fake.phi[photon] == pytest.approx(1.0)
    assert fake.eta[photon] == pytest.approx(np.arcsinh((30 * np.sinh(0.5) + 20 * np.sinh(0.7)) / 50))


def test_empty_cone_changes_nothing():
    before = particles([(0, 211, 30.0, 0.5, 1.0), (1, 22, 20.0, 0.7, 1.0)], 2)
    after = jets_as_photons(before, np.full(2, -2.0), np.zeros(2), np.random.default_rng(0))
    assert after.pt.tolist() == before.pt.tolist()


def test_pythia_jets_balance_the_photon():
    """The jet found around the parton carries about its momentum, and each event ends with a second hard photon."""
    batch = next(Generator(processes.get("yj"), 6).batches(200))
    before = flatten(batch)
    eta, phi = hard_partons(batch)
    after = jets_as_photons(before, eta, phi, np.random.default_rng(1))
    hard = (after.pdg == 22) & (after.pt > 15)
    counts = np.bincount(after.event[hard], minlength=200)
    assert (counts >= 2).mean() > 0.9
    fakes = np.flatnonzero(hard & (delta_r(after.eta, after.phi, eta[after.event], phi[after.event]) < CONE))
    assert len(np.unique(after.event[fakes])) > 180
    # Pythia's pTHat is that of the hard process; recoils against the initial-state shower are small for most.
    scale = ak.to_numpy(batch.prt.p.px[:, 5]) ** 2 + ak.to_numpy(batch.prt.p.py[:, 5]) ** 2
    assert np.median(after.pt[fakes] / np.sqrt(scale)[after.event[fakes]]) == pytest.approx(MEAN, abs=0.1)


def test_heavy_hadrons_are_those_of_the_plain_search():
    """`flatten` looks at few ids only; here at all of them."""
    batch = next(Generator(processes.get("tth"), 2).batches(20))
    found = flatten(batch)
    p = batch.prt
    pdg, pt = np.abs(ak.flatten(p.id).to_numpy()), np.hypot(*(ak.flatten(p.p[n]).to_numpy() for n in ("px", "py")))
    event = np.repeat(np.arange(20), ak.num(p.id).to_numpy())
    for flavour, wanted in ((5, found.hadron_bottom), (4, ~found.hadron_bottom)):
        heavy = has_quark(pdg, flavour) & (pt > HADRON_MIN_PT)
        assert heavy.sum() > 5
        assert event[heavy].tolist() == found.hadron_event[wanted].tolist()
