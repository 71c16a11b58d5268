"""The process table in Pythia's own event record, and generation that must not fail silently."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import awkward as ak
import numpy as np
import pytest
from scipy import stats

from raypipe.errors import UserError
from raypipe.simulate import processes
from raypipe.simulate.generator import MAX_SEED, SEEDS, GenerationError, Generator, _HardPhotonVeto
from raypipe.simulate.processes import reference


def _batch(name, n=60, seed=3):
    return next(Generator(processes.get(name), seed).batches(n))


@pytest.mark.parametrize(
    ("name", "pdg", "mass"), [("wn_150", 1000023, 150), ("xsh_500_100", 35, 500), ("zp_400", 5100039, 400)]
)
def test_masses(name, pdg, mass):
    batch = _batch(name, 20)
    found = ak.flatten(batch.prt.m[batch.prt.id == pdg])
    assert ak.to_numpy(found) == pytest.approx(mass, rel=0.05)


def test_resonance_to_higgs_photon_is_isotropic():
    generator = Generator(processes.get("zp_400"), 5)
    cosines = []
    for batch in generator.batches(1500):
        particles = batch.prt
        # Before showers the resonance moves along the beam: one boost leads to its rest frame.
        resonance = particles[(particles.id == 5100039) & (particles.status == -22)][:, 0]
        higgs = particles[(particles.id == 9000025) & (particles.status == -22)][:, 0]
        beta = resonance.p.pz / resonance.p.e
        gamma = 1 / np.sqrt(1 - beta**2)
        pz = gamma * (higgs.p.pz - beta * higgs.p.e)
        cosines.append(ak.to_numpy(pz / np.sqrt(higgs.p.px**2 + higgs.p.py**2 + pz**2)))
    cosine = np.concatenate(cosines)
    assert stats.kstest(cosine, "uniform", args=(-1, 2)).pvalue > 1e-3
    # What Pythia imposes on G* -> hh, and what this recipe avoids, is far away from that.
    wrong = stats.rv_histogram(
        np.histogram(
            np.linspace(-1, 1, 9999), 100, weights=np.linspace(-1, 1, 9999) ** 2 * (1 - np.linspace(-1, 1, 9999) ** 2)
        )
    )
    assert stats.kstest(cosine, wrong.cdf).pvalue < 1e-10


def test_table_is_consistent():
    numbers = [process.number for process in processes.PROCESSES.values()]
    assert len(set(numbers)) == len(numbers)
    assert max(numbers) < 1 << 15  # they share an int64 with shard and row
    # Five standard-model samples (and the optional yj), and the 24 signal points of the papers in eight families.
    groups = Counter(process.group for process in processes.PROCESSES.values())
    wanted = {0: 2, **dict.fromkeys(range(1, 5), 1), -1: 4, -2: 2, -3: 3, -4: 3, -5: 3, -6: 4, -7: 4, -8: 1}
    assert {group: groups[group] for group in wanted} == wanted
    for process in processes.PROCESSES.values():
        listed = process.listing()
        assert listed["approximations"], process.name
        assert listed["source"], process.name
        assert listed["expected_yield_per_fb"] > 0, process.name
        assert listed["masses"] or process.group in (0, 10), process.name  # continua have none


def test_unknown_sample_lists_known_ones():
    with pytest.raises(UserError, match=r"unknown sample 'ggH' \(known: yy, yj, ggf, .*zp_400.*\)"):
        processes.get("ggH")


def test_reference_cross_sections():
    # YR4: (48.58 + 3.782 + 2.2569 + 0.5071) pb x 2.27e-3
    total = sum(reference(name).value(0.0) for name in ("ggf", "vbf", "vh", "tth"))
    assert total == pytest.approx(55.126e3 * 2.27e-3)
    assert reference("yy").value(4000.0) == 8000.0
    assert reference("zp_400").value(123.0) == 1.0


def test_process_without_open_channel_is_an_error():
    closed = replace(processes.get("ggf"), settings=("HiggsSM:gg2H=on", "25:onMode=off"))
    with pytest.raises(GenerationError, match="sample ggf"):
        list(Generator(closed, 1).batches(20))
    assert issubclass(GenerationError, UserError)  # one line on the command line, also from a Ray task


def test_misspelt_setting_is_an_error():
    with pytest.raises(GenerationError, match="sample ggf: Pythia does not know the setting 'HiggsSM:gg3H=on'"):
        Generator(replace(processes.get("ggf"), settings=("HiggsSM:gg3H=on",)), 1)


class _Lossy:
    """Stands for a Pythia that makes only a part of what it is asked for."""

    def __init__(self, share):
        self.share = share

    def nextBatch(self, n):
        made = round(n * self.share)
        return ak.Array([{"prt": [{"id": 1}]}] * made) if made else ak.Array([])

    def infoPython(self):
        return self

    def nTried(self):
        return 0


@pytest.mark.parametrize(
    ("share", "message"), [(0.0, "sample ggf: Pythia made none of 500"), (0.97, "sample ggf: Pythia lost 15 of 500")]
)
def test_lost_events_are_an_error(share, message):
    generator = Generator(processes.get("ggf"), 1)
    generator.pythia = _Lossy(share)
    with pytest.raises(GenerationError, match=message):
        list(generator.batches(1000))


def test_small_losses_are_counted():
    generator = Generator(processes.get("ggf"), 1)
    generator.pythia = _Lossy(0.996)
    assert sum(len(batch) for batch in generator.batches(1200)) == generator.generated == 498 + 498 + 199


def test_a_seed_that_takes_seconds_an_event_gives_way():
    """Of this one Pythia starts with some spike of the ttH cross section, and needs 100,000 tries an event."""
    process, seed = processes.get("tth"), 568858865
    generator = Generator(process, seed)
    (batch,) = generator.batches(25)
    assert generator.seed == 1 + (seed + MAX_SEED // SEEDS) % MAX_SEED
    assert generator.pythia.infoPython().nTried() < 2000 * len(batch)
    # Whoever meets it makes the same events.
    again = Generator(process, generator.seed)
    assert ak.all(next(again.batches(25)).prt.p.e == batch.prt.p.e)


class _Recorder(_HardPhotonVeto):
    """Lets nothing be vetoed early, and counts what early vetoes would have lost."""

    def __init__(self):
        super().__init__()
        self.good, self.lost = np.zeros(2, int), np.zeros(2, int)

    def doVetoPT(self, _position, event):
        self.early = self._hopeless(event, self.SHOWER_ETA, self.SHOWER_SLACK)
        return False

    def doVetoPartonLevel(self, event):
        first, second = (event[event[i].iBotCopyId()] for i in (5, 6))
        pair = first.p() + second.p()
        low, high = sorted((first.pT(), second.pT()))
        central = max(abs(first.eta()), abs(second.eta())) < 2.5
        if central and high > 0.4 * pair.mCalc() and low > 0.3 * pair.mCalc():
            boosted = int(pair.pT() > 100)
            self.good[boosted] += 1
            self.lost[boosted] += self.early or self._hopeless(event, self.ETA, 0.0)
        return self.good.sum() % 10 != 0  # few events need to go on to hadrons


def test_veto_loses_no_event_that_would_pass(monkeypatch):
    from raypipe.simulate import generator

    monkeypatch.setattr(generator, "_HardPhotonVeto", _Recorder)
    made = Generator(processes.get("yy"), 21)
    while made._hook.good.sum() < 2500:
        made.pythia.next()
    assert made._hook.good[1] > 200  # boosted pairs are where a veto on the hard process would be wrong
    assert made._hook.lost.tolist() == [0, 0]
