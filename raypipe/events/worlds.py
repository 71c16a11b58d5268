"""Worlds that are not as simulated: what recorded events would look like if a scale, a resolution or a rate were off.

The encoder and the simulated Higgs template know the nominal world alone; pseudo-data come from another
(`scan.variations`). The sizes are raypipe's own, about what ATLAS and CMS quote of themselves; no paper gives them.
What needs another simulation (multiple interactions, parton showers) is not among them, and no event crosses a cut of
the selection.
"""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
from scipy.special import ndtri

from raypipe import seeds
from raypipe.errors import UserError
from raypipe.events.objects import wrap_phi
from raypipe.events.schema import FEATURES, OBJECT_FEATURES, PHOTON_COLUMNS, SLOTS, tensor_column, tensor_values

COLUMNS = ("event_id", "group", "weight", "m_yy", "pt_yy", *PHOTON_COLUMNS, "objects", "features")
"""Columns of the event table that a world is made from."""
PHOTON_SCALE = 0.005  # Relative, of every photon
PHOTON_RESOLUTION = 0.01  # Relative, beside the simulated one
JET_SCALE = 0.03  # Relative, of every jet; the missing momentum follows
MET_NOISE = 5.0  # GeV, of either component
TAG_LOSS = 0.10  # Share of b-tags
HIGGS_YIELD = 0.10
HIGGS_SLOPE = 0.2  # Of the Higgs yield from 100 to 200 GeV of its pT, and as much less towards zero
JET_YIELD = 0.20  # Of the continuum with two jets or more

PT, PHI, MASS, BTAG = (OBJECT_FEATURES.index(name) for name in ("pt", "phi", "mass", "btag"))
MET = SLOTS.index("met")
_BELOW_PI = np.nextafter(np.float32(np.pi), np.float32(0))

Columns = dict[str, np.ndarray]


def varied(table: pa.Table, name: str, seed: int) -> pa.Table:
    """The events (`COLUMNS` and others) of the world ``name`` of `WORLDS`; an unknown one is a `UserError`.

    Event by event, whatever others are there: random numbers belong to the id. Masses of the continuum stay, which
    every search learns from the data's own spectrum.
    """
    if name not in WORLDS:
        raise UserError(f"scan.variations: {name!r} is unknown (known are {', '.join(WORLDS)})")
    values = {c: tensor_values if c in ("objects", "features") else pa.ChunkedArray.to_numpy for c in COLUMNS}
    own = {c: np.array(values_of(table[c])) for c, values_of in values.items()}
    WORLDS[name](own, seed)
    for column in COLUMNS[2:]:
        place, values = table.column_names.index(column), own[column]
        field = table.schema.field(place)
        values = tensor_column(values) if values.ndim > 1 else pa.array(values, field.type)
        table = table.set_column(place, field, values)
    return table


def _feature(own: Columns, name: str) -> np.ndarray:
    return own["features"][:, FEATURES.index(name)]


def _photons(own: Columns, factors: list[np.ndarray]) -> None:
    """Scale the two photons; the missing momentum balances them, and angles are those to their new sum."""
    resonant = own["group"] != 0
    before, after = np.zeros((2, len(resonant))), np.zeros((2, len(resonant)))
    for i, factor in zip((1, 2), factors, strict=True):
        factor = np.where(resonant, factor, 1.0)
        pt, phi = own[f"y{i}_pt"].astype(np.float64), own[f"y{i}_phi"].astype(np.float64)
        direction = np.stack([np.cos(phi), np.sin(phi)])
        before += pt * direction
        after += pt * factor * direction
        own[f"y{i}_pt"] = (pt * factor).astype(np.float32)
        own["m_yy"] = (own["m_yy"] * np.sqrt(factor)).astype(np.float32)
    axis = np.arctan2(before[1], before[0])
    turn = wrap_phi(np.arctan2(after[1], after[0]) - axis)
    own["pt_yy"] = np.where(resonant, np.hypot(*after), own["pt_yy"]).astype(np.float32)
    _feature(own, "pt_yy")[:] = own["pt_yy"]
    change = after - before  # in the detector's frame; the objects' is turned by the axis
    x, y = (change[0] * np.cos(axis) + change[1] * np.sin(axis), change[1] * np.cos(axis) - change[0] * np.sin(axis))
    _add_met(own, -x, -y)
    phi, there = own["objects"][..., PHI], own["objects"][..., PT] > 0
    phi[there] = np.clip(wrap_phi(phi - turn[:, None])[there], -_BELOW_PI, _BELOW_PI)


