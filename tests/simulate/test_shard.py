"""One shard from generator to table: peaks, spectra, yields, reproducibility."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from raypipe.events.schema import OBJECT_FEATURES, tensor_values, validate
from raypipe.simulate import processes
from raypipe.simulate.generator import MAX_SEED
from raypipe.simulate.shard import pythia_seed, simulate_shard


def test_higgs_peak(ggf):
    table, _ = ggf
    mass = table["m_yy"].to_numpy()
    low, median, high = np.percentile(mass, [16, 50, 84])
    assert median == pytest.approx(125.0, abs=0.2)
    # sigma(m)/m = sqrt(2)/2 x sigma(E)/E at 62.5 GeV and more = 1.3 %: 1.6 GeV
    assert (high - low) / 2 == pytest.approx(1.6, abs=0.2)
    assert ((mass > 120) & (mass < 130)).mean() > 0.98


def test_mass_follows_from_the_photon_columns(ggf):
    c = {name: ggf[0][name].to_numpy().astype(float) for name in ggf[0].column_names if name.startswith("y")}
    delta_phi = c["y1_phi"] - c["y2_phi"]
    mass = np.sqrt(2 * c["y1_pt"] * c["y2_pt"] * (np.cosh(c["y1_eta"] - c["y2_eta"]) - np.cos(delta_phi)))
    assert mass == pytest.approx(ggf[0]["m_yy"].to_numpy(), rel=1e-4)
    pt = np.hypot(
        c["y1_pt"] * np.cos(c["y1_phi"]) + c["y2_pt"] * np.cos(c["y2_phi"]),
        c["y1_pt"] * np.sin(c["y1_phi"]) + c["y2_pt"] * np.sin(c["y2_phi"]),
    )
    assert pt == pytest.approx(ggf[0]["pt_yy"].to_numpy(), rel=1e-3, abs=0.01)
    assert (c["y1_pt"] >= c["y2_pt"]).all()


def test_table_is_valid_and_numbered(ggf, yy):
    for table, sidecar in (ggf, yy):
        validate(table, "shard")
        assert table.num_rows == sidecar["n_selected"] == sidecar["cut_flow"]["mass_window"]
        flow = list(sidecar["cut_flow"].values())
        assert flow[0] == sidecar["n_generated"]
        assert flow == sorted(flow, reverse=True)
    ids = np.concatenate([ggf[0]["event_id"].to_numpy(), yy[0]["event_id"].to_numpy()])
    assert len(np.unique(ids)) == len(ids)
    assert np.unique(ggf[0]["event_id"].to_numpy() >> 24).tolist() == [(1 << 24) | 3]  # process 1, shard 3


def test_objects_are_ordered_and_leading_jets_recoil(ggf):
    objects = tensor_values(ggf[0]["objects"])
    pt = objects[:, :, 0]
    for first, last in ((0, 4), (4, 6), (6, 8), (8, 10)):
        assert (np.diff(pt[:, first:last], axis=1) <= 0).all()
    assert (pt[:, 0][pt[:, 0] > 0] > 25).all()
    assert (pt[:, 4][pt[:, 4] > 0] > 200).all()
    phi = objects[:, :, OBJECT_FEATURES.index("phi")]
    assert np.abs(phi).max() < np.pi
    hard = ggf[0]["pt_yy"].to_numpy() > 60
    assert hard.sum() > 100
    # The diphoton recoils against the leading jet: its azimuth is near pi once measured from the pair's.
    assert np.median(np.abs(phi[hard, 0])) > 2.7


def test_higgs_yield_is_reference_times_efficiency(ggf):
    table, sidecar = ggf
    assert sidecar["efficiency"] == pytest.approx(0.385, abs=0.04)
    expected = 48.58e3 * 2.27e-3 * sidecar["efficiency"]
    assert table["weight"].to_numpy().sum() == pytest.approx(expected, rel=1e-9)


def test_continuum_falls_smoothly(yy):
    mass = yy[0]["m_yy"].to_numpy()
    counts, edges = np.histogram(mass, np.linspace(105, 160, 12))
    centres = (edges[1:] + edges[:-1]) / 2
    # An exponential of a quadratic describes it: no edge of the generated window, no peak.
    fit = np.polynomial.Polynomial.fit(centres, np.log(counts), 2, w=np.sqrt(counts))
    chi2 = np.sum((counts - np.exp(fit(centres))) ** 2 / counts)
    assert chi2 < 26  # 8 degrees of freedom, p = 0.001
    assert (np.diff(np.exp(fit(edges))) < 0).all()
    assert 0.17 < ((mass > 120) & (mass < 130)).mean() < 0.24


def test_split_has_the_asked_share(yy):
    share = np.mean(np.array(yy[0]["split"].to_pylist()) == "embedding")
    n = yy[0].num_rows
    assert share == pytest.approx(0.2, abs=4 * np.sqrt(0.16 / n))
    assert round(share * n) == yy[1]["n_embedding"]


def test_same_seed_same_bits(card):
    make = lambda seed: simulate_shard(processes.get("vh"), card, seed=seed, shard=0, n_generate=150)[0]  # noqa: E731
    first, again, other = make(5), make(5), make(6)
    assert first.equals(again)
    assert not np.isin(other["m_yy"].to_numpy(), first["m_yy"].to_numpy()).any()


def test_veto_does_not_change_the_yield(card, yy):
    slow = replace(processes.get("yy"), veto_hard_photons=False)
    _, sidecar = simulate_shard(slow, card, seed=13, shard=0, n_generate=3000)
    without = sidecar["pythia_cross_section_fb"] * sidecar["efficiency"]
    vetoed = yy[1]["pythia_cross_section_fb"] * yy[1]["efficiency"]
    error = np.hypot(1 / np.sqrt(sidecar["n_selected"]), 1 / np.sqrt(yy[1]["n_selected"]))
    assert vetoed / without == pytest.approx(1.0, abs=3.5 * error)
    assert yy[1]["efficiency"] > 2 * sidecar["efficiency"]


def test_shards_with_hardly_any_events_work(card):
    """Batches in which nothing is selected, or nothing is reconstructed at all, are ordinary."""
    selected = []
    for seed in range(6):
        table, sidecar = simulate_shard(processes.get("ggf"), card, seed=seed, shard=seed, n_generate=1)
        validate(table, "tiny")
        selected.append(table.num_rows)
        assert sidecar["n_generated"] == 1
    assert set(selected) == {0, 1}


def test_seeds_fit_pythia():
    assert pythia_seed(0) == 1
    assert pythia_seed(MAX_SEED - 1) == MAX_SEED
    assert 1 <= pythia_seed(2**31 - 1) <= MAX_SEED


HANGS = """
import time
from raypipe.simulate import generator, processes

class Hangs(generator._HardPhotonVeto):
    def doVetoPartonLevel(self, event):
        time.sleep(60)

generator.STUCK, generator._HardPhotonVeto = 1.0, Hangs
next(generator.Generator(processes.get("yy"), 1).batches(10))
"""


def test_a_generator_that_hangs_ends_its_process():
    """Pythia has been seen to; Ray starts the task of a process that died again."""
    done = subprocess.run([sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("Timeout (0:00:01)!")
    assert "in batches" in done.stderr
