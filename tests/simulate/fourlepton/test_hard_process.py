"""Cross sections against Pythia, unweighted events, Les Houches files."""

from __future__ import annotations

import numpy as np
import pytest
import pythia8mc

from raypipe.config.inputs import FourLeptons
from raypipe.simulate.fourlepton.hard_process import HardProcess, PartonCuts, Unweighter, hard_process, pythia_densities
from raypipe.simulate.fourlepton.source import write_lhe

Z_WINDOW = (66.0, 116.0)


@pytest.fixture(scope="module")
def unweighted():
    """(process, unweighter, 4000 events) at the cuts of the default selection."""
    process = hard_process(PartonCuts.of(FourLeptons()))
    unweighter = Unweighter(process, np.random.default_rng(4))
    return process, unweighter, unweighter.events(4000)


def pair_mass(leptons, i):
    pair = leptons[:, i] + leptons[:, i + 1]
    return np.sqrt(pair[:, 0] ** 2 - (pair[:, 1:] ** 2).sum(axis=1))


def pythia_double_resonant(n):
    """sigma(e+e-mu+mu-, both pairs 66-116 GeV) of Pythia's own process with its own settings, and its error [fb]."""
    pythia = pythia8mc.Pythia("", False)
    for setting in (
        "Print:quiet=on",
        "Beams:eCM=13000.",
        "WeakDoubleBoson:ffbar2gmZgmZ=on",
        "PartonLevel:all=off",
        f"23:mMin={Z_WINDOW[0]}",
        f"23:mMax={Z_WINDOW[1]}",
        "23:onMode=off",
        "23:onIfAny=11 13",
        "Random:setSeed=on",
        "Random:seed=3",
    ):
        assert pythia.readString(setting)
    assert pythia.init()
    for _ in range(n):
        pythia.next()
    info = pythia.infoPython()
    # Half of the open final states (eeee, eemumu, mumuee, mumumumu) are e+e-mu+mu-.
    return info.sigmaGen() * 1e12 / 2, info.sigmaErr() * 1e12 / 2


def test_cross_section_equals_pythia():
    """Both pairs at the Z: within 3 % of Pythia's double-resonant process (measured: 20.04 against 19.97 fb)."""
    process = HardProcess(PartonCuts(min_pt=1e-3, max_eta=1e3, pair_window=Z_WINDOW))
    rng = np.random.default_rng(5)
    weights = np.concatenate([process.weights(50_000, rng)[1] for _ in range(5)])
    found, error = weights.mean(), weights.std() / np.sqrt(len(weights))
    expected, pythia_error = pythia_double_resonant(6000)
    assert error / found < 0.005
    assert pythia_error / expected < 0.01
    assert found == pytest.approx(expected, rel=0.03)


def test_densities_equal_pythia():
    pythia = pythia8mc.Pythia("", False)
    for setting in ("Print:quiet=on", "ProcessLevel:all=off"):
        pythia.readString(setting)
    pythia.init()
    density = pythia.getPDFPtr(2212)
    rng = np.random.default_rng(6)
    x, scale = np.exp(rng.uniform(np.log(1e-4), np.log(0.7), 200)), np.exp(rng.uniform(np.log(30), np.log(2000), 200))
    table = pythia_densities()(x, scale)
    for row, pdg in ((0, 1), (1, 2), (4, 5), (5, -1), (6, -2)):
        exact = np.array([density.xf(pdg, a, q * q) for a, q in zip(x, scale, strict=True)])
        assert table[row] == pytest.approx(exact, rel=0.01, abs=2e-4)


def test_unweighted_events_obey_the_cuts(unweighted):
    process, unweighter, events = unweighted
    assert len(events) == 4000
    cuts = process.cuts
    p = events.leptons
    pt = np.hypot(p[..., 1], p[..., 2])
    assert pt.min() > cuts.min_pt
    assert np.abs(np.arcsinh(p[..., 3] / pt)).max() < cuts.max_eta
    for i in (0, 2):
        assert pair_mass(p, i).min() > cuts.min_pair
    # Momentum balance with the two partons.
    total = p.sum(axis=1)
    half = cuts.beam_energy / 2
    assert total[:, 0] == pytest.approx(events.x.sum(axis=1) * half, rel=1e-9)
    assert total[:, 3] == pytest.approx((events.x[:, 0] - events.x[:, 1]) * half, rel=1e-6, abs=1e-6)
    assert set(np.abs(events.quark)) == {1, 2, 3, 4, 5}
    assert unweighter.overweight < 0.003


