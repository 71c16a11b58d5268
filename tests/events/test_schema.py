"""The event table: what is refused, and with which words."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypipe.errors import UserError
from raypipe.events.schema import EVENT_SCHEMA, tensor_column, tensor_values, validate
from raypipe.events.table import read_table, sample_path, write_table
from tests.events.helpers import event_table, read_events, replace


def test_round_trip_keeps_every_bit(tmp_path):
    table = event_table(300)
    write_table(table, tmp_path / "t.parquet")
    back = read_events(tmp_path / "t.parquet")
    assert back.schema.equals(EVENT_SCHEMA)
    assert np.array_equal(tensor_values(back["objects"]), tensor_values(table["objects"]))
    assert back["m_yy"].equals(table["m_yy"])
    columns = pq.ParquetFile(tmp_path / "t.parquet").metadata.row_group(0)
    encodings = {columns.column(i).path_in_schema: columns.column(i).encodings for i in range(columns.num_columns)}
    assert "BYTE_STREAM_SPLIT" in encodings["objects.list.element"]
    assert "BYTE_STREAM_SPLIT" in encodings["m_yy"]


def broken(column: str, row: int, value: float) -> pa.Table:
    table = event_table(10)
    if isinstance(EVENT_SCHEMA.field(column).type, pa.FixedShapeTensorType):
        values = tensor_values(table[column]).copy()
        values.reshape(10, -1)[row, 3] = value
        return replace(table, column, tensor_column(values))
    values = table[column].to_numpy().copy()
    values[row] = value
    return replace(table, column, pa.array(values, EVENT_SCHEMA.field(column).type))


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (event_table(5).drop_columns(["dr_yy"]), ["'dr_yy' is missing"]),
        (replace(event_table(5), "m_yy", pa.array(np.ones(5))), ["'m_yy'", "double", "expected float"]),
        (replace(event_table(5), "objects", tensor_column(np.ones((5, 10, 12), np.float32))), ["'objects'", "[10,12]"]),
        (broken("m_yy", 7, np.nan), ["'m_yy', row 7", "nan is not finite"]),
        (broken("features", 2, np.inf), ["'features', row 2 element (3,)", "inf is not finite"]),
        (broken("objects", 4, -np.inf), ["'objects', row 4 element (0, 3)"]),
        (broken("weight", 3, -0.5), ["'weight', row 3: -0.5 is negative"]),
        (broken("weight", 3, np.nan), ["'weight', row 3"]),
        (broken("event_id", 9, 0), ["'event_id', row 9: 0 occurs more than once"]),
    ],
)
def test_bad_tables_are_named(table, words):
    with pytest.raises(UserError) as error:
        validate(table, "events.parquet")
    assert str(error.value).startswith("events.parquet: column ")
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_missing_values_are_refused():
    table = event_table(4)
    with pytest.raises(UserError, match="'pt_yy' has 1 missing"):
        validate(replace(table, "pt_yy", pa.array([1.0, None, 2.0, 3.0], pa.float32())), "x")


def test_corrupt_parquet_is_one_line(tmp_path):
    path = tmp_path / "t.parquet"
    write_table(event_table(300), path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match=r"t\.parquet: not a readable Parquet file") as error:
        read_table(path)
    assert "\n" not in str(error.value)
    path.write_bytes(b"hello")
    with pytest.raises(UserError, match="not a readable Parquet file"):
        read_table(path)
    with pytest.raises(UserError, match="no such file"):
        read_table(tmp_path / "absent.parquet")


def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "t.parquet"
    write_table(event_table(10), path)
    before = path.read_bytes()

    def explode(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr("raypipe.events.table.pq.write_table", explode)
    with pytest.raises(OSError, match="disk full"):
        write_table(event_table(20), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_sample_that_was_not_simulated_lists_those_that_were(tmp_path):
    write_table(event_table(3), tmp_path / "search" / "yy.parquet")
    assert sample_path(tmp_path, "search", "yy").exists()
    with pytest.raises(UserError, match=r"'zp_400' was not simulated \(present: yy\)"):
        sample_path(tmp_path, "search", "zp_400")
    with pytest.raises(UserError, match="split 'data' does not exist"):
        sample_path(tmp_path, "data", "yy")
