"""Small files as a mapping of column name to values, without deciding what the columns mean."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from raypipe.errors import UserError
from raypipe.events import hepdata
from raypipe.events.fields import fields
from raypipe.events.header import distinct
from raypipe.events.readers.base import TREES
from raypipe.events.spectra import Spectrum
from raypipe.events.text import is_text, open_text

MOST_COLUMNS = 20  # Columns of an array above which it is taken for something else than a table


def read_columns(path: Path, key: str | None = None) -> dict[str, Any]:
    """Columns of a Parquet, text (also gzipped), JSON, YAML (HEPData), HDF5 or NumPy file; ``key``: part of an HDF5."""
    suffix = path.suffix.lower()
    if suffix in {".h5", ".hdf5", ".hdf"}:
        return _read_hdf5(path, key)
    if key is not None:
        raise UserError(f"{path}: it has no trees or data sets: leave out --tree {key}")
    if is_text(path):
        table = open_text(path).read()
        return {name: table[name].to_numpy() for name in table.column_names}
    if suffix in {".parquet", ".pq"}:
        import pyarrow.parquet as pq

        with pq.ParquetFile(path) as file:  # unlike read_table it reads two columns of one name
            table = file.read()
        return {name: c.to_numpy() for name, c in zip(distinct(table.column_names), table.columns, strict=True)}
    if suffix == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            return _histogram_pair({name: archive[name] for name in archive.files})
    if suffix == ".npy":
        array = np.load(path, allow_pickle=False)
        return fields(array) if array.dtype.names else _numbered(array)
    if suffix == ".json":
        return _mapping(json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_object))
    if suffix in {".yaml", ".yml"}:
        import yaml

        return hepdata.from_yaml(yaml.safe_load(path.read_text(encoding="utf-8")))
    known = "use .root, .parquet, .csv, .txt, .json, .yaml, .h5, .npy or .npz"
    raise UserError(f"{path}: unknown kind of file {suffix!r}: {known}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, in which a name may stand once."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise UserError(f"the name {next(n for n in names if names.count(n) > 1)!r} stands twice in one JSON object")
    return found


def read_root(path: Path, tree: str | None, name: str | None, weight: str | None) -> Spectrum | dict[str, np.ndarray]:
    """A histogram (TH1), the points of a graph, or branches of a tree, from a ROOT file."""
    import uproot

    with uproot.open(path) as file:
        bare = file.classnames(cycle=False)
        histograms = [key for key, kind in bare.items() if kind.startswith(("TH1", "TProfile"))]
        graphs = [key for key, kind in bare.items() if kind.startswith("TGraph") and "2D" not in kind]
        trees = [key for key, kind in bare.items() if kind in TREES]
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
    columns = {"x": x}
    if left is not None and right is not None and (left + right > 0).all():
        columns = {"low": x - left, "high": x + right}
    columns["y"], down, up = member("fY"), member("fEYlow", "fEY"), member("fEYhigh", "fEY")
    if up is not None and down is not None and (up + down > 0).any():
        columns |= {"err_up": up, "err_down": down}
    return columns


def _read_hdf5(path: Path, key: str | None) -> dict[str, Any]:
    """All one-dimensional data sets below ``key``, by their path; tables (n, k) and records by column."""
    import h5py

    columns: dict[str, Any] = {}
    owners: dict[str, str] = {}

    def add(name: str, item: Any) -> None:
        if not isinstance(item, h5py.Dataset):
            return
        table = item.ndim == 1 or (item.ndim == 2 and item.shape[1] <= MOST_COLUMNS)
        found = fields(item[()], "" if item.dtype.names else name) if item.dtype.names or table else {}
        for column in found:
            if column in columns:
                both = f"the data sets {owners[column]!r} and {item.name!r} both have a column {column!r}"
                raise UserError(f"{path}: {both}: say which with --tree")
        owners.update(dict.fromkeys(found, item.name))
        columns.update(found)

    with h5py.File(path) as file:
        if key is not None and key not in file:
            raise UserError(f"{path}: no data set or group {key!r}: there are {', '.join(file)}")
        node = file if key is None else file[key]
        if isinstance(node, h5py.Dataset):
            add(key.strip("/").rpartition("/")[2], node)
        else:
            node.visititems(add)
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
    return value if "independent_variables" not in value else hepdata.from_yaml(value)


def _numbered(array: np.ndarray) -> dict[str, np.ndarray]:
    if array.ndim == 1:
        return {"0": array}
    if array.ndim != 2:
        raise UserError(f"an array of shape {array.shape}: need masses (n,) or columns (n, k)")
    if array.shape[0] <= MOST_COLUMNS < array.shape[1] and (np.diff(array[0]) > 0).all():
        array = array.T  # x, y, errors as rows
    return {str(k): array[:, k] for k in range(array.shape[1])}
