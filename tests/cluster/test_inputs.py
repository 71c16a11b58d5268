"""Events for the encoder: the same arrays in memory, from Ray Data and from the files as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from bench.samples import write_events

from raypipe.cluster import inputs
from raypipe.cluster.inputs import read_resident
from raypipe.cluster.stream import BLOCK, BYTES_PER_EVENT, SPAN, pieces, stream_events
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
def test_resident_events_are_those_of_the_files_sorted_by_id(paths, view):
    for threads in (1, 3):
        same(vars(read_resident(paths, view, threads)), plainly(paths, view))


@pytest.mark.ray
@pytest.mark.parametrize("view", VIEWS, ids=str)
def test_streamed_blocks_hold_the_same_bits(ray_local, paths, view):
    blocks = list(stream_events(paths, view))
    assert max(len(b["group"]) for b in blocks) <= BLOCK
    joined = {name: np.concatenate([b[name] for b in blocks]) for name in blocks[0]}
    order = np.argsort(joined["event_id"])
    same({name: values[order] for name, values in joined.items()}, plainly(paths, view))


@pytest.mark.ray
def test_a_file_broken_in_the_middle_is_named(ray_local, paths, tmp_path):
    broken = tmp_path / "broken.parquet"
    content = bytearray(Path(paths[1]).read_bytes())
    content[1000:200_000] = bytes(199_000)
    broken.write_bytes(content)
    with pytest.raises(UserError, match=r"broken\.parquet: not a readable Parquet file: ") as caught:
        list(stream_events([paths[0], str(broken)]))
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"broken\.parquet: not a readable Parquet file: "):
        read_resident([str(broken)])
    with pytest.raises(UserError, match=r"none\.parquet: no such file"):
        list(stream_events([str(tmp_path / "none.parquet")]))


def test_pieces_cover_every_row_once(paths):
    for rows in (499, BLOCK, SPAN):
        covered = {path: [] for path in paths}
        for path, start, stop in pieces(paths, rows):
            assert 0 < stop - start <= rows
            covered[path] += range(start, stop)
        assert covered == {paths[0]: list(range(500)), paths[1]: list(range(BLOCK + 900))}


def test_bytes_of_an_event():
    assert sum(np.prod(s) * np.dtype(t).itemsize for s, t in inputs._shapes(1).values()) == BYTES_PER_EVENT
    assert set(inputs._shapes(1)) == set(EncoderInputs.__dataclass_fields__)
