"""The opening angle at a fixed mass: closed forms."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pyarrow as pa
import pytest

from raypipe.events.diphoton import Opening, View, opening_at_mass, rapidity
from raypipe.events.schema import tensor_column, tensor_values


def pairs(mass, boost, cosine, azimuth, rapidity=0.7):
    """Photon columns of pairs of ``mass`` [GeV] with transverse gamma ``boost`` and given decay angles."""
    mass, boost, cosine, azimuth = np.broadcast_arrays(*np.atleast_1d(mass, boost, cosine, azimuth))
    beta, sine = np.sqrt(1 - 1 / boost**2), np.sqrt(1 - cosine**2)
    table = {"pt_yy": mass * beta * boost}
    for i, sign in ((1, 1.0), (2, -1.0)):
        n = sign * np.array([sine * np.cos(azimuth), sine * np.sin(azimuth), cosine])
        px, py, pz = mass / 2 * (boost * (n[0] + beta)), mass / 2 * n[1], mass / 2 * n[2]
        pt = np.hypot(px, py)
        table |= {f"y{i}_pt": pt, f"y{i}_eta": np.arcsinh(pz / pt) + rapidity, f"y{i}_phi": np.arctan2(py, px)}
    phi = (table["y1_phi"] - table["y2_phi"] + np.pi) % (2 * np.pi) - np.pi
    table["dr_yy"] = np.hypot(table["y1_eta"] - table["y2_eta"], phi)
    return pa.table(table)


ANGLES = {"cosine": np.linspace(-0.6, 0.6, 7), "azimuth": np.linspace(0.3, 2.9, 7)}


def test_own_mass_keeps_the_angle():
    table = pairs(131.0, 1.8, **ANGLES)
    assert opening_at_mass(table, 131.0) == pytest.approx(table["dr_yy"].to_numpy(), rel=1e-9)


def test_any_mass_gives_what_the_decay_at_125_has():
    """Pairs of other masses with the pT and decay angles of pairs at 125 GeV get the latter's dR."""
    at_125 = pairs(125.0, 1.8, **ANGLES)
    pt = at_125["pt_yy"][0].as_py()
    for mass in (105.0, 140.0, 160.0):
        other = pairs(mass, np.hypot(1.0, pt / mass), **ANGLES)
        assert other["pt_yy"].to_numpy() == pytest.approx(pt)
        assert abs(other["dr_yy"].to_numpy() - at_125["dr_yy"].to_numpy()).max() > 0.05
        assert opening_at_mass(other) == pytest.approx(at_125["dr_yy"].to_numpy(), rel=1e-9)


def test_pair_at_rest_is_back_to_back():
    table = pairs(110.0, 1.0 + 1e-12, 0.0, 0.4)
    assert opening_at_mass(table) == pytest.approx([np.pi], abs=1e-4)


def with_objects(table):
    """One jet at eta 1.5, an electron at -2, MET, and empty slots, the same in every event."""
    objects = np.zeros((len(table), 11, 12), np.float32)
    for slot, (pt, eta, kind) in {0: (50, 1.5, 7), 6: (30, -2.0, 9), 10: (20, 0.0, 11)}.items():
        objects[:, slot, [0, 1, kind]] = pt, eta, 1
    return table.append_column("objects", tensor_column(objects))


def test_inputs_have_the_columns_they_ask_for():
    table = with_objects(pairs(110.0, 1.5, **ANGLES))
    views = [View(opening) for opening in get_args(Opening)]
    measured, fixed, none = (view.event(table.select(view.columns)) for view in views)
    assert measured.shape == fixed.shape == (7, 2)
    assert (measured[:, 0] == fixed[:, 0]).all()
    assert (measured[:, 1] < fixed[:, 1]).all()  # a heavier pair of the same pT opens wider
    assert (none == np.c_[measured[:, 0], np.zeros(7)]).all()


def test_pseudorapidity_from_the_pair():
    """Only what has a direction moves, by the pair's rapidity; a boost along the beams leaves nothing changed."""
    view = View("none", "diphoton")
    table = with_objects(pairs(125.0, 1.5, **ANGLES, rapidity=0.7))
    assert rapidity(table) == pytest.approx(rapidity(pairs(125.0, 1.5, **ANGLES, rapidity=0.0)) + 0.7)
    lab, seen = View("none").objects(table), view.objects(table.select(view.columns))
    moved = lab[..., 1] - seen[..., 1]
    expected = np.zeros((7, 11))
    expected[:, [0, 6]] = rapidity(table)[:, None]
    assert moved == pytest.approx(expected, abs=1e-6)
    assert (np.delete(lab, 1, axis=2) == np.delete(seen, 1, axis=2)).all()
    boosted = with_objects(pairs(125.0, 1.5, **ANGLES, rapidity=0.7 + 0.4))
    objects = tensor_values(boosted["objects"]).copy()
    objects[:, [0, 6], 1] += 0.4
    boosted = boosted.set_column(boosted.column_names.index("objects"), "objects", tensor_column(objects))
    assert view.objects(boosted) == pytest.approx(seen, abs=1e-5)
