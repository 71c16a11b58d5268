"""Feature tables of every format: the same numbers come back, and bad input is one line."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import uproot

from raypipe.config.read import Columns, Source
from raypipe.errors import UserError
from raypipe.events.readers.base import chunks, resolve
from raypipe.events.readers.matrix import find_label, read_columns, weights_of
from raypipe.events.readers.registry import file_format, reader_for
from tests.conftest import ROOT
from tests.events.helpers import read_features

DATA = ROOT.parent / "shared" / "data"
N = 250
NAMES = ["m", "a", "b", "y"]


def real(*parts: str) -> Path:
    """A file of other people's data, or a skipped test."""
    path = DATA.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"{path} is not there (real data are not part of this repository)")
    return path


@pytest.fixture(scope="module")
def table() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.c_[rng.normal(size=(N, 3)), rng.integers(0, 2, N)]


@pytest.fixture(scope="module")
def files(table, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("formats")
    frame = pd.DataFrame(table, columns=NAMES)
    np.save(folder / "t.npy", table)
    np.save(folder / "s.npy", frame.to_records(index=False).view(np.ndarray))
    frame.to_csv(folder / "t.csv", index=False)
    pq.write_table(pa.Table.from_pandas(frame), folder / "t.parquet", row_group_size=64)
    with h5py.File(folder / "m.h5", "w") as file:
        file["events"] = table
    with h5py.File(folder / "g.h5", "w") as file:
        for name in NAMES:
            file[name] = frame[name].to_numpy()
    with uproot.recreate(folder / "t.root") as file:
        tree = file.mktree("events", {name: "float64" for name in NAMES})
        tree.extend({name: frame[name].to_numpy() for name in NAMES})
    return {p.name: p for p in folder.iterdir()}


BY_NAME = Columns(mass="m", features=["a", "b"], label="y")
BY_PLACE = Columns(mass=0, features=[1, 2], label=-1)


@pytest.mark.parametrize("name", ["t.npy", "s.npy", "t.csv", "t.parquet", "m.h5", "g.h5", "t.root"])
@pytest.mark.parametrize("rows", [1000, 70])
def test_every_format_gives_the_same_events(files, table, name, rows):
    columns = BY_PLACE if name in ("t.npy", "m.h5") else BY_NAME
    found = read_features(files[name], Source(chunk_rows=rows), columns)
    assert found.mass == pytest.approx(table[:, 0], abs=0)
    assert (found.features == table[:, 1:3]).all()
    assert (found.label == (table[:, 3] == 1)).all()
    assert (found.event_id == np.arange(N)).all()
    assert (found.weight == 1).all()


@pytest.mark.parametrize("name", ["t.npy", "t.csv", "t.parquet", "m.h5", "t.root"])
def test_a_range_is_read_alone_and_in_any_order(files, table, name):
    reader = reader_for(files[name], Source())
    names = reader.names(files[name], Source())
    for start, stop in ((200, 250), (60, 70), (0, 1)):
        part = reader.read(files[name], Source(), start, stop, names[:2])
        assert part.num_rows == stop - start
        assert part[names[1]].to_numpy() == pytest.approx(table[start:stop, 1], abs=0)


def test_memory_is_that_of_a_chunk(files):
    sizes = [
        t.num_rows
        for _, t in chunks(reader_for(files["t.parquet"], Source()), files["t.parquet"], Source(chunk_rows=64), ["a"])
    ]
    assert sizes == [64, 64, 64, 58]


def test_labels_are_found_where_they_are_obvious(files):
    assert find_label(read_columns([files["t.npy"]], Source())) == "3"
    assert find_label(read_columns([files["t.csv"]], Source())) is None  # `y` could be anything
    two = read_columns([files["t.npy"], files["m.h5"]], Source())
    assert len(two) == 2 * N
    assert (two.file == np.repeat([0, 1], N)).all()
    with pytest.raises(UserError, match="columns m, a, b, y differ from those of"):
        read_columns([files["t.npy"], files["t.csv"]], Source())


def test_columns_by_name_or_place():
    assert resolve("b", ["a", "b"], "f") == resolve(1, ["a", "b"], "f") == resolve(-1, ["a", "b"], "f") == "b"
    for column, words in ((2, "column 2 is missing"), ("c", r"column 'c' is missing \(present: a, b\)")):
        with pytest.raises(UserError, match=words):
            resolve(column, ["a", "b"], "f")


def broken(folder: Path, name: str, change) -> Path:
    """A CSV of three events after ``change`` of the frame."""
    frame = pd.DataFrame({"m": [1.0, 2.0, 3.0], "a": [0.1, 0.2, 0.3], "b": [0.0] * 3, "w": [1.0] * 3, "id": [1, 2, 3]})
    change(frame)
    frame.to_csv(folder / name, index=False)
    return folder / name


def put(column, row, value):
    def change(frame):
        frame[column] = frame[column].astype(object)
        frame.loc[row, column] = value

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (put("a", 1, "-inf"), r"bad\.csv: column 'a', row 1: -inf is not finite"),
        (put("m", 2, "inf"), r"bad\.csv: column 'm', row 2: inf is not finite"),
        (put("w", 1, -2.0), r"bad\.csv: column 'w', row 1: the weight -2.0 is negative"),
        (put("w", 0, "nan"), r"bad\.csv: column 'w', row 0: the value is missing"),
        (put("a", 1, "x"), r"bad\.csv: column 'a' has type string, expected numbers"),
        (put("a", 1, ""), r"bad\.csv: column 'a', row 1: the value is missing"),
        (put("id", 2, 1), r"bad\.csv: column 'event_id', row 2: 1 occurs more than once"),
        (put("b", 2, 3), r"bad\.csv: column 'b', row 2: label 3 is not 0 or 1"),
        (lambda f: f.drop(columns="a", inplace=True), r"bad\.csv: column 'a' is missing \(present: m, b, w, id\)"),
        (lambda f: f.drop(index=[0, 1, 2], inplace=True), r"bad\.csv: the file holds no events"),
    ],
)
def test_bad_values_name_file_column_and_row(tmp_path, change, words):
    path = broken(tmp_path, "bad.csv", change)
    columns = Columns(mass="m", features=["a"], weight="w", event_id="id", label="b")
    with pytest.raises(UserError, match=words) as error:
        read_features(path, Source(), columns)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("column", [0, 2, 3])
