"""Event files as blocks of arrays for the encoder: streamed by Ray Data, or read in this process.

Both cut the files into the same pieces of `BLOCK` rows and give the same arrays. Workers import this module, so it
needs neither torch nor the configuration.
"""

import functools
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from raypipe.errors import UserError
from raypipe.events.diphoton import View
from raypipe.events.schema import tensor_column, tensor_values
from raypipe.events.table import ROW_GROUP, count_rows, read_rows

COLUMNS = ["event_id", "group"]  # Columns that every encoder reads beside those of its `View`
VIEW = View()
BYTES_PER_EVENT = 8 + 8 + 2 * 4 + 11 * 12 * 4
BLOCK = 2 * ROW_GROUP  # Rows of a block, 18 MB: whole row groups; a worker and the consumer hold one or two
SPAN = 4 * BLOCK  # Rows of a read task: a tenth of a second of work, so that scheduling costs little

Piece = tuple[str, int, int]  # (path, first row, end row)


def pieces(paths: list[str], rows: int) -> list[Piece]:
    """The files cut into pieces of at most ``rows`` rows."""
    totals = [(path, count_rows(path)) for path in paths]
    return [(path, at, min(at + rows, total)) for path, total in totals for at in range(0, total, rows)]


def piece_tables(paths: list[str], rows: int) -> list[pa.Table]:
    """`pieces` for Ray Data, each a table of one row: path, start, stop."""
    return [pa.table({"path": [path], "start": [a], "stop": [b]}) for path, a, b in pieces(paths, rows)]


def read_piece(piece: Piece, view: View = VIEW) -> dict[str, np.ndarray]:
    """The arrays of one piece in the view of an encoder, views of Arrow's memory where they are stored like that."""
    table = read_rows(piece[0], [*COLUMNS, *view.columns], *piece[1:])
    seen = {"event_id": table["event_id"].to_numpy(), "objects": view.objects(table), "event": view.event(table)}
    return seen | {"group": table["group"].to_numpy().astype(np.int64)}


def stream_events(paths: list[str], view: View = VIEW) -> Iterator[dict[str, np.ndarray]]:
    """The events of Parquet files as blocks of arrays in any order, by Ray Data, which must be running.

    Memory does not grow with the files: workers wait for the consumer. A file that cannot be read is a `UserError`.
    """
    import ray

    if not (spans := piece_tables(paths, SPAN)):
        return
    read = functools.partial(_read_span, view=view)
    dataset = ray.data.from_arrow(spans).map_batches(read, batch_size=1, batch_format="pyarrow")
    # A little less than a block: then each block that a task yields is handed on as it is, not merged and cut again.
    dataset.context.target_max_block_size = int(0.8 * BLOCK * BYTES_PER_EVENT)
    try:
        for block in dataset.iter_batches(batch_format="pyarrow", batch_size=None):
            tensors = {name: tensor_values(block[name]) for name in ("objects", "event")}
            yield tensors | {name: block[name].to_numpy() for name in COLUMNS}
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):  # its first line; Ray Data adds how to have it retried
            raise UserError(str(error.cause).splitlines()[0]) from None
        raise


def _read_span(spans: pa.Table, view: View) -> Iterator[pa.Table]:
    """What a read task runs: the blocks of its spans as Arrow tables, which Ray shares without copies."""
    for row in spans.to_pylist():
        for at in range(row["start"], row["stop"], BLOCK):
            block = read_piece((row["path"], at, min(at + BLOCK, row["stop"])), view)
            yield pa.table({k: tensor_column(v) if v.ndim > 1 else pa.array(v) for k, v in block.items()})
