"""Clustering of LHC Olympics particle lists."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from scipy.stats import ks_2samp

from raypipe.config.read import Columns, Source
from raypipe.errors import UserError
from raypipe.events.readers.lhco import NAMES, jet_features
from raypipe.events.readers.registry import file_format, reader_for
from tests.events.helpers import read_features
from tests.events.readers.test_tables import real


def test_two_pairs_of_particles_have_the_masses_of_the_closed_form():
    """Two massless particles of pT p at distance d in phi: m^2 = 2 p^2 (1 - cos d)."""
    particles = np.zeros((1, 6, 3))
    particles[0, :4] = [[300, 0, 0.0], [300, 0, 0.4], [250, 0, 3.0], [250, 0, 3.6]]
    m = [np.sqrt(2 * p**2 * (1 - np.cos(d))) / 1000 for p, d in ((300, 0.4), (250, 0.6))]
    m_jj, m_j1, delta, tau_1, tau_2 = jet_features(particles)[0]
    assert m_j1 == pytest.approx(min(m), rel=1e-9)  # TeV
    assert delta == pytest.approx(max(m) - min(m), rel=1e-6)
    px = 300 * (1 + np.cos(0.4)) + 250 * (np.cos(3.0) + np.cos(3.6))
    py = 300 * np.sin(0.4) + 250 * (np.sin(3.0) + np.sin(3.6))
    assert m_jj == pytest.approx(np.sqrt(1100**2 - px**2 - py**2) / 1000, rel=1e-9)
    assert (tau_1, tau_2) == pytest.approx((0, 0), abs=1e-6)  # two particles are two subjets


def test_one_jet_is_not_enough():
    particles = np.zeros((2, 4, 3))
    particles[:, 0] = [100, 0, 0]
    particles[0, 1] = [100, 0, 3]
    with pytest.raises(UserError, match="x: event 11 has fewer than two jets"):
        jet_features(particles, "x", 10)


def test_raw_events_give_the_published_features():
    path = real("readers", "events_anomalydetection_tiny.h5")
    assert file_format(path, Source()) == "lhco"
    table = reader_for(path, Source()).read(path, Source(), 0, 1000, NAMES)
    assert table.num_rows == 1000
    values = np.stack([table[name].to_numpy() for name in NAMES], axis=1)
    assert values[:, 5].sum() == 93
    assert 2.5 < np.median(values[:, 0]) < 3.7  # TeV
    assert ((values[:, 3:5] >= 0) & (values[:, 3:5] <= 1)).all()
    assert (values[:, 2] >= 0).all()
    # The features that CATHODE's authors published, of other events of the same simulation.
    inside = (values[:, 0] > 3.3) & (values[:, 0] < 3.7)
    reference = np.load(real("lhco_sr", "train.npy"))
    for label, others in ((0, reference[reference[:, 5] == 0]), (1, np.load(real("lhco_sr", "extrasig_val.npy")))):
        mine = values[inside & (values[:, 5] == label)]
        for k in range(1, 5):
            assert ks_2samp(mine[:, k], others[:, k]).pvalue > 1e-3


def test_a_range_equals_the_whole_and_the_pandas_frame_is_a_matrix():
    path = real("readers", "events_anomalydetection_tiny.h5")
    columns = Columns(mass="m_jj", features=["m_j1", "delta_m", "tau21_1", "tau21_2"], label="label")
    whole = reader_for(path, Source()).read(path, Source(), 0, 30, NAMES)
    part = reader_for(path, Source()).read(path, Source(), 20, 30, ["m_j1"])
    assert part["m_j1"].to_numpy() == pytest.approx(whole["m_j1"].to_numpy()[20:], abs=0)
    plain = Source(format="hdf5")
    assert len(reader_for(path, plain).names(path, plain)) == 2101
    assert columns.label == "label"


def test_wrong_shapes_are_told(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["df"] = np.ones((4, 5))
    with pytest.raises(UserError, match=r"x\.h5: 5 columns, expected 3 for every particle"):
        read_features(tmp_path / "x.h5", Source(format="lhco"), Columns(mass="m_jj", features=["m_j1"]))
