"""Choice of the four leptons, masses and cuts on toy leptons."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from raypipe.config.inputs import FourLeptonSelection
from raypipe.events.objects import NO_OBJECTS, Objects
from raypipe.simulate.fourlepton.selection import STEPS, select


def leptons(rows) -> tuple[Objects, Objects]:
    """Electrons and muons from rows (event, PDG id, pt, eta, phi)."""
    event, pdg, pt, eta, phi = (np.array(column) for column in zip(*rows, strict=True))
    both = Objects(event.astype(int), pt.astype(float), eta.astype(float), phi.astype(float), charge=-np.sign(pdg))
    return both.take(np.abs(pdg) == 11), both.take(np.abs(pdg) == 13)


GOOD = [(0, 11, 40.0, 0.5, 0.1), (0, -11, 35.0, -0.3, 2.9), (0, 13, 30.0, 1.0, -1.5), (0, -13, 25.0, -1.2, 1.4)]


def test_masses_follow_from_the_momenta():
    found = select(*leptons(GOOD), 1)
    vectors = [(pt * np.cosh(eta), pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)) for *_, pt, eta, phi in GOOD]
    mass = lambda *rows: np.sqrt(np.sum(rows, axis=0) ** 2 @ [1, -1, -1, -1])  # noqa: E731
    assert found.m_4l == pytest.approx([mass(*vectors)])
    assert found.m_ee == pytest.approx([mass(*vectors[:2])])
    assert found.m_mumu == pytest.approx([mass(*vectors[2:])])
    assert found.pt[0].tolist() == [40.0, 35.0, 30.0, 25.0]
    assert list(found.cut_flow) == list(STEPS[1:])


def test_hardest_of_each_kind_and_order_does_not_matter():
    more = [*GOOD, (0, 11, 20.0, 0.0, 0.0), (0, 13, 60.0, 0.2, 0.3)]
    first = select(*leptons(more), 1)
    assert first.pt[0].tolist() == [40.0, 35.0, 60.0, 25.0]
    again = select(*leptons(more[::-1]), 1)
    assert np.array_equal(first.m_4l, again.m_4l)


@pytest.mark.parametrize("missing", range(4))
def test_all_four_kinds_are_needed(missing):
    found = select(*leptons([row for i, row in enumerate(GOOD) if i != missing]), 1)
    assert len(found.event) == 0
    assert found.cut_flow == dict.fromkeys(STEPS[1:], 0)


@pytest.mark.parametrize(
    ("cuts", "step"),
    [
        (FourLeptonSelection(electron_pt=36), "transverse_momenta"),
        (FourLeptonSelection(muon_pt=26), "transverse_momenta"),
        (FourLeptonSelection(leading_pt=[41.0]), "transverse_momenta"),
        (FourLeptonSelection(leading_pt=[20.0, 36.0]), "transverse_momenta"),
        (FourLeptonSelection(min_pair=80.0), "pair_masses"),
        (FourLeptonSelection(min_delta_r=2.5), "pair_masses"),
        (FourLeptonSelection(z1_window=(40.0, 60.0)), "pair_masses"),
        (FourLeptonSelection(z2_window=(12.0, 60.0)), "pair_masses"),
    ],
)
def test_each_cut_cuts(cuts, step):
    assert len(select(*leptons(GOOD), 1).event) == 1
    flow = select(*leptons(GOOD), 1, cuts).cut_flow
    assert [flow[name] for name in STEPS[1:]] == [int(STEPS.index(name) < STEPS.index(step)) for name in STEPS[1:]]


def test_events_keep_their_numbers():
    rows = [(event, *row[1:]) for event in (1, 4) for row in GOOD]
    assert select(*leptons(rows), 6).event.tolist() == [1, 4]
    nothing = replace(NO_OBJECTS, charge=np.empty(0))
    assert len(select(nothing, nothing, 3).event) == 0
