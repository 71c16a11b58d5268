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