def _add_met(own: Columns, x: np.ndarray, y: np.ndarray) -> None:
    """Add a vector (x, y) [GeV], in the frame of the objects, to the missing momentum."""
    met = own["objects"][:, MET]
    x = x + met[:, PT] * np.cos(met[:, PHI])
    y = y + met[:, PT] * np.sin(met[:, PHI])
    met[:, PT], met[:, PHI] = np.hypot(x, y), np.clip(np.arctan2(y, x), -_BELOW_PI, _BELOW_PI)
    _feature(own, "met")[:] = met[:, PT]


def photon_scale(own: Columns, seed: int) -> None:
    """Every photon is measured too high."""
    _photons(own, [np.full(len(own["weight"]), 1 + PHOTON_SCALE)] * 2)


def photon_resolution(own: Columns, seed: int) -> None:
    """Photons are smeared once more."""
    drawn = [ndtri(seeds.uniform_by_id(own["event_id"], seed, "world", f"photon {i}")) for i in (1, 2)]
    _photons(own, [1 + PHOTON_RESOLUTION * number for number in drawn])


def jet_scale(own: Columns, seed: int) -> None:
    """Every jet, narrow or wide, is measured too high; HT, the dijet mass and the missing momentum follow."""
    jets = own["objects"][:, [i for i, slot in enumerate(SLOTS) if slot == "jet"]].astype(np.float64)
    x, y = ((JET_SCALE * jets[..., PT] * way(jets[..., PHI])).sum(1) for way in (np.cos, np.sin))
    for i, slot in enumerate(SLOTS):
        if slot in ("jet", "fatjet"):
            own["objects"][:, i, [PT, MASS]] *= 1 + JET_SCALE
    for name in ("m_jj", "ht"):
        _feature(own, name)[:] *= 1 + JET_SCALE
    _add_met(own, -x, -y)


def met_noise(own: Columns, seed: int) -> None:
    """The missing momentum is smeared."""
    x, y = (ndtri(seeds.uniform_by_id(own["event_id"], seed, "world", f"met {axis}")) for axis in "xy")
    _add_met(own, MET_NOISE * x, MET_NOISE * y)


def tag_loss(own: Columns, seed: int) -> None:
    """Some b-jets lose their tag."""
    for slot in range(len(SLOTS)):
        lost = seeds.uniform_by_id(own["event_id"], seed, "world", f"tag {slot}") < TAG_LOSS
        own["objects"][lost, slot, BTAG] = 0


def higgs_yield(own: Columns, seed: int) -> None:
    """More SM Higgs events than its simulation expects."""
    own["weight"][own["group"] > 0] *= 1 + HIGGS_YIELD


def higgs_pt(own: Columns, seed: int) -> None:
    """A harder spectrum of the SM Higgs."""
    harder = 1 + HIGGS_SLOPE * np.clip((own["pt_yy"].astype(np.float64) - 100) / 100, -1, 1)
    own["weight"] *= np.where(own["group"] > 0, harder, 1.0)


def continuum_jets(own: Columns, seed: int) -> None:
    """A continuum of another composition: more of it comes with jets."""
    many = (own["group"] == 0) & (_feature(own, "n_jet") >= 2)
    own["weight"][many] *= 1 + JET_YIELD


_EVERY = (photon_scale, photon_resolution, jet_scale, met_noise, tag_loss, higgs_yield, higgs_pt, continuum_jets)
WORLDS: dict[str, Callable[[Columns, int], None]] = {made.__name__: made for made in _EVERY}
