"""A page of every search, drawn of real trials on tiny made-up events; no Ray, no simulation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from raypipe.config import load_config
from raypipe.config.multilepton import MultileptonConfig
from raypipe.events.table import write_table
from raypipe.files import write_json
from raypipe.kinds import resolve
from raypipe.report.base import finish
from raypipe.report.calibrated import FILE, calibration_record, search_key
from raypipe.search.base import Found, Search, search_of
from raypipe.search.result import NO_SIGNAL, Tools, Trial
from tests.conftest import ROOT
from tests.search.test_table import OVERRIDES as TABLE
from tests.search.toys import toy_table
from tests.test_golden import SMALL, cathode_tables, haxad_config

EPOCHS = [
    {"epoch": k} | dict.fromkeys(("train_contrastive", "contrastive", "train_kl", "kl", "error"), 3 / k)
    for k in (1, 2, 3)
]
SAMPLE = {
    "group": 0,
    "n_generated": 9000,
    "n": 4000,
    "n_split": {"embedding": 1000, "search": 3000},
    "efficiency": 4 / 9,
    "efficiency_error": 0.01,
    "reference_cross_section_fb": 50.0,
    "yield_per_fb": 300.0,
    "cut_flow": {"generated": 9000, "two_photons": 5000, "selected": 4000},
}
MADE = {
    "simulate": {"events": {"samples": {"yy": SAMPLE, "ggf": SAMPLE}, "key": "made up"}},
    "latents": {"id 0": {"digest": "made up"}},
}


def page(search: Search, inputs: Sequence[Any], trials: Sequence[Trial], folder: Path, nulls: int = 0) -> dict:
    """Run the trials in this process and write ``report.html`` of them into the folder; returns the summary."""
    results = {f"key{k}": result for k, result in enumerate(search.run(inputs, trials, Tools()))}
    rows = [row | {"status": "ok", "key": key} for key, result in results.items() for row in result.rows]
    made, keyed = MADE, dict(zip(results, trials, strict=True))
    found = Found(folder, keyed, rows, lambda key: results[key].arrays, made, {"trial": 1.0}, 0.5, 0, search.code())
    if nulls:
        write_json(folder / FILE, record_of_nulls(search, trials, nulls))
    return finish(search, found, resolve(search.report)(search, found))


def record_of_nulls(search: Search, trials: Sequence[Trial], count: int) -> dict[str, Any]:
    """Of nulls whose z is normal and a fifth too wide."""
    z = 1.2 * np.random.default_rng(1).normal(size=(count, 2))
    of = [{"embedding": "id", "kind": kind, "number": k} for kind in ("drawn", "retrained") for k in range(count)]
    points = search.config.selection.working_points
    rows = [r | {"working_point": p, search.metric: z[r["number"], i]} for r in of for i, p in enumerate(points)]
    return calibration_record(rows, {"id": search_key(search, trials[0], MADE)}, search.metric)


def contrastive(folder: Path) -> dict:
    """Two instances with a signal, one without, one of the idealised template; with a calibration."""
    given = ["pseudodata.background=[yy, ggf]", "scan.signals=[wn_150]", "classifier.ensemble=1", f"output={folder}"]
    given += ["selection.working_points=[0.1, 0.02]"]
    config = load_config(ROOT / "configs/contrastive/laptop.yaml", [*given, *SMALL])
    write_json(folder / "encoder" / "encoder.json", {"history": EPOCHS})
    trials = [*(Trial("wn_150", 4.0, i) for i in range(2)), Trial(NO_SIGNAL, 0.0, 0)]
    trials += [Trial("wn_150", 2.0, 0, method="idealised")]
    rng, places = np.random.default_rng(1), {0: (0, 0), 1: (1.5, 1.5), -1: (3, 3), -2: (-3, 3)}
    labels = {label: rng.normal(size=(500, 2)) + place for label, place in places.items()}
    tables = replace(cathode_tables(config), labels=labels)
    return page(search_of(config), [tables], trials, folder, nulls=200)


def haxad(folder: Path) -> dict:
    """Two strengths, and one without a signal; with a calibration."""
    config = haxad_config()
    write_json(folder / "encoder" / "encoder.json", {"history": EPOCHS})
    trials = [*(Trial("wn_150", x, 0) for x in (2.0, 4.0)), Trial(NO_SIGNAL, 0.0, 0)]
    return page(search_of(config), [cathode_tables(config)], trials, folder, nulls=200)


def multilepton(folder: Path) -> dict:
    """Data with a bump of 40 events, limits, and data sets without a signal."""
    rng = np.random.default_rng(1)

    def table(name: str, x: np.ndarray, weight: float = 1.0) -> str:
        path = folder / f"{name}.parquet"
        write_table(pa.table({"m_4l": x[:, 0], "m_ee": x[:, 1], "w": np.full(len(x), weight)}), path)
        return str(path)

    bump = rng.normal(2.0, 0.1, size=(340, 2))
    files = {"data": table("data", np.r_[rng.normal(size=(150, 2)), bump[:40]]), "weight": "w"}
    files |= {"reference": table("reference", rng.normal(size=(6000, 2)), 1 / 6000)}
    files |= {"signals": {"a_125": table("bump", bump[40:])}, "acceptance": {"a_125": 0.2}}
    config = MultileptonConfig.model_validate(
        {
            "features": ["m_4l", "m_ee"],
            "files": files,
            "blind": False,
            "networks": {"hidden": [16, 16], "members": 2, "epochs": 4},
            "bootstrap": {"count": 20},
            "scan": {"signals": ["a_125"], "strengths": [10, 60], "instances": 2, "calibration": 20},
        }
    )
    search = search_of(config)
    return page(search, list(search.inputs("tables", folder, Tools())), search.grid(), folder)


def table(folder: Path) -> dict:
    """A feature table with 120 events of a signal."""
    np.save(folder / "toy.npy", toy_table(24_000, 120, 1))
    given = [f"data.path={folder / 'toy.npy'}", "selection.working_points=[0.05, 0.02, 0.01]"]
    config = load_config(ROOT / "configs/lhco/laptop.yaml", [*TABLE, *given])
    search = search_of(config)
    return page(search, list(search.inputs("tables", folder, Tools())), search.grid(), folder)


PAGES = {"contrastive": contrastive, "haxad": haxad, "multilepton": multilepton, "table": table}
