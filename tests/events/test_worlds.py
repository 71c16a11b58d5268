"""Other worlds: what must change changes by as much as it should, and nothing else does."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pyarrow as pa
import pytest

from raypipe.config.run import VARIATIONS
from raypipe.errors import UserError
from raypipe.events.diphoton import _photons as four_vectors
from raypipe.events.objects import invariant_mass
from raypipe.events.schema import FEATURES, OBJECT_FEATURES, SLOTS, tensor_column, tensor_values, validate
from raypipe.events.worlds import JET_SCALE, MET_NOISE, PHOTON_RESOLUTION, PHOTON_SCALE, TAG_LOSS, WORLDS, varied
from tests.events.helpers import event_table

PT, PHI, BTAG = (OBJECT_FEATURES.index(name) for name in ("pt", "phi", "btag"))
MET, JETS = SLOTS.index("met"), [i for i, slot in enumerate(SLOTS) if slot == "jet"]


def events(n: int = 4000, group: int = 1) -> pa.Table:
    """Made-up events whose masses, sums and features are those of their photons and objects."""
    table = event_table(n, group=group)
    pair = np.stack(four_vectors(table)).sum(0)
    table = put(table, "m_yy", invariant_mass(pair.T).astype(np.float32))
    table = put(table, "pt_yy", np.hypot(pair[1], pair[2]).astype(np.float32))
    objects = np.array(tensor_values(table["objects"]))
    objects[:, JETS, BTAG] = objects[:, JETS, PT] > 0
    features = np.array(tensor_values(table["features"]))
    for name, values in (
        ("pt_yy", table["pt_yy"].to_numpy()),
        ("met", objects[:, MET, PT]),
        ("ht", objects[:, JETS, PT].sum(1)),
        ("n_jet", (objects[:, JETS, PT] > 0).sum(1)),
    ):
        features[:, FEATURES.index(name)] = values
    return put(put(table, "objects", objects), "features", features)


def put(table: pa.Table, column: str, values: np.ndarray) -> pa.Table:
    place = table.column_names.index(column)
    return table.set_column(
        place, table.schema.field(place), tensor_column(values) if values.ndim > 1 else pa.array(values)
    )


def momenta(table: pa.Table, slots: list[int]) -> np.ndarray:
    """Summed transverse momenta (2, n) of objects, in the detector's frame."""
    pair = np.stack(four_vectors(table)).sum(0)
    objects = tensor_values(table["objects"])[:, slots].astype(float)
    phi = objects[..., PHI] + np.arctan2(pair[2], pair[1])[:, None]
    return np.stack([(objects[..., PT] * np.cos(phi)).sum(1), (objects[..., PT] * np.sin(phi)).sum(1)])


def feature(table: pa.Table, name: str) -> np.ndarray:
    return tensor_values(table["features"])[:, FEATURES.index(name)]


def test_the_configuration_knows_the_worlds():
    assert get_args(VARIATIONS) == tuple(WORLDS)
    with pytest.raises(UserError, match=r"scan.variations: 'mpi' is unknown \(known are photon_scale, "):
        varied(events(3), "mpi", 1)


@pytest.mark.parametrize("world", WORLDS)
def test_a_world_is_a_valid_table_and_knows_no_batches(world):
    table = events(300, group=int(world != "continuum_jets"))
    whole = validate(varied(table, world, 7), world)
    parts = pa.concat_tables([varied(table.slice(0, 100), world, 7), varied(table.slice(100), world, 7)])
    assert parts.equals(whole)
    assert not whole.equals(table)


