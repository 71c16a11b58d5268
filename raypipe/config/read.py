"""How a user's own file becomes a table: format, place inside the file, and which column is what."""

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from raypipe.config.base import Resources, Section, refusing, twice


def _column(value: Any) -> Any:
    if isinstance(value, float):
        raise ValueError("a column is a name or a whole number: write a name of digits in quotes")
    return int(value) if isinstance(value, str) and re.fullmatch("-?[0-9]+", value) else value


Column = Annotated[str | int, BeforeValidator(_column)]
"""A column by name, or by its place (from 0; negative from the end) where a format has no names."""

Format = Literal["auto", "numpy", "hdf5", "lhco", "parquet", "csv", "root", "delphes", "nanoaod"]


class Columns(Section):
    """Which columns of a feature table are what."""

    mass: Column
    """The conditional mass, in the unit of `window`. [default]"""
    features: Annotated[list[Column], refusing(twice, "feature {!r} is named twice")] = Field(min_length=1)
    """What the classifier may look at: never the mass. [default]"""
    label: Column | None = None
    """Truth, 1 for signal: only ever used to evaluate. [default]"""
    weight: Column | None = None
    """Event weight; one where not given. [default]"""
    event_id: Column | None = None
    """Unique number of an event; its place in the files where not given. [default]"""
    mass_scale: float = Field(1.0, gt=0)
    """Factor on the mass, such as 0.001 from GeV to TeV. [default]"""


class Pairs(Section):
    """Pairs of objects from the lists of a ROOT tree: the two of highest pT, one row an event."""

    of: str
    """The list: `Muon` for branches such as Muon_pt, Muon_eta, Muon_phi, or Muon.PT, or Muon_Px to Muon_E. [default]"""
    mass: float = Field(0.0, ge=0)
    """Mass of an object, GeV, where the list has none. [default]"""
    charge: Literal["opposite", "same", "any"] = "opposite"
    """What the charges of the two must be; other events are left out. [default]"""
    cuts: dict[str, tuple[float | None, float | None]] = Field(default_factory=dict)
    """What an object must have, by the names of the list: `{pt: [20, null], eta: [-2.4, 2.4], tightId: [1, null]}`,
    from the first number to below the second. Events with less than two such objects are left out. [default]"""


class Source(Section):
    """One kind of input files."""

    format: Format = "auto"
    """What the files are; auto: by extension and content. [default]"""
    key: str | None = None
    """Dataset or group of an HDF5 file, tree of a ROOT file; the only one there where not given. [default]"""
    pairs: Pairs | None = None
    """Of a ROOT file: columns of the leading pair of a list, `pair.` and mass, pt, rapidity, deta, dphi, cos_theta or
    count (of passing objects), `first.` and `second.` and a name of the list, beside the file's own. [default]"""
    weights: Literal["file", "sign", "one"] = "file"
    """`file`: the weights of the file, of which none may be negative; `sign`: with their signs (NLO), so that yields
    are sums of weights and trees train on averages over the nearest events; `one`: every event counts one. [default]"""
    chunk_rows: int = Field(20_000, ge=1)
    """Events read at a time: bounds the memory, never changes a number. [default]"""
    duplicates: Literal["drop", "keep"] | None = None
    """Events that repeat an earlier one in mass and all features (overlapping triggers, resubmitted jobs): `drop` uses
    each once, `keep` all of them. Null refuses more than 0.1 % of them. [default]"""


class ObjectCuts(Section):
    """What counts as an object, GeV; the numbers of our own detector cards."""

    photon_pt: float = Field(10.0, ge=0)
    """Photons. [default]"""
    photon_eta: float = Field(2.5, gt=0)
    """Photons. [default]"""
    lepton_pt: float = Field(10.0, ge=0)
    """Electrons and muons. [default]"""
    lepton_eta: float = Field(2.5, gt=0)
    """Electrons and muons. [default]"""
    jet_pt: float = Field(25.0, ge=0)
    """Jets. [default]"""
    jet_eta: float = Field(4.5, gt=0)
    """Jets. [default]"""
    fatjet_pt: float = Field(200.0, ge=0)
    """Large-radius jets. [code]"""
    fatjet_eta: float = Field(2.5, gt=0)
    """Large-radius jets. [default]"""
    clean_dr: float = Field(0.4, ge=0)
    """Jets nearer than this to a photon of the pair or an electron are that photon or electron. [default]"""


class EventSource(Source):
    """Files of whole events (Delphes or NanoAOD) and what the event table should call them."""

    sample: str = "data"
    """Name of the sample in the event table. [default]"""
    group: int = Field(0, ge=-128, le=127)
    """Label for the contrastive loss. [default]"""
    split: Literal["embedding", "search"] = "search"
    """Which half the events belong to. [default]"""
    luminosity: float | None = Field(None, gt=0)
    """fb^-1 that the files stand for: weights are divided by it. One where not given. [default]"""
    objects: ObjectCuts = ObjectCuts()
    """What counts as an object."""
    tree_columns: dict[str, str] = Field(default_factory=dict)
    """Branches by another name than the format's, such as `{Photon.PT: PhotonTight.PT}`. [default]"""


class ReadConfig(Section):
    """What `raypipe read` makes of a user's files."""

    search: Literal["read"] = "read"
    """Not a search: this file describes an import."""
    output: str = "runs/read"
    """Folder of the tables and the sidecar."""
    source: EventSource = EventSource()
    """The files."""
    columns: Columns | None = None
    """For feature tables: which column is what. Without it the files hold whole events (Delphes, NanoAOD). [default]"""
    resources: Resources = Resources()
    """Ray resources; they never change a number."""
