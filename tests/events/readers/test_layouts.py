"""How numbers are stored does not change them: byte order, precision, records, names, and integers of 64 bits."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import awkward as ak
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import uproot

from raypipe.config.read import Columns, Source
from raypipe.errors import UserError
from raypipe.events.masses import load_masses
from raypipe.events.readers.matrix import read_columns
from raypipe.events.readers.registry import reader_for
from tests.events.helpers import read_features

N = 40
RNG = np.random.default_rng(3)
M, A = RNG.normal(size=(2, N))
KINDS = [">f8", "<f8", ">f4", "f2", np.longdouble, ">i8", ">i2", "u1"]


def stored(kind):
    """The values of the mass as a type holds them, and their exact float64."""
    values = (np.arange(N) if np.dtype(kind).kind in "iu" else M).astype(kind)
    return values, values.astype(np.float64)


@pytest.mark.parametrize("suffix", ["npy", "structured.npy", "h5", "compound.h5"])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_any_byte_order_and_precision(tmp_path, kind, suffix):
    values, exact = stored(kind)
    path = tmp_path / f"t.{suffix}"
    matrix = np.stack([values, values[::-1]], axis=1)
    records = np.zeros(N, [("m", kind), ("a", kind), ("name", "S3")])
    records["m"], records["a"] = values, values[::-1]
    if suffix.endswith("npy"):
        np.save(path, records if suffix[0] == "s" else matrix)
    else:
        with h5py.File(path, "w") as file:
            file["t"] = records if suffix[0] == "c" else matrix
    names = ["m", "a"] if suffix[0] in "sc" else ["0", "1"]
    table = read_features(path, Source(chunk_rows=7), Columns(mass=names[0], features=[names[1]]))
    np.testing.assert_array_equal(table.mass, exact)
    np.testing.assert_array_equal(table.features[:, 0], exact[::-1])
    column = "t/0" if suffix == "h5" else names[0]
    np.testing.assert_array_equal(load_masses(path, column=column).values, exact)


def test_fields_of_fields_and_fields_of_several_numbers(tmp_path):
    records = np.zeros(N, [("jet", [("m", ">f8"), ("k", "i4")]), ("p", "f8", (3,))])
    records["jet"]["m"], records["p"] = M, np.arange(3 * N).reshape(N, 3)
    np.save(tmp_path / "t.npy", records)
    np.save(tmp_path / "column.npy", records[:, None])
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["t"] = records
    for name in ("t.npy", "column.npy", "t.h5"):
        table = read_features(tmp_path / name, Source(), Columns(mass="jet.m", features=["p/2", "jet.k"]))
        np.testing.assert_array_equal(table.mass, M)
        np.testing.assert_array_equal(table.features[:, 0], 3 * np.arange(N) + 2)
        np.testing.assert_array_equal(load_masses(tmp_path / name, column="p/1").values, 3 * np.arange(N) + 1)


def test_big_endian_columns_of_an_hdf5_group(tmp_path):
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["m"], file["a"] = M.astype(">f8"), A.astype(">f8")
    found = read_columns([tmp_path / "t.h5"], Source()).columns
    np.testing.assert_array_equal(found["m"], M)
    np.testing.assert_array_equal(load_masses(tmp_path / "t.h5", column="m").values, M)


@pytest.fixture
def two_sets(tmp_path) -> Path:
    """Two compound sets that share a field, one of them in a group."""
    path = tmp_path / "two.h5"
    with h5py.File(path, "w") as file:
        for name, values in (("data", M), ("mc/nominal", A)):
            records = np.zeros(N, [("m", "f8"), (f"w_{name[0]}", "f8")])
            records["m"] = values
            file[name] = records
    return path


def test_two_compound_sets_with_one_field_name(two_sets):
    with pytest.raises(UserError, match="'/data' and '/mc/nominal' both have a column 'm': say which with --tree") as e:
        load_masses(two_sets, column="m")
    assert "\n" not in str(e.value)
    for key, values in (("data", M), ("mc/nominal", A), ("mc", A)):
        np.testing.assert_array_equal(load_masses(two_sets, column="m", tree=key).values, values)
    for key, values in (("data", M), ("mc/nominal", A)):
        found = read_features(two_sets, Source(key=key), Columns(mass="m", features=["m"]))
        np.testing.assert_array_equal(found.mass, values)
        np.testing.assert_array_equal(read_columns([two_sets], Source(key=key)).columns["m"], values)
    with pytest.raises(UserError, match=r"two\.h5: holds data, mc: say which with the option key"):
        read_features(two_sets, Source(), Columns(mass="m", features=["m"]))
    with pytest.raises(UserError, match=r"two\.h5: no data set or group 'x': there are data, mc"):
        load_masses(two_sets, column="m", tree="x")
    with h5py.File(two_sets, "a") as file:
        file["m"] = M  # a plain set of the name of a field
        del file["mc"]
    with pytest.raises(UserError, match="both have a column 'm'"):
        load_masses(two_sets, column="m")


def test_two_columns_of_one_name_in_a_pandas_frame(tmp_path):
    with h5py.File(tmp_path / "t.h5", "w") as file:
        group = file.create_group("df")
        group.attrs["pandas_type"], group.attrs["nblocks"] = "frame", 1
        group["axis0"] = group["block0_items"] = np.array([b"m", b"a", b"m"])
        group["block0_values"] = np.zeros((4, 3))
    with pytest.raises(UserError, match=r"t\.h5: two columns of '/df' are called 'm'"):
        read_features(tmp_path / "t.h5", Source(), Columns(mass="m", features=["a"]))


def test_a_tree_is_not_for_files_without_trees(tmp_path):
    np.save(tmp_path / "m.npy", M)
    with pytest.raises(UserError, match=r"m\.npy: it has no trees or data sets: leave out --tree Events"):
        load_masses(tmp_path / "m.npy", tree="Events")


def test_two_columns_of_one_name_in_parquet(tmp_path):
    path = tmp_path / "twins.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array(c) for c in (M, A, 2 * A)], names=["m", "a", "a"]), path)
    np.testing.assert_array_equal(load_masses(path, column="m").values, M)
    np.testing.assert_array_equal(load_masses(path, column="a (2)").values, 2 * A)
    with pytest.raises(UserError, match="2 columns are called 'a'"):
        load_masses(path, column="a")
    with pytest.raises(UserError, match=r"2 columns are called 'a': name the place \(1 or 2\), or 'a \(1\)'"):
        read_features(path, Source(), Columns(mass="m", features=["a"]))
    with pytest.raises(UserError, match="2 columns are called 'a'"):
        read_columns([path], Source())
    for place, values in ((1, A), (2, 2 * A), ("a (2)", 2 * A)):
        found = read_features(path, Source(), Columns(mass="m", features=[place]))
        np.testing.assert_array_equal(found.features[:, 0], values)
        np.testing.assert_array_equal(found.mass, M)


def test_a_feature_may_not_take_the_place_of_the_mass(tmp_path):
    pq.write_table(pa.table({"m": M, "mass": A}), tmp_path / "t.parquet")
    with pytest.raises(UserError, match="a feature is called 'mass'"):
        read_features(tmp_path / "t.parquet", Source(), Columns(mass="m", features=["mass"]))


def test_rntuples_are_read_as_trees_are(tmp_path):
    content = {"m": M, "a": A.astype("f4"), "k": np.arange(N, dtype="i2"), "ok": M > 0, "id": np.arange(N, dtype="u8")}
    with uproot.recreate(tmp_path / "flat.root") as file:
        file.mkrntuple("events", content)
    with uproot.recreate(tmp_path / "more.root") as file:
        lists = {"jets": ak.Array([[1.0, 2.0], []] * (N // 2)), "maybe": ak.Array([None, 1.0] * (N // 2))}
        file.mkrntuple("events", content | lists | {"name": ak.Array(["x"] * N), "p": np.ones((N, 3))})
    for name in ("flat.root", "more.root"):
        path = tmp_path / name
        assert sorted(reader_for(path, Source()).names(path, Source())) == ["a", "id", "k", "m", "ok"]
        for rows in (1000, 7):
            columns = Columns(mass="m", features=["a", "k"], label="ok", event_id="id")
            found = read_features(path, Source(chunk_rows=rows), columns)
            np.testing.assert_array_equal(found.mass, M)
            np.testing.assert_array_equal(found.features, np.c_[A.astype("f4"), np.arange(N)])
            np.testing.assert_array_equal(found.label, M > 0)
        np.testing.assert_array_equal(read_columns([path], Source()).columns["m"], M)
        np.testing.assert_array_equal(load_masses(path, branch="m", weight="k").weights, np.arange(N))
        with pytest.raises(UserError, match="column 'x' is missing"):
            read_features(path, Source(), Columns(mass="x", features=["a"]))


def test_of_several_cycles_of_a_tree_the_last_is_read(tmp_path):
    path = tmp_path / "cycles.root"
    with uproot.recreate(path) as file:
        for rows in (5, N):
            file.mktree("t", {"m": "f8", "a": "f8"}).extend({"m": M[:rows], "a": A[:rows]})
    np.testing.assert_array_equal(read_features(path, Source(), Columns(mass="m", features=["a"])).mass, M)
    np.testing.assert_array_equal(load_masses(path, branch="m").values, M)


LARGE = [0, 7, 2**53 + 1, 12345678901234567, 2**62 + 3, 2**63 - 1]
UNSIGNED = [*LARGE, 2**63, 2**63 + 1, 2**64 - 1]
BY_ID = Columns(mass="m", features=["a"], event_id="id")


def with_ids(folder: Path, kind: str, ids) -> Path:
    path = folder / f"t.{kind}"
    n = len(ids)
    table = {"m": np.arange(n) + 100.5, "a": np.zeros(n), "id": np.asarray(ids)}
    if kind == "csv":
        path.write_text("id,m,a\n" + "".join(f"{i},{100.5 + k},0\n" for k, i in enumerate(ids)))
    elif kind == "parquet":
        pq.write_table(pa.table(table), path, row_group_size=4)
    elif kind == "root":
        with uproot.recreate(path) as file:
            file.mktree("t", {k: v.dtype for k, v in table.items()}).extend(table)
    elif kind == "rntuple.root":
        with uproot.recreate(path) as file:
            file.mkrntuple("t", table)
    else:
        records = np.zeros(n, [(k, v.dtype.newbyteorder(">")) for k, v in table.items()])
        for name, values in table.items():
            records[name] = values
        if kind == "npy":
            np.save(path, records)
        else:
            with h5py.File(path, "w") as file:
                file["t"] = records
    return path


@pytest.mark.parametrize("ids", [LARGE, [-(2**63), -5, *LARGE], UNSIGNED], ids=["large", "signed", "unsigned"])
@pytest.mark.parametrize("kind", ["csv", "parquet", "root", "rntuple.root", "npy", "h5"])
def test_event_ids_are_exact(tmp_path, kind, ids):
    path = with_ids(tmp_path, kind, np.array(ids, np.uint64 if max(ids) >= 2**63 else np.int64))
    for rows in (1000, 2):
        found = read_features(path, Source(chunk_rows=rows), BY_ID)
        assert found.event_id.tolist() == ids
        assert found.event_id.dtype == (np.uint64 if max(ids) >= 2**63 else np.int64)


def test_ids_stay_integers_where_other_columns_change_late(tmp_path):
    n = 60_000
    ids = 10**16 + 3 * np.arange(n)
    late = ["1"] * n
    late[-2:] = "1.5", "2e3"
    path = tmp_path / "late.csv"
    path.write_text("id,m,a,w\n" + "".join(f"{i},{100 + k % 80},{a},{a}\n" for k, (i, a) in enumerate(zip(ids, late))))  # noqa: B905
    columns = Columns(mass="m", features=["a"], weight="w", event_id="id")
    for rows in (20_000, 100_000):
        found = read_features(path, Source(chunk_rows=rows), columns)
        assert (found.event_id == ids).all()
        assert found.features[-2:, 0].tolist() == [1.5, 2000]


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        ("1.5", "'1.5'"),
        ("x", "'x'"),
        ("1e17", "'1e17'"),
        ("9007199254740993.0", "'9007199254740993.0'"),
        ("18446744073709551616", "'18446744073709551616'"),
        ("inf", "'inf'"),
        ("True", "'True'"),
        ("0x10", "'0x10'"),
    ],
)
def test_what_is_no_id_is_refused_with_its_row(tmp_path, cell, told):
    ids = [str(10**16 + k) for k in range(12)]
    ids[8] = cell
    path = with_ids(tmp_path, "csv", ids)
    with pytest.raises(UserError, match=rf"t\.csv: column 'id', row 8: {told} is no event id: .*\(line 10\)") as caught:
        read_features(path, Source(chunk_rows=5), BY_ID)
    assert "\n" not in str(caught.value)
    ids[8] = ""
    with pytest.raises(UserError, match=r"column 'id', row 8: the value is missing \(line 10\)"):
        read_features(with_ids(tmp_path, "csv", ids), Source(), BY_ID)


@pytest.mark.parametrize("kind", ["parquet", "npy", "h5", "root", "rntuple.root"])
@pytest.mark.parametrize(
    ("ids", "row"),
    [
        (np.array([1.0, 2.0, 3.5, 4.0]), 2),
        (np.array([1.0, 2.0, 2.0**53]), 2),  # 2^53 + 1 would be stored so, too
        (np.array([1, 2**24, 2**24 + 2], np.float32), 1),
        (np.array([1.0, np.nan, 2.0]), 1),
        (np.array([1.0, 2.0, np.inf]), 2),
        (np.array([True, False]), 0),
    ],
    ids=["fraction", "double", "float", "nan", "inf", "bool"],
)
def test_ids_stored_as_something_else_are_refused(tmp_path, kind, ids, row):
    path = with_ids(tmp_path, kind, ids)
    with pytest.raises(UserError, match=rf"column 'id', row {row}: .*(is no event id|the value is missing)"):
        read_features(path, Source(), BY_ID)


def test_ids_that_are_integers_in_another_type(tmp_path):
    for kind in ("npy", "parquet", "csv"):
        found = read_features(with_ids(tmp_path, kind, np.array([3.0, 1.0, 2.0])), Source(), BY_ID)
        assert found.event_id.tolist() == [3, 1, 2]
    path = tmp_path / "other.parquet"
    for ids in (pa.array([Decimal(2**63), Decimal(5)], pa.decimal128(20, 0)), pa.array([str(2**63), "5"])):
        pq.write_table(pa.table({"m": [1.0, 2.0], "a": [0.0, 0.0], "id": ids}), path)
        assert read_features(path, Source(), BY_ID).event_id.tolist() == [2**63, 5]
    pq.write_table(pa.table({"m": [1.0, 2.0], "a": [0.0, 0.0], "id": pa.array([5, None])}), path)
    with pytest.raises(UserError, match="column 'id', row 1: the value is missing"):
        read_features(path, Source(), BY_ID)


def test_negative_ids_beside_those_beyond_the_signed_range(tmp_path):
    path = with_ids(tmp_path, "csv", [1, 2**63, -4])
    for rows in (10, 1):
        with pytest.raises(UserError, match=r"t\.csv: column '(id|event_id)'.*negative"):
            read_features(path, Source(chunk_rows=rows), BY_ID)
