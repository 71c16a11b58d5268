"""Small files as a mapping of column name to values, without deciding what the columns mean."""

from __future__ import annotations

import gzip
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from raypipe.errors import UserError
from raypipe.events.spectra import Spectrum

TEXT = {".csv", ".tsv", ".txt", ".dat"}
MOST_COLUMNS = 20
"""Columns of an array above which it is taken for something else than a table."""


def read_columns(path: Path) -> dict[str, Any]:
    """Columns of a Parquet, text (also gzipped), JSON, YAML (HEPData), HDF5 or NumPy file."""
    suffix = path.suffix.lower()
    if suffix == ".gz" and Path(path.stem).suffix.lower() in TEXT:
        with gzip.open(path, "rt", encoding="utf-8-sig") as file:
            return read_text(file.read())
    if suffix in {".parquet", ".pq"}:
        import pyarrow.parquet as pq

        table = pq.read_table(path)
        return {name: table.column(name).to_numpy() for name in table.column_names}
    if suffix == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            return _histogram_pair({name: archive[name] for name in archive.files})
    if suffix == ".npy":
        array = np.load(path, allow_pickle=False)
        if array.dtype.names:
            return {name: array[name] for name in array.dtype.names}
        return _numbered(array)
    if suffix in {".h5", ".hdf5"}:
        return _read_hdf5(path)
    if suffix == ".json":
        return _mapping(json.loads(path.read_text(encoding="utf-8")))
    if suffix in {".yaml", ".yml"}:
        import yaml

        return _hepdata(yaml.safe_load(path.read_text(encoding="utf-8")))
    if suffix in TEXT:
        return read_text(path.read_text(encoding="utf-8-sig"))
    raise UserError(f"{path}: unknown kind of file {suffix!r}: use .root, .parquet, .csv, .txt, .json, .yaml, .h5, "
                    ".npy or .npz")  # fmt: skip


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
    seen: dict[str, int] = {}
    for k, name in enumerate(names):  # HEPData repeats "stat +" after every column
        seen[name] = seen.get(name, 0) + 1
        names[k] = name if seen[name] == 1 else f"{name} ({seen[name]})"
    return {name: frame.iloc[:, k].to_numpy() for k, name in enumerate(names)}


def read_root(path: Path, tree: str | None, name: str | None, weight: str | None) -> Spectrum | dict[str, np.ndarray]:
    """A histogram (TH1), the points of a graph, or branches of a tree, from a ROOT file."""
    import uproot

    with uproot.open(path) as file:
        kinds = file.classnames()
        bare = {key.split(";")[0]: kind for key, kind in kinds.items()}
        histograms = [key for key, kind in bare.items() if kind.startswith(("TH1", "TProfile"))]
        graphs = [key for key, kind in bare.items() if kind.startswith("TGraph") and "2D" not in kind]
        trees = [key for key, kind in bare.items() if kind in ("TTree", "TNtuple", "TNtupleD", "ROOT::RNTuple")]
        if tree is None and (name in histograms or (name is None and len(histograms) == 1 and not trees)):
            histogram = file[name or histograms[0]]
            values, edges = histogram.to_numpy(flow=False)
            variances = histogram.variances(flow=False)
            errors = None if variances is None else np.sqrt(variances)
            return Spectrum(edges[:-1], edges[1:], np.asarray(values, float), errors, f"{path}:{name or histograms[0]}")
        if tree is None and (name in graphs or (name is None and len(graphs) == 1 and not trees and not histograms)):
            return _graph(file[name or graphs[0]])
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


def _graph(graph: Any) -> dict[str, np.ndarray]:
    """Points of a TGraph, TGraphErrors or TGraphAsymmErrors; errors along x are taken as half bin widths."""
    member = lambda *names: next((np.asarray(graph.member(n), float) for n in names if graph.has_member(n)), None)  # noqa: E731
    x, left, right = member("fX"), member("fEXlow", "fEX"), member("fEXhigh", "fEX")
    columns = {"x": x, "y": member("fY")}
    if x is not None and left is not None and right is not None and (left + right > 0).all():
        columns = {"low": x - left, "high": x + right, "y": columns["y"]}
    down, up = member("fEYlow", "fEY"), member("fEYhigh", "fEY")
    if up is not None and down is not None and (up + down > 0).any():
        columns |= {"err_up": up, "err_down": down}
    return {name: values for name, values in columns.items() if values is not None}