def test_nan_in_a_matrix_names_the_column_and_the_row_of_the_file(table, tmp_path, column):
    table = table.copy()
    table[133, column] = np.nan
    np.save(tmp_path / "x.npy", table)
    with pytest.raises(UserError, match=rf"x\.npy: column '{column}', row 133: nan is not finite"):
        read_features(tmp_path / "x.npy", Source(chunk_rows=50), BY_PLACE)


def test_a_csv_may_turn_from_integers_to_floats_late(tmp_path):
    values = np.arange(300_000.0)
    values[-1] += 0.5
    with open(tmp_path / "late.csv", "w") as handle:
        handle.write("m,a\n" + "".join(f"{float(v)!r},1\n" if v % 1 else f"{int(v)},1\n" for v in values))
    found = read_features(tmp_path / "late.csv", Source(chunk_rows=200_000), Columns(mass="m", features=["a"]))
    assert (found.mass == values).all()
    assert len(found) == 300_000


def write(path: Path, content) -> Path:
    path.write_bytes(content) if isinstance(content, bytes) else np.save(path, content)
    return path


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.npy", b"", r"x\.npy: the file is empty \(0 bytes\)"),
        ("x.root", b"not a root file" * 50, r"x\.root: not a readable ROOT file"),
        ("x.h5", b"not hdf5" * 50, r"x\.h5: not a readable HDF5 file"),
        ("x.parquet", b"PAR1" + bytes(50), r"x\.parquet: not a readable Parquet file"),
        ("x.npy", b"\x93NUMPY" + bytes(9), r"x\.npy: not a readable NumPy file"),
        ("x.xlsx", b"PK", r"x\.xlsx: unknown extension '\.xlsx' \(known: \.npy"),
        ("x.npy", np.zeros(5), r"x\.npy: an array of shape \(5,\) and type float64"),
        ("x.npy", np.zeros((2, 3, 4)), r"x\.npy: an array of shape \(2, 3, 4\)"),
        ("x.npy", np.array([["a", "b"]]), r"x\.npy: an array of shape \(1, 2\) and type <U1"),
        ("x.npy", np.zeros((0, 4)), r"x\.npy: the file holds no events"),
    ],
)
def test_foreign_and_empty_files(tmp_path, name, content, words):
    path = write(tmp_path / name, content)
    with pytest.raises(UserError, match=words) as error:
        read_features(path, Source(), BY_PLACE)
    assert "\n" not in str(error.value)