def test_unweighted_spectrum_is_the_weighted_one(unweighted):
    process, unweighter, events = unweighted
    points, weights, _ = process.weights(300_000, np.random.default_rng(7))
    kept = weights[weights > 0]
    edges = np.array([0, 85, 97, 150, 200, 260, 400, 1e4])
    wanted, _ = np.histogram(np.sqrt(points.s), edges, weights=kept)
    square, _ = np.histogram(np.sqrt(points.s), edges, weights=kept**2)
    found, _ = np.histogram(events.mass, edges)
    share = wanted / kept.sum()
    error = np.hypot(np.sqrt(len(events) * share), len(events) * np.sqrt(square) / kept.sum())
    assert np.abs((found - len(events) * share) / error).max() < 4
    sigma, sigma_error = unweighter.cross_section
    assert sigma == pytest.approx(weights.mean(), abs=4 * np.hypot(sigma_error, weights.std() / np.sqrt(len(weights))))


def test_z_to_four_leptons_peak(unweighted):
    """Within the parton cuts: a peak of the natural width at m_Z, and Z bosons in both pairs."""
    _, _, events = unweighted
    near = events.mass[(events.mass > 80) & (events.mass < 100)]
    assert np.median(near) == pytest.approx(91.19, abs=0.2)
    low, high = np.percentile(near, [25, 75])
    assert (high - low) / 2 == pytest.approx(2.4952 / 2, abs=0.3)  # quartiles of a Breit-Wigner: half its width
    assert 0.25 < len(near) / len(events) < 0.45  # a third at parton level, a seventh after the selection
    for i in (0, 2):
        pair = pair_mass(events.leptons, i)
        assert np.median(pair[np.abs(pair - 91.19) < 10]) == pytest.approx(91.19, abs=0.15)


def test_same_stream_same_events(unweighted):
    process, _, events = unweighted
    again = Unweighter(process, np.random.default_rng(4)).events(4000)
    assert np.array_equal(events.leptons, again.leptons)
    assert np.array_equal(events.quark, again.quark)
    other = HardProcess(process.cuts)  # another worker sets the process up for itself
    assert other.largest == process.largest
    assert np.array_equal(other.shares, process.shares)


def test_les_houches_file_is_what_pythia_reads(unweighted, tmp_path):
    process, unweighter, events = unweighted
    path = tmp_path / "events.lhe"
    few = type(events)(**{name: getattr(events, name)[:50] for name in events.__dataclass_fields__})
    write_lhe(path, few, process.cuts.beam_energy, unweighter.cross_section)
    assert path.stat().st_size < 50 * 700
    pythia = pythia8mc.Pythia("", False)
    for setting in ("Print:quiet=on", "Beams:frameType=4", f"Beams:LHEF={path}", "PartonLevel:all=off"):
        pythia.readString(setting)
    assert pythia.init()
    for i in range(50):
        assert pythia.next()
        hard = pythia.process
        assert hard[3].id() == few.quark[i]
        for j, pdg in enumerate((11, -11, 13, -13)):
            lepton = hard[5 + j]
            assert lepton.id() == pdg
            # Pythia gives the leptons their masses and keeps that of all four.
            momentum = [lepton.px(), lepton.py(), lepton.pz()]
            assert momentum == pytest.approx(few.leptons[i, j, 1:], abs=1e-3 * few.leptons[i, :, 0].max())
        total = hard[5].p() + hard[6].p() + hard[7].p() + hard[8].p()
        assert total.mCalc() == pytest.approx(few.mass[i], rel=1e-6)
    assert not pythia.next()  # the file has ended
    assert pythia.infoPython().sigmaGen() * 1e12 == pytest.approx(unweighter.cross_section[0], rel=1e-6)