def _read_hdf5(path: Path) -> dict[str, Any]:
    """All one-dimensional data sets of an HDF5 file, by their path; tables (n, k) and records by column."""
    import h5py

    columns: dict[str, Any] = {}

    def visit(name: str, item: Any) -> None:
        if not isinstance(item, h5py.Dataset):
            return
        if item.dtype.names:
            columns.update({n: item[n] for n in item.dtype.names})
        elif item.ndim == 1:
            columns[name] = item[()]
        elif item.ndim == 2 and item.shape[1] <= MOST_COLUMNS:
            columns.update({f"{name}/{k}": item[:, k] for k in range(item.shape[1])})

    with h5py.File(path) as file:
        file.visititems(visit)
    if not columns:
        raise UserError(f"{path}: no column of numbers in it (pandas tables: write Parquet instead)")
    return columns


def _histogram_pair(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """``np.savez(file, *np.histogram(...))``: contents and edges without names."""
    if set(arrays) == {"arr_0", "arr_1"}:
        counts, edges = arrays["arr_0"], arrays["arr_1"]
        if counts.ndim == edges.ndim == 1 and len(edges) == len(counts) + 1 and (np.diff(edges) > 0).all():
            return {"edges": edges, "counts": counts}
    return arrays


def _mapping(value: Any) -> dict[str, Any]:
    if isinstance(value, list):
        if value and isinstance(value[0], dict):
            return {key: np.array([row.get(key, np.nan) for row in value]) for key in value[0]}
        return _numbered(np.array(value, float))
    if not isinstance(value, dict):
        raise UserError("it holds neither an object nor a list")
    return value if "independent_variables" not in value else _hepdata(value)


def _hepdata(value: Any) -> dict[str, Any]:
    """Columns of a HEPData YAML table: low, high (or x), y and its errors; then every variable under its own name."""
    if not isinstance(value, dict) or "dependent_variables" not in value:
        raise UserError("not a HEPData table (no dependent_variables)")
    axis, variables = value["independent_variables"][0]["values"], value["dependent_variables"]
    columns: dict[str, Any] = {}
    if "low" in axis[0]:
        columns = {"low": [a["low"] for a in axis], "high": [a["high"] for a in axis]}
    else:
        columns = {"x": [a["value"] for a in axis]}
    for k, variable in enumerate([variables[0], *variables]):
        name = "y" if k == 0 else str(variable["header"]["name"])
        if name in columns or (k > 0 and len(variables) == 1):
            continue
        rows = variable["values"]
        columns[name] = [np.nan if row["value"] == "-" else row["value"] for row in rows]
        sides = [_sides(row.get("errors", []), row["value"]) for row in rows]
        if any(up or down for up, down in sides):
            columns |= {f"{name} +": [up for up, _ in sides], f"{name} -": [down for _, down in sides]}
    arrays = {name: np.array(values, float) for name, values in columns.items()}
    given = np.isfinite(arrays["y"])  # "-": nothing published in this bin
    return {name: values[given] for name, values in arrays.items()} if given.any() else arrays


def _sides(errors: list[dict[str, Any]], value: Any) -> tuple[float, float]:
    """Upper and lower error: quadratic sums of the statistical ones if any are called so, else of all."""
    statistical = [error for error in errors if "stat" in str(error.get("label", "")).lower()]
    up = down = 0.0
    for error in statistical or errors:
        if "asymerror" in error:
            sizes = error["asymerror"]["plus"], error["asymerror"]["minus"]
        else:
            sizes = error["symerror"], error["symerror"]
        up, down = (np.hypot(s, _size(size, value)) for s, size in zip((up, down), sizes, strict=True))
    return float(up), float(down)


def _size(text: Any, value: Any) -> float:
    """An error, also in percent of the value."""
    if isinstance(text, str) and text.strip().endswith("%"):
        return abs(float(text.strip().rstrip("%")) / 100 * float(value))
    return abs(float(text))


def _numbered(array: np.ndarray) -> dict[str, np.ndarray]:
    if array.ndim == 1:
        return {"0": array}
    if array.ndim != 2:
        raise UserError(f"an array of shape {array.shape}: need masses (n,) or columns (n, k)")
    if array.shape[0] <= MOST_COLUMNS < array.shape[1] and (np.diff(array[0]) > 0).all():
        array = array.T  # x, y, errors as rows
    return {str(k): array[:, k] for k in range(array.shape[1])}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
