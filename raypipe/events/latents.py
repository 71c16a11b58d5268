"""The latent table: what a search needs of an event, one row an event of either split."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from raypipe.errors import UserError
from raypipe.events.fields import Rows
from raypipe.events.schema import EVENT_SCHEMA, FEATURES, tensor_values, validate


def latent_schema(latent: int) -> pa.Schema:
    """Arrow schema of a latent table of ``latent`` dimensions."""
    kept = [EVENT_SCHEMA.field(name) for name in ("event_id", "sample", "group", "split", "weight", "m_yy")]
    shapes = {"features": (len(FEATURES),), "latent": (latent,), "posterior": (2, latent)}
    tensors = {name: pa.fixed_shape_tensor(pa.float32(), shape) for name, shape in shapes.items()}
    return pa.schema([*kept, *(pa.field(name, kind, nullable=False) for name, kind in tensors.items())])


@dataclass(frozen=True)
class Events(Rows):
    """Events of one sample and split as arrays, sorted by id so that their order carries no history.

    ``mass``: (n,) m_yy in GeV. ``weight``: (n,) events per fb^-1. ``latent``: (n, d), ``features``: (n, 9), and
    ``posterior``: (n, 2, d), mean and standard deviation from which the latent was drawn, float32.
    """

    event_id: np.ndarray
    mass: np.ndarray
    weight: np.ndarray
    latent: np.ndarray
    features: np.ndarray
    posterior: np.ndarray

    def seen_as(self, latent: np.ndarray) -> Events:
        """The same events with another representation (n, d), in which each is a point."""
        latent = latent.astype(np.float32)
        return replace(self, latent=latent, posterior=np.stack([latent, np.zeros_like(latent)], axis=1))


def split_latents(table: pa.Table, source: str) -> dict[str, dict[str, Events]]:
    """Validate a latent table and take it apart: ``result[split][sample]``."""
    if "latent" not in table.column_names:
        raise UserError(f"{source}: column 'latent' is missing (present: {', '.join(table.column_names)})")
    kind = table.schema.field("latent").type
    if not isinstance(kind, pa.FixedShapeTensorType) or len(kind.shape) != 1:
        raise UserError(f"{source}: column 'latent' has type {kind}, expected a fixed-shape tensor of one axis")
    table = validate(table, source, latent_schema(kind.shape[0]))
    table = table.take(np.argsort(table["event_id"].to_numpy(), kind="stable"))
    sample, split = (np.asarray(table[name].cast(pa.string()).to_pylist(), dtype=str) for name in ("sample", "split"))
    numbers = table["event_id"].to_numpy(), table["m_yy"].to_numpy().astype(np.float64), table["weight"].to_numpy()
    everything = Events(*numbers, *(tensor_values(table[name]) for name in ("latent", "features", "posterior")))
    return {
        half: {
            str(name): everything.take(np.flatnonzero((split == half) & (sample == name)))
            for name in np.unique(sample[split == half])
        }
        for half in np.unique(split)
    }
