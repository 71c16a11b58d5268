"""Small files as a mapping of column name to values, without deciding what the columns mean."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from raypipe.errors import UserError
from raypipe.events.spectra import Spectrum

TEXT = {".csv", ".tsv", ".txt", ".dat"}


def read_columns(path: Path) -> dict[str, Any]:
    """Columns of a Parquet, text, JSON, YAML (HEPData) or NumPy file."""
    suffix = path.suffix.lower()
    if suffix in {".parquet", ".pq"}:
        import pyarrow.parquet as pq

        table = pq.read_table(path)
        return {name: table.column(name).to_numpy() for name in table.column_names}
    if suffix == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    if suffix == ".npy":
        array = np.load(path, allow_pickle=False)
        if array.dtype.names:
            return {name: array[name] for name in array.dtype.names}
        return _numbered(array)
    if suffix == ".json":
        return _mapping(json.loads(path.read_text(encoding="utf-8")))
    if suffix in {".yaml", ".yml"}:
        import yaml

        return _hepdata(yaml.safe_load(path.read_text(encoding="utf-8")))
    if suffix in TEXT:
        return read_text(path.read_text(encoding="utf-8-sig"))
    raise UserError(f"{path}: unknown kind of file {suffix!r}: use .root, .parquet, .csv, .txt, .json, .npy or .npz")


def read_text(text: str) -> dict[str, np.ndarray]:
    """The first table of a text: with or without header, separated by commas, tabs, semicolons or blanks."""
    import pandas as pd

    lines = [line.rstrip() for line in text.splitlines()]
    last_comment = ""
    while lines and (not lines[0] or lines[0].startswith(("#", "'#", "%", "*"))):
        last_comment = lines.pop(0) or last_comment
    end = next((k for k, line in enumerate(lines) if not line), len(lines))
    lines = [line for line in lines[:end] if not line.startswith("#")]
    if not lines:
        raise UserError("no table in it")
    separator = next((s for s in ("\t", ";", ",") if s in lines[-1]), r"\s+")
    fields = lambda line: [f.strip().strip("\"'") for f in re.split(separator, line.strip())]  # noqa: E731
    header = not all(_is_number(field) for field in fields(lines[0]))
    width = len(fields(lines[-1]))
    names = fields(lines.pop(0)) if header else []
    if not header and last_comment.startswith("#"):  # "# x y err" above bare numbers
        above = [f for f in fields(last_comment.lstrip("#% ")) if f]
        names = above if len(above) == width else []
    frame = pd.read_csv(io.StringIO("\n".join(lines)), sep=separator, header=None, comment="#", skipinitialspace=True)
    names = names if len(names) == frame.shape[1] else [str(k) for k in range(frame.shape[1])]
    return {name: frame.iloc[:, k].to_numpy() for k, name in enumerate(names)}


def read_root(path: Path, tree: str | None, name: str | None, weight: str | None) -> Spectrum | dict[str, np.ndarray]:
    """A histogram (TH1) or branches of a tree, from a ROOT file."""
    import uproot

    with uproot.open(path) as file:
        kinds = file.classnames()
        bare = {key.split(";")[0]: kind for key, kind in kinds.items()}
        histograms = [key for key, kind in bare.items() if kind.startswith(("TH1", "TProfile"))]
        trees = [key for key, kind in bare.items() if kind in ("TTree", "TNtuple", "TNtupleD", "ROOT::RNTuple")]
        if tree is None and (name in histograms or (name is None and len(histograms) == 1 and not trees)):
            histogram = file[name or histograms[0]]
            values, edges = histogram.to_numpy(flow=False)
            variances = histogram.variances(flow=False)
            errors = None if variances is None else np.sqrt(variances)
            return Spectrum(edges[:-1], edges[1:], np.asarray(values, float), errors, f"{path}:{name or histograms[0]}")
        if tree is None:
            if len(trees) != 1:
                raise UserError(f"{path}: say which tree or histogram (--tree, --branch): there are {', '.join(bare)}")
            tree = trees[0]
        if tree not in bare:
            raise UserError(f"{path}: no tree {tree!r}: there are {', '.join(bare)}")
        available = file[tree].keys()
        if name is None:
            raise UserError(f"{path}: say which branch of {tree!r} is the mass (--branch): {', '.join(available[:12])}")
        for wanted in (name, weight):
            if wanted is not None and wanted not in available:
                raise UserError(f"{path}: no branch {wanted!r} in {tree!r}: there are {', '.join(available[:12])}")
        columns = {n: file[tree][n].array(library="np") for n in {name, weight} - {None}}
    if columns[name].dtype == object:  # several values an event
        if weight is not None:
            counts = [len(row) for row in columns[name]]
            columns[weight] = np.repeat(columns[weight], counts)
        columns[name] = np.concatenate([np.asarray(row, float) for row in columns[name]])
    return columns


def _mapping(value: Any) -> dict[str, Any]:
    if isinstance(value, list):
        if value and isinstance(value[0], dict):
            return {key: np.array([row.get(key, np.nan) for row in value]) for key in value[0]}
        return _numbered(np.array(value, float))
    if not isinstance(value, dict):
        raise UserError("it holds neither an object nor a list")
    return value if "independent_variables" not in value else _hepdata(value)


def _hepdata(value: Any) -> dict[str, Any]:
    """Columns of a HEPData YAML table: low, high (or x), y, error."""
    if not isinstance(value, dict) or "dependent_variables" not in value:
        raise UserError("not a HEPData table (no dependent_variables)")
    axis, rows = value["independent_variables"][0]["values"], value["dependent_variables"][0]["values"]
    columns: dict[str, Any] = {"y": np.array([float(r["value"]) for r in rows])}
    if "low" in axis[0]:
        columns |= {
            "low": np.array([float(a["low"]) for a in axis]),
            "high": np.array([float(a["high"]) for a in axis]),
        }
    else:
        columns["x"] = np.array([float(a["value"]) for a in axis])
    errors = [_total_error(row.get("errors", [])) for row in rows]
    return columns | ({"error": np.array(errors)} if any(errors) else {})


def _total_error(errors: list[dict[str, Any]]) -> float:
    """Quadratic sum; two-sided errors count with the mean of their sides."""
    total = 0.0
    for error in errors:
        sides = error.get("asymerror")
        size = (
            float(error["symerror"]) if sides is None else (abs(float(sides["plus"])) + abs(float(sides["minus"]))) / 2
        )
        total += size**2
    return total**0.5


def _numbered(array: np.ndarray) -> dict[str, np.ndarray]:
    if array.ndim == 1:
        return {"0": array}
    if array.ndim != 2:
        raise UserError(f"an array of shape {array.shape}: need masses (n,) or columns (n, k)")
    return {str(k): array[:, k] for k in range(array.shape[1])}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
