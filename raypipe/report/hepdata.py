"""A HEPData submission of one run: significances and gains, the bins of a trial's selection, its limits."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from raypipe.report.summary import summarise
from raypipe.stats.limits import Limit
from raypipe.stats.workspace import ScoreBins

QUOTED = {"z_before": "z before", "z_after": "z after the cut", "z_likelihood": "z of all bins", "sic": "SIC"}
AXES = ("signal", "strength", "working_point")
BANDS = ("observed", "-2 sigma", "-1 sigma", "expected", "+1 sigma", "+2 sigma")
Values = dict[str, list[dict[str, Any]]]  # HEPData values by header


def write_submission(folder: Path, rows: Sequence[Mapping[str, Any]], bins: ScoreBins, limit: Limit, unit: str) -> Path:
    """``submission.yaml`` and its tables; ``rows`` of all trials, ``bins`` and ``limit`` (on mu in ``unit``) of one."""
    entries = summarise(rows, quantities=tuple(QUOTED))
    tables = {name: [e[name] or {"mean": math.nan, "standard_error": None} for e in entries] for name in QUOTED}
    axes = {name: [_cell(e[name]) for e in entries] for name in AXES}
    found = {QUOTED[n]: [_cell(e["mean"], e["standard_error"]) for e in of] for n, of in tables.items()}
    bands = [limit.observed, *limit.bands[:2], limit.expected, *limit.bands[2:]]
    limits = {"limit": list(map(_cell, BANDS))}, {"mu": list(map(_cell, bands))}
    index: list[Any] = [{"comment": "A search with classifiers that were trained on data, made by raypipe."}]
    folder.mkdir(parents=True, exist_ok=True)
    for name, told, independent, dependent in (
        ("significances", "Significances, and signal efficiency over root of background efficiency", axes, found),
        ("selection", "Events in bins of the background percentile, before any fit", *_selection(bins)),
        ("limits", f"CLs upper limits at {limit.level:.0%} on mu in {unit}", *limits),
    ):
        words = [{"name": "phrases", "values": ["anomaly detection"]}]
        index.append({"name": name, "description": told, "keywords": words, "data_file": f"{name}.yaml"})
        sides = {"independent_variables": independent, "dependent_variables": dependent}
        table = {k: [{"header": {"name": h}, "values": v} for h, v in of.items()] for k, of in sides.items()}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(table, sort_keys=False), encoding="utf-8")
    (folder / "submission.yaml").write_text(yaml.safe_dump_all(index, sort_keys=False), encoding="utf-8")
    return folder / "submission.yaml"


def _selection(bins: ScoreBins) -> tuple[Values, Values]:
    error = np.hypot(bins.template_error * bins.continuum, bins.higgs_error)
    columns = {"observed": bins.observed, "signal at mu = 1": bins.signal}
    beside = {"sideband data": bins.sideband, "sideband template": bins.sideband_template}
    values = {name: list(map(_cell, of)) for name, of in (columns | (beside if len(bins.sideband) else {})).items()}
    edges = [{"low": low, "high": high} for low, high in pairwise(bins.edges.tolist())]
    return {"percentile": edges}, values | {"expected": list(map(_cell, bins.continuum + bins.higgs, error))}


def _cell(value: Any, error: float | None = None) -> dict[str, Any]:
    if isinstance(value, str) or not math.isfinite(value):
        return {"value": value if isinstance(value, str) else "-"}
    return {"value": float(value)} | ({"errors": [{"symerror": float(error)}]} if error else {})
