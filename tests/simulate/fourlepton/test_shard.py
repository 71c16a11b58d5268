"""Four-lepton shards from hard process to table: peaks, yields, reproducibility; and as part of a data set."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from raypipe.config import load_config
from raypipe.errors import UserError
from raypipe.events.schema import FOUR_LEPTON_SCHEMA, LEPTONS, MASSES, validate
from raypipe.events.table import read_table, sample_path, write_table
from raypipe.simulate import dataset, processes
from raypipe.simulate.card import load_card
from raypipe.simulate.fourlepton.selection import mass
from raypipe.simulate.shard import simulate_shard
from tests.conftest import ROOT

M_Z = 91.1876


def make(name, n_generate, seed=21):
    return simulate_shard(processes.get(name), load_card("cms"), seed=seed, shard=2, n_generate=n_generate)


@pytest.fixture(scope="module")
def shards():
    """(table, sidecar) of each sample."""
    sizes = {"qq4l": 3000, "h4l": 500, "abc_125": 800, "abc_150": 800, "abc_250": 800}
    return {name: make(name, n) for name, n in sizes.items()}


def column(shards, name, quantity):
    return shards[name][0][quantity].to_numpy()


def sigma68(values):
    low, high = np.percentile(values, [16, 84])
    return (high - low) / 2


def test_tables_are_valid_and_numbered(shards):
    for name, (table, sidecar) in shards.items():
        validate(table, name, FOUR_LEPTON_SCHEMA)
        assert table.schema == FOUR_LEPTON_SCHEMA
        flow = list(sidecar["cut_flow"].values())
        assert flow == sorted(flow, reverse=True)
        assert flow[0] == sidecar["n_generated"]
        assert flow[-1] == sidecar["n_selected"] == table.num_rows
        number = processes.get(name).number
        assert np.unique(table["event_id"].to_numpy() >> 24).tolist() == [(number << 24) | 2]
        assert sidecar["efficiency"] == pytest.approx(processes.get(name).efficiency, rel=0.2)


def test_masses_follow_from_the_lepton_columns(shards):
    table = shards["qq4l"][0]
    pt, eta, phi = (
        np.stack([table[f"{lepton}_{q}"].to_numpy().astype(float) for lepton in LEPTONS], axis=1)
        for q in ("pt", "eta", "phi")
    )
    for name, use in zip(MASSES, (slice(0, 4), slice(0, 2), slice(2, 4)), strict=True):
        assert mass(pt[:, use], eta[:, use], phi[:, use]) == pytest.approx(table[name].to_numpy(), rel=1e-4)
    assert pt.min() > 10
    assert np.abs(eta[:, :2]).max() < 2.5
    assert np.abs(eta[:, 2:]).max() < 2.4


def test_z_peaks_of_the_pairs(shards):
    """Natural width (1.8 GeV in 68 %) and resolution of the card (1.9 GeV for electrons, 1.3 GeV for muons)."""
    for name, width in (("m_ee", 4.0), ("m_mumu", 3.5)):
        values = column(shards, "qq4l", name)
        near = values[np.abs(values - M_Z) < 12]
        assert len(near) > 0.5 * len(values)
        assert np.median(near) == pytest.approx(M_Z, abs=0.5)
        assert sigma68(near) < width


def test_z_to_four_leptons(shards):
    values = column(shards, "qq4l", "m_4l")
    near = values[(values > 80) & (values < 100)]
    assert 0.08 < len(near) / len(values) < 0.25  # measured 0.15
    assert np.median(near) == pytest.approx(M_Z, abs=1.0)
    # A peak: the neighbouring 20 GeV hold far fewer events; above twice m_Z the continuum rises again.
    assert len(near) > 4 * ((values > 100) & (values < 120)).sum()
    assert ((values > 180) & (values < 220)).sum() > 3 * ((values > 140) & (values < 180)).sum()


def test_higgs_to_four_leptons(shards):
    values = column(shards, "h4l", "m_4l")
    assert np.median(values) == pytest.approx(125.0, abs=0.7)
    assert sigma68(values) < 3.0
    assert (np.abs(values - 125) < 8).mean() > 0.9
    # One Z on shell, the other off: no pair is far above m_Z, and the pair masses add up to less than 125 GeV.
    total = column(shards, "h4l", "m_ee") + column(shards, "h4l", "m_mumu")
    assert np.percentile(total, 97) < 128


@pytest.mark.parametrize(("name", "m_a"), [("abc_125", 125.0), ("abc_150", 150.0), ("abc_250", 250.0)])
def test_signal_peaks(shards, name, m_a):
    """Medians at the masses of paper B: 25 (ee), 15 (mumu) and A, with the resolution of the card."""
    for quantity, expected, tolerance, width in (
        ("m_4l", m_a, 0.005 * m_a, 0.02 * m_a),
        ("m_ee", 25.0, 0.15, 0.75),
        ("m_mumu", 15.0, 0.06, 0.3),
    ):
        values = column(shards, name, quantity)
        assert np.median(values) == pytest.approx(expected, abs=tolerance)
        assert 0.2 * width < sigma68(values) < width


def test_acceptance_grows_with_the_mass(shards):
    assert [shards[f"abc_{m}"][1]["efficiency"] for m in (125, 150, 250)] == pytest.approx(
        [0.125, 0.161, 0.249], abs=0.05
    )


def test_yields(shards):
    """Reference times efficiency: the measured cross section, YR4 x BR, and one fb."""
    for name, reference in (("qq4l", 25.2), ("h4l", 55.13e3 * 5.93e-5), ("abc_150", 1.0)):
        table, sidecar = shards[name]
        assert table["weight"].to_numpy().sum() == pytest.approx(reference * sidecar["efficiency"], rel=0.03)
    assert shards["qq4l"][1]["hard_process"]["overweight"] < 0.005


def test_same_seed_same_bits():
    first, again, other = (make("qq4l", 300, seed=seed)[0] for seed in (22, 22, 23))
    assert first.equals(again)
    assert not np.isin(other["m_4l"].to_numpy(), first["m_4l"].to_numpy()).any()


def test_data_set(tmp_path):
    config = load_config(
        ROOT / "configs" / "fourlepton" / "laptop.yaml",
        ["simulate.samples={abc_250: {events: 60}, qq4l: {events: 60}}", "simulate.shard_events=40"],
    )
    plan = dataset.plan(config)
    sidecars = {
        name: [sample.shard(i).make(tmp_path) for i in range(sample.expected)] for name, sample in plan.samples.items()
    }
    manifest = dataset.assemble(plan, tmp_path, sidecars)
    assert dataset.is_complete(plan, tmp_path)
    for name in plan.samples:
        entry = manifest["samples"][name]
        assert entry["final_state"] == "four_leptons"
        assert entry["card"] == "cms"
        assert entry["cuts"]["selection"]["electron_pt"] == 10
        for split in ("embedding", "search"):
            path = sample_path(tmp_path, split, name)
            table = validate(read_table(path), str(path), FOUR_LEPTON_SCHEMA)
            assert table.num_rows == entry["n_split"][split]
            assert table["weight"].to_numpy().sum() == pytest.approx(entry["yield_per_fb"], rel=1e-12)
    # A cross-section axis: events = sigma x luminosity x efficiency.
    entry = manifest["samples"]["abc_250"]
    assert entry["yield_per_fb"] == pytest.approx(entry["reference_cross_section_fb"] * entry["efficiency"])
    assert entry["reference_cross_section_fb"] == 1.0
    # Shards are made by anyone, in any order, and recognised.
    shard = plan.samples["qq4l"].shard(1)
    before = shard.path(tmp_path).read_bytes()
    shard.path(tmp_path).unlink()
    assert shard.finished(tmp_path) is None
    shard.make(tmp_path)
    assert shard.path(tmp_path).read_bytes() == before


def test_settings_are_part_of_the_key():
    path = ROOT / "configs" / "fourlepton" / "laptop.yaml"
    key = lambda *overrides: dataset.plan(load_config(path, overrides)).samples["qq4l"].shard(0).key  # noqa: E731
    keys = {
        key(),
        key("simulate.four_leptons.beam_energy=8000"),
        key("simulate.four_leptons.selection.muon_pt=5"),
        key("simulate.four_leptons.card=atlas"),
    }
    assert len(keys) == 4
    with pytest.raises(UserError, match=r"sample h4l: .* no cross section at 9000 GeV"):
        key("simulate.four_leptons.beam_energy=9000")


def test_tables_of_the_wrong_kind_are_refused(shards, tmp_path):
    table = shards["abc_125"][0]
    for bad, message in (
        (table.drop_columns(["m_ee"]), "column 'm_ee' is missing"),
        (table.set_column(5, "m_4l", table["m_4l"].cast(pa.float64())), "column 'm_4l' has type double"),
        (pa.concat_tables([table, table]), "column 'event_id'"),
    ):
        write_table(bad, tmp_path / "bad.parquet")
        with pytest.raises(UserError, match=message):
            validate(read_table(tmp_path / "bad.parquet"), "bad.parquet", FOUR_LEPTON_SCHEMA)
