"""The record of all samples (``python -m tests.simulate.record``) against the process table, references and bounds."""

from __future__ import annotations

import json

import numpy as np
import pytest

from raypipe.simulate.processes import PROCESSES

from .record import RECORD

SAMPLES = json.loads(RECORD.read_text())["samples"]


def test_every_sample_is_recorded():
    assert set(SAMPLES) >= {name for name, process in PROCESSES.items() if -8 <= process.group <= 4}


@pytest.mark.parametrize("name", SAMPLES)
def test_table_expects_what_was_measured(name):
    row, process = SAMPLES[name], PROCESSES[name]
    # A wrong expectation only costs a shard more or less.
    assert process.efficiency == pytest.approx(row["efficiency"], rel=0.04)
    if process.group > 0 or process.group < 0:
        # Reference x efficiency: for the Higgs YR4 cross sections x BR, for signals one fb.
        assert row["yield_per_fb"] == pytest.approx(process.reference.value(0.0) * row["efficiency"], rel=1e-6)
        # Half the sample's resolution over its root is far below the bound even for boosted third photons.
        assert row["m_yy_median"] == pytest.approx(125.0, abs=0.2)
    assert process.expected_yield_per_fb == pytest.approx(row["yield_per_fb"], rel=0.06)


def test_bounds():
    rows = SAMPLES.values()
    assert np.mean([row["bytes_per_event"] for row in rows]) < 160
    assert max(row["max_rss_mib"] for row in rows) < 700
    assert min(row["selected_per_cpu_second"] for row in rows) > 50


AUTHORS = {
    "yy": {"jet1": 0.46, "jet2": 0.18, "jet3": 0.06, "jet4": 0.02, "electron1": 0.00, "muon1": 0.00},
    "tth": {"jet1": 1.00, "jet2": 0.99, "jet3": 0.93, "jet4": 0.79, "electron1": 0.13, "muon1": 0.16},
    "wn_150": {"jet1": 0.87, "jet2": 0.63, "jet3": 0.35, "jet4": 0.17, "electron1": 0.08, "muon1": 0.09},
    "wn_600": {"jet1": 0.95, "jet2": 0.80, "jet3": 0.57, "jet4": 0.35, "electron1": 0.09, "muon1": 0.10},
}
"""Share of events in 105-145 GeV with an object; source: Patchouligoo/particle_transformer_ae (public notes, 2026)."""


@pytest.mark.parametrize("name", AUTHORS)
def test_presence_against_the_authors_samples(name):
    """ttH is Pythia's own process on both sides and agrees; leptons agree everywhere.

    The others have fewer jets here: the authors' come from MadGraph with up to three further partons (yy) and with
    multi-parton interactions, and count jets from 20 GeV before the scale, where ours begin at 25 GeV after it.
    """
    ours = SAMPLES[name]["presence_105_145"]
    for kind, theirs in AUTHORS[name].items():
        if name == "tth" or not kind.startswith("jet"):
            assert ours[kind] == pytest.approx(theirs, abs=0.025), kind
        else:
            assert 0.3 * theirs < ours[kind] < theirs, kind
