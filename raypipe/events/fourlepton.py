"""The four-lepton event table: one row an event with e+ e- mu+ mu- (massless), its schema beside the diphoton one."""

from __future__ import annotations

import pyarrow as pa

from raypipe.events.schema import EVENT_SCHEMA

MASSES = ("m_4l", "m_ee", "m_mumu")  # The three numbers that the search of paper B uses (section 2), GeV

LEPTONS = ("e_minus", "e_plus", "mu_minus", "mu_plus")
"""The leptons by charge; no two are alike, so nothing has to be ordered."""

LEPTON_COLUMNS = tuple(f"{lepton}_{q}" for lepton in LEPTONS for q in ("pt", "eta", "phi"))
"""The twelve numbers of an event: four three-momenta (paper B, section 2)."""

FOUR_LEPTON_SCHEMA = pa.schema(
    [
        *(EVENT_SCHEMA.field(name) for name in ("event_id", "sample", "group", "split", "weight")),
        *(pa.field(name, pa.float32(), nullable=False) for name in (*MASSES, *LEPTON_COLUMNS)),
    ]
)
"""Arrow schema of the four-lepton event table."""
