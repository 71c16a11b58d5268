"""Events for the encoder: the same arrays in memory, mapped, and from the files as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from bench.samples import write_events

from raypipe.cluster import inputs
from raypipe.cluster.inputs import BLOCK, BYTES_PER_EVENT, pieces, read_events
from raypipe.errors import UserError
from raypipe.events.diphoton import View
from raypipe.events.table import read_table, write_table
from raypipe.fit.encoder import EncoderInputs

VIEWS = [View("measured"), View("at_125"), View("none", "diphoton")]


@pytest.fixture(scope="module")
def paths(tmp_path_factory) -> list[str]:
    """A file of two blocks and a short one whose ids lie in no order among them."""
    folder = tmp_path_factory.mktemp("events")
    long = write_events(folder / "long.parquet", BLOCK + 900)
    short = write_events(folder / "short.parquet", 500, BLOCK + 900)
    table = read_table(short)
    write_table(table.take(np.random.default_rng(1).permutation(500)), short)
    return [short, long]


def plainly(paths: list[str], view: View) -> dict[str, np.ndarray]:
    """All files in memory, then sorted."""
    table = pa.concat_tables([read_table(path) for path in paths]).combine_chunks()
    table = table.sort_by("event_id").combine_chunks()
    return {
        "event_id": table["event_id"].to_numpy(),
        "objects": view.objects(table),
        "event": view.event(table),
        "group": table["group"].to_numpy().astype(np.int64),
    }


def same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    for name, values in expected.items():
        assert found[name].dtype == values.dtype
        np.testing.assert_array_equal(found[name], values, err_msg=name)


@pytest.mark.parametrize("view", VIEWS, ids=str)
def test_events_are_those_of_the_files_sorted_by_id(paths, view, tmp_path):
    for threads in (1, 3):
        same(vars(read_events(paths, view, threads)), plainly(paths, view))
    mapped = vars(read_events(paths, view, 2, tmp_path))
    same(mapped, plainly(paths, view))
    same({name: np.load(tmp_path / f"{name}.npy") for name in mapped}, plainly(paths, view))


def test_a_file_broken_in_the_middle_is_named(paths, tmp_path):
    broken = tmp_path / "broken.parquet"
    content = bytearray(Path(paths[1]).read_bytes())
    content[1000:200_000] = bytes(199_000)
    broken.write_bytes(content)
    with pytest.raises(UserError, match=r"broken\.parquet: not a readable Parquet file: ") as caught:
        read_events([paths[0], str(broken)])
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"none\.parquet: no such file"):
        read_events([str(tmp_path / "none.parquet")])


def test_pieces_cover_every_row_once(paths):
    for rows in (499, BLOCK, 4 * BLOCK):
        covered = {path: [] for path in paths}
        for path, start, stop in pieces(paths, rows):
            assert 0 < stop - start <= rows
            covered[path] += range(start, stop)
        assert covered == {paths[0]: list(range(500)), paths[1]: list(range(BLOCK + 900))}


def test_bytes_of_an_event():
    assert sum(np.prod(s) * np.dtype(t).itemsize for s, t in inputs._shapes(1).values()) == BYTES_PER_EVENT
    assert set(inputs._shapes(1)) == set(EncoderInputs.__dataclass_fields__)
