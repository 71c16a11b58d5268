"""Foreign events through our selection and into our columns."""

from __future__ import annotations

import numpy as np
import pytest

from raypipe.config.read import EventSource
from raypipe.events.readers.root import DelphesReader
from raypipe.events.schema import EVENT_SCHEMA, FEATURES, tensor_values, validate
from raypipe.simulate.selection import Cuts
from raypipe.simulate.table import diphoton_table
from tests.events.readers.trees import known_events, write_delphes

CUTS = Cuts(window=(90.0, 160.0))


@pytest.fixture(scope="module")
def table_and_flow(tmp_path_factory):
    path = write_delphes(tmp_path_factory.mktemp("delphes") / "run.root", known_events())
    source = EventSource(sample="foreign", group=3, luminosity=0.5)
    return diphoton_table(DelphesReader().objects(path, source, 0, 3), source, CUTS, first=100)


def test_the_event_table_is_valid_and_named(table_and_flow):
    table, flow = table_and_flow
    assert validate(table, "foreign").schema.equals(EVENT_SCHEMA)
    assert table["event_id"].to_pylist() == [100, 102]  # the middle event has one photon
    assert table["sample"].to_pylist() == ["foreign"] * 2
    assert table["weight"].to_pylist() == [0.5, 1.0]  # per fb^-1: over the luminosity
    assert table["group"].to_pylist() == [3, 3]
    assert set(table["split"].to_pylist()) == {"search"}
    assert flow == {"generated": 3, "two_photons": 2, "trigger": 2, "relative_pt": 2, "mass_window": 2}


def test_kinematics_follow_from_the_photons(table_and_flow):
    """Photons of 80 and 60 GeV at a right angle: m^2 = 2 * 80 * 60, pT^2 = 80^2 + 60^2."""
    row = table_and_flow[0].to_pylist()[0]
    assert row["m_yy"] == pytest.approx(np.sqrt(9600), rel=1e-6)
    assert row["pt_yy"] == pytest.approx(100, rel=1e-6)
    assert row["dr_yy"] == pytest.approx(np.pi / 2, rel=1e-6)


def test_photons_are_no_jets_and_soft_objects_are_none(table_and_flow):
    objects = tensor_values(table_and_flow[0]["objects"])
    assert objects[0, :4, 0].tolist() == [90, 50, 0, 0]  # by pT; the photon's jet and the 20 GeV jet are gone
    assert objects[0, 1, 4] == 1  # b-tag of the 50 GeV jet
    axis = np.arctan2(60, 80)
    assert objects[0, 1, 2] == pytest.approx(2.0 - axis, rel=1e-6)
    assert objects[0, 4:6, 0].tolist() == [250, 0]  # the large-R jet that holds both photons is gone
    assert objects[0, 4, 5] == pytest.approx(0.5)
    assert objects[0, 6:10, 0].tolist() == [30, 0, 45, 0]
    assert objects[0, 10, 0] == pytest.approx(40)
    features = dict(zip(FEATURES, tensor_values(table_and_flow[0]["features"])[0], strict=True))
    assert features["ht"] == pytest.approx(140)
    assert features["n_jet"] == 2
    assert tensor_values(table_and_flow[0]["objects"])[1, :4].max() == 0  # its only jet was the photon
