"""Pairs of objects from the lists of ROOT trees: closed forms, another implementation on real collisions, bad input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot

from raypipe.config.read import Columns, Pairs, Source
from raypipe.errors import UserError
from raypipe.events.readers.pairs import THERE, momenta, pair_quantities
from raypipe.events.readers.registry import reader_for
from raypipe.search.reading import collect
from tests.events.readers.test_tables import real
from tests.events.readers.trees import known_events, write_delphes


def quantities(path: Path, columns: list[str], **pairs: Any) -> dict[str, np.ndarray]:
    """Columns of the events that have a pair."""
    source = Source(pairs=Pairs(**pairs))
    reader = reader_for(path, source)
    table = reader.read(path, source, 0, reader.rows(path, source), [*columns, THERE])
    return {name: table[name].to_numpy()[table[THERE].to_numpy()] for name in columns}


def test_back_to_back_photons_have_twice_the_energy_as_mass():
    one = {"pt": np.array([45.0]), "eta": np.array([0.3]), "phi": np.array([1.0])}
    other = {"pt": np.array([45.0]), "eta": np.array([-0.3]), "phi": np.array([1.0 - np.pi])}
    found = {k: float(v[0]) for k, v in pair_quantities(momenta(one, 0.0), momenta(other, 0.0)).items()}
    assert found["mass"] == pytest.approx(90 * np.cosh(0.3))
    assert found["pt"] == pytest.approx(0, abs=1e-9)
    assert found["rapidity"] == pytest.approx(0, abs=1e-12)
    assert found["deta"] == pytest.approx(0.6)
    assert found["dphi"] == pytest.approx(np.pi)
    assert found["cos_theta"] == pytest.approx(np.tanh(0.3))  # the frame of the laboratory is that of the pair


def test_the_angle_of_collins_and_soper_does_not_feel_a_boost_along_the_beam():
    rng = np.random.default_rng(1)
    first, second = (
        {"pt": rng.uniform(5, 80, 500), "eta": rng.uniform(-2, 2, 500), "phi": rng.uniform(-3, 3, 500)} for _ in "ab"
    )
    boosted = [one | {"eta": one["eta"] + 0.7} for one in (first, second)]
    here = pair_quantities(momenta(first, 0.0), momenta(second, 0.0))
    there = pair_quantities(*(momenta(one, 0.0) for one in boosted))
    for name in ("mass", "pt", "deta", "dphi", "cos_theta"):
        np.testing.assert_allclose(there[name], here[name], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(there["rapidity"], here["rapidity"] + 0.7)
    assert (here["cos_theta"] <= 1).all()


def test_real_electrons_beside_awkward():
    """The leading pair by awkward's own sorting, event by event, of recorded collisions (CMS 2012)."""
    path = real("readers", "skim_Run2012B_DoubleElectron.root")
    names = ["pair.mass", "pair.count", "first.pt", "second.dxy", "PV_npvs"]
    found = quantities(path, names, of="Electron", cuts={"pt": (15.0, None), "eta": (-2.5, 2.5)})
    with uproot.open(path) as file:
        leaves = ("pt", "eta", "phi", "mass", "charge", "dxy")
        raw = file["Events"].arrays([*(f"Electron_{leaf}" for leaf in leaves), "PV_npvs"])
    objects = ak.zip({leaf: raw[f"Electron_{leaf}"] for leaf in leaves})
    objects = objects[(objects.pt >= 15) & (objects.eta >= -2.5) & (objects.eta < 2.5)]
    has_two = ak.num(objects) >= 2
    objects, vertices = objects[has_two], raw["PV_npvs"][has_two]
    objects = objects[ak.argsort(objects.pt, ascending=False)]
    opposite = objects.charge[:, 0] * objects.charge[:, 1] < 0
    objects, vertices = objects[opposite], vertices[opposite]
    a, b = objects[:, 0], objects[:, 1]
    massless = np.sqrt(2 * a.pt * b.pt * (np.cosh(a.eta - b.eta) - np.cos(a.phi - b.phi)))
    high = ak.to_numpy(massless) > 20  # where the electrons' masses, noise around zero in this file, do not count
    np.testing.assert_allclose(found["pair.mass"][high], ak.to_numpy(massless)[high], rtol=2e-3)
    np.testing.assert_array_equal(found["pair.count"], ak.to_numpy(ak.num(objects)))
    np.testing.assert_allclose(found["first.pt"], ak.to_numpy(a.pt))
    np.testing.assert_allclose(found["second.dxy"], ak.to_numpy(b.dxy))
    np.testing.assert_array_equal(found["PV_npvs"], ak.to_numpy(vertices))
    peak = found["pair.mass"][np.abs(found["pair.mass"] - 91) < 8]
    assert np.median(peak) == pytest.approx(91.19, abs=0.3)  # m_Z (PDG)


def test_lists_of_energies_and_momenta():
    """Muons with Px, Py, Pz and E of a sample of H -> ZZ: the charges decide which pairs count."""
    path = real("readers", "uproot-HZZ.root")
    opposite = quantities(path, ["pair.mass"], of="Muon")["pair.mass"]
    counts = {
        c: len(quantities(path, ["pair.mass"], of="Muon", charge=c)["pair.mass"]) for c in ("opposite", "same", "any")
    }
    assert counts["opposite"] + counts["same"] == counts["any"]
    assert np.median(opposite[np.abs(opposite - 91) < 10]) == pytest.approx(91.19, abs=0.5)


def test_events_without_a_pair_are_left_out_and_ids_are_places(tmp_path):
    """Delphes' own names; the muon below the cut is no muon, so only two photons make a pair."""
    path = write_delphes(tmp_path / "d.root", known_events())
    source = Source(pairs=Pairs(of="Photon", charge="any", cuts={"pt": (50.0, None)}), chunk_rows=1)
    found = collect([str(path)], source, Columns(mass="pair.mass", features=["pair.dphi", "second.PT"]))
    assert found.event_id.tolist() == [0, 2]
    np.testing.assert_allclose(found.mass, np.sqrt(2 * 80 * 60), rtol=1e-6)
    np.testing.assert_allclose(found.features, [[np.pi / 2, 60]] * 2, rtol=1e-6)
    assert len(quantities(path, ["pair.mass"], of="Muon", cuts={"PT": (10.0, None)})["pair.mass"]) == 0


@pytest.mark.parametrize(
    ("pairs", "features", "said"),
    [
        ({"of": "Tau"}, ["pair.pt"], "source.pairs.of: no list 'Tau' whose objects have pt, eta and phi.*Photon"),
        ({"of": "Photon"}, ["pair.pt"], "branch 'Photon.charge' is missing"),
        ({"of": "Muon", "cuts": {"iso": (0, 1)}}, ["pair.pt"], "branch 'Muon.iso' is missing"),
        ({"of": "Muon"}, ["first.iso"], "column 'first.iso' is missing"),
    ],
)
def test_what_is_not_there_is_one_line(tmp_path, pairs, features, said):
    path = write_delphes(tmp_path / "d.root", known_events())
    with pytest.raises(UserError, match=said) as caught:
        collect([str(path)], Source(pairs=Pairs(**pairs)), Columns(mass="pair.mass", features=features))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pairs_of_a_file_that_is_no_tree(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("m,a\n1,2\n")
    with pytest.raises(UserError, match=r"t\.csv: not a readable ROOT file"):
        collect([str(path)], Source(pairs=Pairs(of="Muon")), Columns(mass="pair.mass", features=["pair.pt"]))
