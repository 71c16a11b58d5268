"""The event table: one row an event, one schema, checked at every boundary; GeV and radians.

The sum of `weight` over one sample's rows of one split is that sample's yield per fb^-1. The ``phi`` of every object is
measured from the azimuth of the diphoton system and wrapped to [-pi, pi). The photons never enter ``objects`` or
``features`` (except through pt_yy and dr_yy): an encoder that sees them could compute m_yy.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raypipe.errors import UserError

SLOTS = ("jet", "jet", "jet", "jet", "fatjet", "fatjet", "electron", "electron", "muon", "muon", "met")
"""The 11 object slots of paper C, section III.1, each ordered by falling transverse momentum."""

OBJECT_FEATURES = ("pt", "eta", "phi", "mass", "btag", "tau32", "tau43", *(f"is_{s}" for s in dict.fromkeys(SLOTS)))
"""The 12 numbers of an object (paper C, section III.1); all zero where the object is absent."""

FEATURES = ("pt_yy", "dr_yy", "m_jj", "dr_jj", "ht", "has_lepton", "met", "n_photon", "n_jet")
"""The nine event features of paper A (names inferred; see configs/haxad)."""

SPLITS = ("embedding", "search")
"""The two halves that never mix: `embedding` stands for simulation, `search` for recorded data (paper C, II)."""

PHOTON_COLUMNS = tuple(f"y{i}_{q}" for i in (1, 2) for q in ("pt", "eta", "phi"))

SIGNS = b"raypipe.weights"  # Metadata of a table whose weights have signs

_TENSOR_SHAPES = {"objects": (len(SLOTS), len(OBJECT_FEATURES)), "features": (len(FEATURES),)}

EVENT_SCHEMA = pa.schema(
    [
        pa.field("event_id", pa.int64(), nullable=False),
        pa.field("sample", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("group", pa.int8(), nullable=False),
        pa.field("split", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("weight", pa.float64(), nullable=False),
        *(pa.field(name, pa.float32(), nullable=False) for name in ("m_yy", "pt_yy", "dr_yy", *PHOTON_COLUMNS)),
        pa.field("objects", pa.fixed_shape_tensor(pa.float32(), _TENSOR_SHAPES["objects"]), nullable=False),
        pa.field("features", pa.fixed_shape_tensor(pa.float32(), _TENSOR_SHAPES["features"]), nullable=False),
    ]
)
"""Arrow schema of the diphoton event table."""


def tensor_column(values: np.ndarray) -> pa.ExtensionArray:
    """A NumPy array (n, ...) as a canonical Arrow fixed-shape tensor column."""
    if len(values) == 0:  # pyarrow refuses an empty array
        kind = pa.fixed_shape_tensor(pa.from_numpy_dtype(values.dtype), values.shape[1:])
        return pa.ExtensionArray.from_storage(kind, pa.array([], kind.storage_type))
    return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(values))


def tensor_values(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """The inverse of `tensor_column`: a tensor column as one NumPy array (n, ...)."""
    if len(column) == 0:
        return np.empty((0, *column.type.shape), dtype=np.float32)
    if isinstance(column, pa.ChunkedArray):  # combine_chunks keeps a ChunkedArray for extension types in some versions
        column = column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
    return column.to_numpy_ndarray()


def with_signs(table: pa.Table) -> pa.Table:
    """The table, marked as one whose weights may be negative."""
    return table.replace_schema_metadata({**(table.schema.metadata or {}), SIGNS: b"sign"})


def has_signs(table: pa.Table) -> bool:
    """Whether negative weights are meant."""
    return (table.schema.metadata or {}).get(SIGNS) == b"sign"


def validate(table: pa.Table, source: str, schema: pa.Schema = EVENT_SCHEMA) -> pa.Table:
    """Check ``table`` against ``schema`` and return it with the columns in schema order, further ones behind.

    A missing column, a wrong type or shape, a null, NaN or infinity, a negative weight (unless marked by `with_signs`),
    or a duplicated ``event_id`` is a one-line `UserError` naming ``source``, column and row.
    """
    for field in schema:
        if field.name not in table.column_names:
            raise UserError(f"{source}: column {field.name!r} is missing (present: {', '.join(table.column_names)})")
        found = table.schema.field(field.name).type
        if found != field.type:
            raise UserError(f"{source}: column {field.name!r} has type {found}, expected {field.type}")
        _check_values(table[field.name], field, source)
    if "weight" in schema.names and not has_signs(table) and table.num_rows and pc.min(table["weight"]).as_py() < 0:
        row = int(np.flatnonzero(table["weight"].to_numpy() < 0)[0])
        told = f"column 'weight', row {row}: {table['weight'][row].as_py()} is negative"
        raise UserError(f"{source}: {told} (`raypipe read` with source.weights=sign makes tables with signs)")
    if "event_id" in schema.names:
        refuse_repeated(table["event_id"].to_numpy(), source)
    return table.select([*schema.names, *(name for name in table.column_names if name not in schema.names)])


def refuse_repeated(ids: np.ndarray, source: object) -> None:
    """An event id that occurs twice is a `UserError` naming its row."""
    unique, first = np.unique(ids, return_index=True)
    if len(unique) != len(ids):
        row = int(np.setdiff1d(np.arange(len(ids)), first)[0])
        raise UserError(f"{source}: column 'event_id', row {row}: {ids[row]} occurs more than once")


def _check_values(column: pa.ChunkedArray, field: pa.Field, source: str) -> None:
    if column.null_count:
        raise UserError(f"{source}: column {field.name!r} has {column.null_count} missing values")
    if isinstance(field.type, pa.FixedShapeTensorType):
        values = tensor_values(column)
    elif pa.types.is_floating(field.type):
        values = column.to_numpy()
    else:
        return
    finite = np.isfinite(values)
    if not finite.all():
        where = np.argwhere(~finite)[0]
        inner = f" element {tuple(int(i) for i in where[1:])}" if len(where) > 1 else ""
        place = f"column {field.name!r}, row {int(where[0])}{inner}"
        raise UserError(f"{source}: {place}: {values[tuple(where)]} is not finite")


MASSES = ("m_4l", "m_ee", "m_mumu")  # The three numbers that the search of paper B uses (section 2), GeV

LEPTONS = ("e_minus", "e_plus", "mu_minus", "mu_plus")
"""The leptons by charge; no two are alike, so nothing has to be ordered."""

LEPTON_COLUMNS = tuple(f"{lepton}_{q}" for lepton in LEPTONS for q in ("pt", "eta", "phi"))
"""The twelve numbers of an event: four three-momenta (paper B, section 2)."""

FOUR_LEPTON_SCHEMA = pa.schema(
    [
        *(EVENT_SCHEMA.field(name) for name in ("event_id", "sample", "group", "split", "weight")),
        *(pa.field(name, pa.float32(), nullable=False) for name in (*MASSES, *LEPTON_COLUMNS)),
    ]
)
"""Arrow schema of the four-lepton event table."""
