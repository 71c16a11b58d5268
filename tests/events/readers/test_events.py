"""Whole events of Delphes and NanoAOD trees."""

from __future__ import annotations

import numpy as np
import pytest

from raypipe.config.read import EventSource, Source
from raypipe.errors import UserError
from raypipe.events.readers.registry import file_format
from raypipe.events.readers.root import Branches, DelphesReader, NanoAodReader, open_tree
from tests.events.readers.test_tables import real
from tests.events.readers.trees import known_events, write_delphes


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_delphes(tmp_path_factory.mktemp("delphes") / "run.root", known_events())


def test_delphes_numbers_come_back(tree):
    assert file_format(tree, Source()) == "delphes"
    reader, source = DelphesReader(), EventSource()
    assert reader.rows(tree, source) == 3
    batch = reader.objects(tree, source, 0, 3)
    assert batch.photons.event.tolist() == [0, 0, 1, 2, 2]
    assert batch.photons.pt.tolist() == [80, 60, 80, 80, 60]
    assert batch.jets.mass.tolist() == [8, 12, 0, 2] * 2 + [0]
    assert batch.jets.btag.tolist() == [1, 0, 0, 0] * 2 + [0]
    assert batch.fatjets.tau32[:2] == pytest.approx([0.5, 0.75])
    assert batch.fatjets.tau43[:2] == pytest.approx([0.5, 2 / 3])
    assert batch.electrons.charge.tolist() == [-1] * 3
    assert batch.met == pytest.approx([40] * 3)
    assert batch.met_phi == pytest.approx([-1.5] * 3)
    assert batch.weight.tolist() == [0.25, 0.25, 0.5]
    last = reader.objects(tree, source, 2, 3)
    assert last.photons.event.tolist() == [0, 0]
    assert last.weight.tolist() == [0.5]


def test_other_branch_names_and_missing_fat_jets(tree, tmp_path):
    bare = write_delphes(tmp_path / "bare.root", known_events(), drop=("FatJet.PT", "Event.Weight"))
    batch = DelphesReader().objects(bare, EventSource(), 0, 3)
    assert len(batch.fatjets) == 0
    assert (batch.weight == 1).all()
    renamed = EventSource(tree_columns={"Photon.PT": "Electron.PT"})
    with pytest.raises(UserError, match=r"branch 'Photon\.Eta', event 0: 2 values for 1 objects"):
        DelphesReader().objects(tree, renamed, 0, 3)


def test_bad_trees_are_one_line(tree, tmp_path):
    events = known_events()
    for name, change, words in (
        ("weight", {"weight": -1.0}, r"branch 'Event\.Weight', event 1: the weight -1 is negative"),
        ("nan", {"weight": float("nan")}, r"branch 'Event\.Weight', event 1: nan is not finite"),
        ("photon", {"Photon": [(float("nan"), 0, 0)]}, r"branch 'Photon\.PT', event 1: nan is not finite"),
        ("tau", {"Tau": [(0.5,) * 5]}, r"branch 'FatJet\.Tau' has 5 entries for 6 large-R jets"),
    ):
        path = write_delphes(tmp_path / f"{name}.root", [events[0], events[1] | change, events[2]])
        with pytest.raises(UserError, match=rf"{name}\.root: {words}"):
            DelphesReader().objects(path, EventSource(), 0, 3)
    path = write_delphes(tmp_path / "lost.root", events, drop=("Muon.PT",))
    with pytest.raises(UserError, match=r"lost\.root: branch 'Muon\.PT' is missing \(present: .*Muon\.Eta"):
        DelphesReader().objects(path, EventSource(), 0, 3)
    with pytest.raises(UserError, match=r"tree 'Events' is missing \(trees: Delphes\)"):
        NanoAodReader().rows(tree, EventSource(key="Events"))
    whole = tree.read_bytes()
    (tmp_path / "cut.root").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"cut\.root: not a readable ROOT file") as error:
        DelphesReader().objects(tmp_path / "cut.root", EventSource(), 0, 3)
    assert "\n" not in str(error.value)


def test_nanoaod_of_simulated_top_pairs():
    path = real("readers", "nanoAOD_2015_CMS_Open_Data_ttbar.root")
    assert file_format(path, Source()) == "nanoaod"
    reader, source = NanoAodReader(), EventSource(weights="one")
    batch = reader.objects(path, source, 0, reader.rows(path, source))
    assert batch.n_events == 200
    assert (len(batch.photons), len(batch.jets), len(batch.fatjets)) == (79, 537, 2)
    assert batch.fatjets.tau32 == pytest.approx([0.816, 0.849], abs=1e-3)
    assert (batch.jets.btag == 0).all()  # this campaign did not compute it and wrote -3000
    tagger = EventSource(weights="one", tree_columns={"Jet_btagDeepFlavB": "Jet_btagCSVV2"})
    score = reader.objects(path, tagger, 0, 200).jets.btag
    assert (score.min(), score.max()) == pytest.approx((0, 0.97314), abs=1e-4)  # its "not computed" is -10
    assert 0.1 < (score > 0.4).mean() < 0.2
    with pytest.raises(UserError, match=r"'genWeight', event 5: the weight -225892 is negative: .*weights: sign"):
        reader.objects(path, EventSource(), 0, 200)


def test_real_electrons_have_the_z_mass_and_the_known_number_of_four_lepton_events():
    path = real("readers", "skim_Run2012B_DoubleElectron.root")
    reader, source = NanoAodReader(), EventSource(chunk_rows=20_000)
    leptons, masses = [], []
    for start in range(0, 50_000, 20_000):
        stop = min(start + 20_000, 50_000)
        with open_tree(path, None, reader.trees) as tree:
            read = Branches(tree, path, source, start, stop, reader.joint)
            e, muons = (read.kind(kind, reader.place | {"charge": "charge"}) for kind in ("Electron", "Muon"))
        count = np.bincount(e.event, minlength=stop - start)
        leptons.append(count + np.bincount(muons.event, minlength=stop - start))
        first = np.flatnonzero((count[e.event] == 2) & (np.r_[True, e.event[1:] != e.event[:-1]]))
        hard = first[(e.pt[first] > 25) & (e.pt[first + 1] > 20) & (e.charge[first] * e.charge[first + 1] < 0)]
        i, j = hard, hard + 1
        masses.append(np.sqrt(2 * e.pt[i] * e.pt[j] * (np.cosh(e.eta[i] - e.eta[j]) - np.cos(e.phi[i] - e.phi[j]))))
    assert len(np.concatenate(leptons)) == 50_000
    assert (np.concatenate(leptons) >= 4).sum() == 2912
    z = np.concatenate(masses)
    assert np.median(z[(z > 80) & (z < 100)]) == pytest.approx(90.6, abs=0.6)
    with pytest.raises(UserError, match="branch 'Photon_pt' is missing"):
        reader.objects(path, source, 0, 10)