def test_pickles_and_ambiguous_files_are_refused(files, tmp_path):
    np.save(tmp_path / "o.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match=r"o\.npy: not a readable NumPy file"):
        read_features(tmp_path / "o.npy", Source(), BY_PLACE)
    with h5py.File(tmp_path / "two.h5", "w") as file:
        file["x"], file["y"] = np.zeros((3, 2)), np.zeros((3, 2))
    with pytest.raises(UserError, match=r"two\.h5: holds x, y: say which with the option key"):
        read_features(tmp_path / "two.h5", Source(), BY_PLACE)
    with pytest.raises(UserError, match=r"two\.h5: key 'z' is missing \(present: x, y\)"):
        read_features(tmp_path / "two.h5", Source(key="z"), BY_PLACE)
    with pytest.raises(UserError, match="no such file"):
        file_format(tmp_path / "absent.npy", Source())
    whole = files["t.parquet"].read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"cut\.parquet: not a readable Parquet file"):
        read_features(tmp_path / "cut.parquet", Source(), BY_NAME)


def test_all_weights_zero_and_negative_weights(files):
    table = read_columns([files["t.csv"]], Source())
    with pytest.raises(UserError, match=r"column 'm', row \d+: the weight -"):
        weights_of(table, "m")
    table.columns["m"][:] = 0
    with pytest.raises(UserError, match="all weights are zero"):
        weights_of(table, "m")


def test_arrays_of_the_lhc_olympics():
    path = real("lhco_sr", "train.npy")
    found = read_features(path, Source(chunk_rows=7000), Columns(mass=0, features=[1, 2, 3, 4], label=5))
    assert len(found) == 60_000
    assert found.label.sum() == 395
    assert ((found.mass >= 3.3) & (found.mass <= 3.7)).all()


def test_real_dimuons_have_the_z_mass():
    path = real("readers", "uproot-Zmumu.root")
    found = read_features(path, Source(), Columns(mass="M", features=["pt1", "pt2"]))
    assert len(found) == 2304
    assert np.median(found.mass) == pytest.approx(91.0, abs=1.0)


def test_a_ntuple_offers_its_numbers_but_not_its_lists():
    path = real("readers", "uproot-HZZ.root")
    reader = reader_for(path, Source())
    names = reader.names(path, Source())
    assert "EventWeight" in names
    assert "Muon_Px" not in names
    found = read_features(path, Source(), Columns(mass="MET_px", features=["NJet"], weight="EventWeight"))
    assert len(found) == 2421
    with pytest.raises(UserError, match="column 'Muon_Px' is missing"):
        read_features(path, Source(), Columns(mass="Muon_Px", features=["NJet"]))


def test_all_four_lepton_candidates_of_cms():
    folder = real("cms_4lepton")
    files = sorted(folder.glob("*.csv"))
    columns = Columns(mass="M", features=["mZ1", "mZ2"])
    found = [read_features(path, Source(), columns) for path in files]
    assert sum(map(len, found)) == 278
    assert min(t.mass.min() for t in found) > 70
