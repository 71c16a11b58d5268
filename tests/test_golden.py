"""Golden rows: what every search gives on tiny made-up inputs, against a record (`tests/records/golden.json`).

A refactoring leaves the rows as they are. ``python -m tests.test_golden`` writes the record anew; that is right only
when physics was meant to change, in the commit that changes it, with a word on what moved and why.

The inputs are drawn in this process from fixed seeds; no Ray, no files. On the processor and with the packages of the
record the rows agree to `EXACT`. Elsewhere sums round differently and a tree may split elsewhere: there only what is
drawn and fitted before any training is compared so closely, and the rest to `ELSEWHERE`.
"""

from __future__ import annotations

import importlib.metadata
import math
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raypipe.config import load_config
from raypipe.config.haxad import HaxadConfig
from raypipe.config.multilepton import MultileptonConfig
from raypipe.files import read_json, write_json
from raypipe.search import contrastive, haxad, multilepton
from raypipe.search.case import Tables
from raypipe.search.diphoton import prepare_tables
from raypipe.search.result import NO_SIGNAL, Result, Trial
from raypipe.search.table import search_table
from raypipe.store.ledger import NUMERICS
from tests.conftest import ROOT
from tests.search.test_contrastive import events
from tests.search.test_multilepton import pool
from tests.search.test_table import OVERRIDES as TABLE
from tests.search.test_table import as_features
from tests.search.toys import toy_table

RECORD = Path(__file__).parent / "records" / "golden.json"
EXACT = 1e-6
"""Relative, on the machine of the record."""
ELSEWHERE = 0.3
"""Relative, and absolute for numbers below one, on any other machine."""
BEFORE_TRAINING = {
    "s_before",
    "b_before",
    "n_before",
    "truth_before",
    "b_expected_sr",
    "massfit_chi2",
    "massfit_ndf",
    "luminosity",
    "instance_overlap",
    "peak_mass",
    "peak_width",
    "higgs_before",
    "fit_s_before",
    "fit_z_before",
    "n_data",
    "n_reference",
    "n_signal",
    "strength",
    "instance",
    "seed",
    "working_point",
}
"""Columns that no training enters."""
FLOW = {
    "members": 3,
    "leave_out": 1,
    "layers": 2,
    "hidden": 16,
    "blocks": 1,
    "epochs": 3,
    "batch_size": 256,
    "learning_rate": 0.005,
}
SMALL = [*(f"flow.{k}={v}" for k, v in FLOW.items()), "classifier.folds=3", "classifier.rounds=15"]


def cathode_tables(config: Any) -> Tables:
    """A falling continuum with two Gaussian latents, a Higgs and a signal above it."""
    higgs = [events(600, 20.0, f, 1.5, True, f) for f in (200_000, 300_000)]
    search = {
        "yy": events(4000, 300.0, 0, 0.0, False, 1),
        "ggf": higgs[0],
        "wn_150": events(800, 1.0, 100_000, 3.0, True, 2),
    }
    continuum = events(4000, 300.0, 600_000, 0.0, False, 3)
    return prepare_tables({"search": search, "embedding": {"ggf": higgs[1], "yy": continuum}}, config)


def contrastive_rows(*trials: Trial, encoders: int = 1) -> list[Result]:
    given = [
        "pseudodata.luminosity=10",
        "pseudodata.background=[yy, ggf]",
        "scan.signals=[wn_150]",
        "classifier.ensemble=1",
        "classifier.ensembles=2",
        "selection.working_points=[0.02, 0.1]",
    ]
    config = load_config(ROOT / "configs/contrastive/laptop.yaml", [*given, *SMALL])
    tables = cathode_tables(config)
    return [contrastive.search([tables] * encoders, config, trial) for trial in trials]


def haxad_config(**classifier: Any) -> HaxadConfig:
    return HaxadConfig.model_validate(
        {
            "simulate": {"samples": {name: {"events": 1000} for name in ("yy", "ggf", "wn_150")}},
            "embedding": {"samples": ["yy", "ggf"]},
            "flow": FLOW,
            "pseudodata": {"luminosity": 10.0, "background": ["yy", "ggf"]},
            "classifier": {"folds": 3, "ensemble": 1, "rounds": 15} | classifier,
            "selection": {"working_points": [0.05]},
            "scan": {"signals": ["wn_150"], "strengths": [2.0]},
        }
    )