@pytest.mark.parametrize("world", ["photon_scale", "photon_resolution"])
def test_photons_keep_event_and_detector_consistent(world):
    table = events()
    other = varied(table, world, 7)
    pair, before = (np.stack(four_vectors(t)).sum(0) for t in (other, table))
    assert other["m_yy"].to_numpy() == pytest.approx(invariant_mass(pair.T), rel=1e-5)
    assert other["pt_yy"].to_numpy() == pytest.approx(np.hypot(pair[1], pair[2]), rel=1e-4, abs=1e-3)
    assert feature(other, "pt_yy").tolist() == other["pt_yy"].to_numpy().tolist()
    # What is missing balances all that is measured.
    assert momenta(other, [MET]) + pair[1:3] == pytest.approx(momenta(table, [MET]) + before[1:3], abs=1e-2)
    # Jets stay where they are in the detector.
    assert momenta(other, JETS) == pytest.approx(momenta(table, JETS), abs=1e-2)


def test_sizes_of_scale_and_resolution():
    table = events()
    scaled, smeared = (varied(table, w, 7)["m_yy"].to_numpy() / table["m_yy"].to_numpy() for w in list(WORLDS)[:2])
    assert scaled == pytest.approx(np.full(len(scaled), 1 + PHOTON_SCALE), rel=1e-6)
    wanted = PHOTON_RESOLUTION / np.sqrt(2)  # of the mass: half of either photon's, added in squares
    assert smeared.std() == pytest.approx(wanted, rel=4 / np.sqrt(2 * len(smeared)))
    assert smeared.mean() == pytest.approx(1, abs=4 * wanted / np.sqrt(len(smeared)))
    continuum = events(group=0)
    for world in ("photon_scale", "photon_resolution"):
        assert varied(continuum, world, 7)["m_yy"].equals(continuum["m_yy"])


def test_jets_and_missing_momentum():
    table = events()
    other = varied(table, "jet_scale", 7)
    assert momenta(other, JETS) == pytest.approx((1 + JET_SCALE) * momenta(table, JETS), rel=1e-4, abs=1e-2)
    assert momenta(other, [MET, *JETS]) == pytest.approx(momenta(table, [MET, *JETS]), abs=2e-2)
    assert feature(other, "ht") == pytest.approx((1 + JET_SCALE) * feature(table, "ht"), rel=1e-5)
    moved = momenta(varied(table, "met_noise", 7), [MET]) - momenta(table, [MET])
    assert moved.std(1) == pytest.approx([MET_NOISE] * 2, rel=4 / np.sqrt(2 * len(table)))
    assert abs(np.corrcoef(moved)[0, 1]) < 4 / np.sqrt(len(table))


def test_tags_are_lost():
    table = events()
    before, after = (tensor_values(t["objects"])[:, JETS, BTAG] for t in (table, varied(table, "tag_loss", 7)))
    lost = 1 - after.sum() / before.sum()
    assert lost == pytest.approx(TAG_LOSS, abs=4 * float(np.sqrt(TAG_LOSS / before.sum())))
    assert (after <= before).all()


def test_yields_are_those_of_the_sm_higgs_or_of_the_continuum():
    higgs, signal, continuum = events(group=1), events(group=-2), events(group=0)
    ratio = lambda t, world: varied(t, world, 7)["weight"].to_numpy() / t["weight"].to_numpy()  # noqa: E731
    assert ratio(higgs, "higgs_yield") == pytest.approx(np.full(len(higgs), 1.1))
    pt = higgs["pt_yy"].to_numpy()
    assert ratio(higgs, "higgs_pt")[pt > 200] == pytest.approx(np.full((pt > 200).sum(), 1.2))
    assert ratio(higgs, "higgs_pt")[np.argmin(pt)] == pytest.approx(0.8 + 0.002 * pt.min(), abs=1e-6)
    jets = feature(continuum, "n_jet") >= 2
    assert ratio(continuum, "continuum_jets") == pytest.approx(np.where(jets, 1.2, 1.0))
    for world in ("higgs_yield", "higgs_pt", "continuum_jets"):
        assert (ratio(signal, world) == 1).all()
    for world in ("higgs_yield", "higgs_pt"):
        assert (ratio(continuum, world) == 1).all()