def haxad_rows() -> list[Result]:
    config = haxad_config()
    tables = cathode_tables(config)
    return [haxad.search(tables, config, trial) for trial in (Trial("wn_150", 2.0, 0), Trial(NO_SIGNAL, 0.0, 1))]


def multilepton_rows() -> list[Result]:
    config = MultileptonConfig.model_validate(
        {
            "features": ["x", "y"],
            "files": {"data": "-", "reference": "-", "signals": {"bump": "-"}},
            "compare": {"expected": 150},
            "networks": {"hidden": [16, 16], "members": 3, "epochs": 4},
            "bootstrap": {"count": 20},
            "scan": {"signals": ["bump"], "strengths": [60], "instances": 2, "calibration": 20},
        }
    )
    signals = {"bump": pool(9, 400, "bump", 2.0, 0.1)}
    tables = multilepton.divide(pool(1, 4000), pool(2, 2000), signals, None, config)
    kinds = (multilepton.BOOTSTRAP, 0.0), (NO_SIGNAL, 0.0), ("bump", 60.0)
    return multilepton.compare(tables, config, [Trial(signal, strength, 1) for signal, strength in kinds])


def table_rows() -> list[Result]:
    config = load_config(ROOT / "configs/lhco/laptop.yaml", [*TABLE, *SMALL, "classifier.ensemble=1"])
    return [search_table(as_features(toy_table(6000, 60, 1)), config)[0]]


CASES: dict[str, Callable[[], list[Result]]] = {
    "contrastive cathode": lambda: contrastive_rows(Trial("wn_150", 2.0, 0), Trial(NO_SIGNAL, 0.0, 1)),
    "contrastive, two encoders": lambda: contrastive_rows(Trial("wn_150", 2.0, 1), encoders=2),
    "contrastive idealised": lambda: contrastive_rows(Trial("wn_150", 2.0, 0, method="idealised")),
    "haxad": haxad_rows,
    "multilepton": multilepton_rows,
    "table": table_rows,
}


def rows(case: str) -> list[dict[str, Any]]:
    """All rows of a case without seconds and without hashes, as JSON has them; a number that is not finite as text."""
    torch.set_num_threads(1)
    found = [row for result in CASES[case]() for row in result.rows]
    beside = ("seconds", "flow_stage"), ("_replicas",)  # of efficiencies that are here
    return [
        {k: plain(v) for k, v in row.items() if not (k.startswith(beside[0]) or k.endswith(beside[1]))} for row in found
    ]


def plain(value: Any) -> Any:
    """A value of a row for JSON."""
    value = value.item() if isinstance(value, np.generic) else value
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def machine() -> dict[str, str]:
    """What the last bits depend on."""
    processor = platform.processor()
    if Path("/proc/cpuinfo").exists():
        pairs = [line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line]
        lines = {name.strip(): value.strip() for name, value in pairs}
        # Generations of one name have other vector units, and libraries sum differently on them.
        units = [flag for flag in lines.get("flags", "").split() if flag.startswith(("avx", "fma"))]
        processor = " ".join([*(lines.get(name, "") for name in ("model name", "cpu family", "model")), *units])
    return {"processor": processor, **{name: importlib.metadata.version(name) for name in NUMERICS}}


def close(found: Any, recorded: Any, relative: float, absolute: float) -> bool:
    """Whether two values of a row are the same."""
    if isinstance(recorded, float) and isinstance(found, int | float):
        return bool(np.isclose(found, recorded, rtol=relative, atol=absolute))
    return found == recorded


@pytest.mark.parametrize("case", CASES)
def test_the_rows_are_those_of_the_record(case):
    record = read_json(RECORD)
    here = record["machine"] == machine()
    found, recorded = rows(case), record["rows"][case]
    assert [set(row) for row in found] == [set(row) for row in recorded]
    for row, other in zip(found, recorded, strict=True):
        exact = row.keys() if here else row.keys() & BEFORE_TRAINING
        moved = {k: (row[k], other[k]) for k in exact if not close(row[k], other[k], EXACT, 1e-9)}
        assert not moved, f"{moved}: not what the record has; was physics meant to change?"
        if not here:
            numbers = [k for k in row.keys() - BEFORE_TRAINING if isinstance(other[k], float)]
            moved = {k: (row[k], other[k]) for k in numbers if not close(row[k], other[k], ELSEWHERE, ELSEWHERE)}
            assert not moved, moved


if __name__ == "__main__":
    write_json(RECORD, {"machine": machine(), "rows": {case: rows(case) for case in CASES}})
    print(RECORD)
