"""What is looked at in an event table: the quantities of the diphoton, the four-lepton and any other table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from raypipe.errors import UserError
from raypipe.events.fourlepton import LEPTONS, MASSES
from raypipe.events.schema import FEATURES, PHOTON_COLUMNS
from raypipe.events.table import read_schema, stream_table
from raypipe.report.validation_presence import presence_means, slot

Batch = dict[str, np.ndarray]
"""Columns of a piece of a table; float64, tensors float32."""

Means = dict[str, tuple[np.ndarray, np.ndarray]]
"""Name -> (values, mask of the events that count)."""

BTAG = 0.5
"""Score above which a jet counts as b-tagged (`raypipe.simulate.jets.btag_score`)."""


def everywhere(batch: Batch) -> np.ndarray:
    """Mask of all events."""
    return np.ones(len(batch["weight"]), dtype=bool)


@dataclass(frozen=True)
class Quantity:
    """One spectrum."""

    name: str
    label: str
    """Axis label."""
    edges: np.ndarray
    values: Callable[[Batch], np.ndarray]
    log: bool = True
    """Logarithmic vertical axis."""
    present: Callable[[Batch], np.ndarray] = everywhere
    """Mask of the events that have it."""
    caption: str = ""
    shown: bool = True
    """False: kept for numbers only, no figure."""


@dataclass(frozen=True)
class Kind:
    """What one kind of table offers."""

    name: str
    columns: tuple[str, ...]
    quantities: tuple[Quantity, ...]
    means: Callable[[Batch], Means]


def _column(name: str) -> Callable[[Batch], np.ndarray]:
    return lambda batch: batch[name]


def _feature(name: str) -> Callable[[Batch], np.ndarray]:
    return lambda batch: batch["features"][:, FEATURES.index(name)]


def n_btag(batch: Batch) -> np.ndarray:
    """b-tagged jets among the four that the table keeps."""
    return (slot(batch, "jet", "btag") > BTAG).sum(axis=1)


def n_fatjet(batch: Batch) -> np.ndarray:
    """Large-radius jets, at most the two that the table keeps."""
    return (slot(batch, "fatjet", "pt") > 0).sum(axis=1)


def n_lepton(batch: Batch) -> np.ndarray:
    """Electrons and muons, at most two each."""
    return (slot(batch, "electron", "pt") > 0).sum(axis=1) + (slot(batch, "muon", "pt") > 0).sum(axis=1)


def _diphoton_means(batch: Batch) -> Means:
    values = {
        "n_jet": _feature("n_jet")(batch), "n_btag": n_btag(batch), "n_fatjet": n_fatjet(batch),
        "n_lepton": n_lepton(batch), "met": _feature("met")(batch), "pt_yy": batch["pt_yy"],
        "n_photon": _feature("n_photon")(batch),
    }  # fmt: skip
    mask = everywhere(batch)
    return {name: (v, mask) for name, v in values.items()} | presence_means(batch)


def _has(kind: str) -> Callable[[Batch], np.ndarray]:
    return lambda batch: slot(batch, kind, "pt")[:, 0] > 0


def _leading(kind: str, what: str) -> Callable[[Batch], np.ndarray]:
    return lambda batch: slot(batch, kind, what)[:, 0]


_COUNT = np.arange(-0.5, 16.5)

DIPHOTON = Kind(
    "diphoton",
    ("weight", "m_yy", "pt_yy", "dr_yy", *PHOTON_COLUMNS, "objects", "features"),
    (
        Quantity("m_yy", r"$m_{\gamma\gamma}$ [GeV]", np.linspace(105, 160, 56), _column("m_yy"),
                 caption="Diphoton mass over the whole window: the continuum falls without an edge, every H peaks at "
                 "125 GeV."),
        Quantity("m_yy_peak", r"$m_{\gamma\gamma}$ [GeV]", np.linspace(117, 133, 33), _column("m_yy"), log=False,
                 caption="The same around the Higgs boson, linear."),
        Quantity("m_yy_fine", "", np.linspace(105, 160, 1101), _column("m_yy"), shown=False),
        Quantity("pt_yy", r"$p_T^{\gamma\gamma}$ [GeV]", np.linspace(0, 1000, 51), _column("pt_yy"),
                 caption="Transverse momentum of the pair: what it recoils against."),
        Quantity("n_jet", "jets", _COUNT, _feature("n_jet"), caption="Number of small-radius jets (all, not only the "
                 "four in the table)."),
        Quantity("y1_pt", r"leading photon $p_T$ [GeV]", np.linspace(30, 830, 51), _column("y1_pt"),
                 caption="Leading photon; the cut at 0.4 m_yy leaves nothing below 42 GeV."),
        Quantity("y2_pt", r"second photon $p_T$ [GeV]", np.linspace(20, 420, 51), _column("y2_pt"),
                 caption="Second photon; the cut at 0.3 m_yy leaves nothing below 31.5 GeV."),
        Quantity("met", r"$p_T^{miss}$ [GeV]", np.linspace(0, 800, 51), _feature("met"),
                 caption="Missing transverse momentum: without pile-up and multi-parton interactions, narrow where no "
                 "particle escapes."),
        Quantity("jet1_pt", r"leading jet $p_T$ [GeV]", np.linspace(20, 1020, 51), _leading("jet", "pt"),
                 present=_has("jet"), caption="Leading jet, of the events that have one."),
        Quantity("fat1_mass", "leading large-R jet mass [GeV]", np.linspace(0, 300, 31), _leading("fatjet", "mass"),
                 present=_has("fatjet"), log=False, caption="Mass of the leading ungroomed large-R jet, of the events "
                 "that have one: decays of W, Z and top stand out of the QCD slope. The pair's photons are not in "
                 "it; a third photon is, as a jet without mass."),
    ),
    _diphoton_means,
)  # fmt: skip


MAX_ANY = 24
"""Columns of a table of another kind that are looked at, in its order."""

Z_WINDOW = (85.0, 97.0)
"""GeV, m_4l of Z -> 4l (simulation.md 5)."""

ON_SHELL = (66.0, 116.0)
"""GeV, mass of a pair from a Z (issue 3)."""


def _four_lepton_means(batch: Batch) -> Means:
    both = [(batch[m] > ON_SHELL[0]) & (batch[m] < ON_SHELL[1]) for m in ("m_ee", "m_mumu")]
    shares = {
        "z_to_4l": (batch["m_4l"] > Z_WINDOW[0]) & (batch["m_4l"] < Z_WINDOW[1]), "below_100": batch["m_4l"] < 100,
        "two_z": both[0] & both[1],
    }  # fmt: skip
    return {name: (mask, everywhere(batch)) for name, mask in shares.items()}


def _lepton(name: str) -> Quantity:
    sign = "+" if name.endswith("plus") else "-"
    label = (r"\mu" if name.startswith("mu") else "e") + f"^{sign}"
    return Quantity(
        f"{name}_pt", rf"${label}$ $p_T$ [GeV]", np.linspace(0, 200, 41), _column(f"{name}_pt"),
        caption=f"Transverse momentum of the {name.replace('_', ' ')}.",
    )  # fmt: skip


FOUR_LEPTON = Kind(
    "four-lepton",
    ("weight", *MASSES, *(f"{name}_pt" for name in LEPTONS)),
    (
        Quantity("m_4l", r"$m_{4\ell}$ [GeV]", np.linspace(50, 500, 91), _column("m_4l"),
                 caption="Four-lepton mass: Z at 91 GeV, H at 125 GeV, the threshold of two Z at 182 GeV; signals at "
                 "their own masses."),
        Quantity("m_4l_low", r"$m_{4\ell}$ [GeV]", np.linspace(70, 190, 61), _column("m_4l"), log=False,
                 caption="The same around Z and H, linear."),
        Quantity("m_ee", r"$m_{ee}$ [GeV]", np.linspace(0, 130, 66), _column("m_ee"),
                 caption="Electron pair: Z at 91 GeV and the photon pole; signals at 25 GeV."),
        Quantity("m_mumu", r"$m_{\mu\mu}$ [GeV]", np.linspace(0, 130, 66), _column("m_mumu"),
                 caption="Muon pair: the same; signals at 15 GeV."),
        Quantity("m_4l_fine", "", np.linspace(50, 500, 1801), _column("m_4l"), shown=False),
        Quantity("m_ee_fine", "", np.linspace(0, 130, 1301), _column("m_ee"), shown=False),
        Quantity("m_mumu_fine", "", np.linspace(0, 130, 1301), _column("m_mumu"), shown=False),
        *(_lepton(name) for name in LEPTONS),
    ),
    _four_lepton_means,
)  # fmt: skip


def _any_table(path: Path, schema: pa.Schema) -> Kind:
    """Every column of numbers, each over its own range."""
    numbers = [f.name for f in schema if pa.types.is_floating(f.type) or pa.types.is_integer(f.type)]
    names = [name for name in numbers if name not in {"event_id", "weight", "group"}][:MAX_ANY]
    if "weight" not in schema.names or not names:
        raise UserError(f"{path}: not an event table: columns {', '.join(schema.names)}, needed: weight and numbers")
    low, high = _ranges(path, names)

    def means(batch: Batch) -> Means:
        return {name: (batch[name], everywhere(batch)) for name in names}

    quantities = [Quantity(n, n, np.linspace(low[n], high[n], 51), _column(n), caption=f"Column {n}.") for n in names]
    return Kind("table", ("weight", *names), tuple(quantities), means)


def _ranges(path: Path, names: list[str]) -> tuple[dict[str, float], dict[str, float]]:
    """Axis limits of each column: smallest and largest finite value of the first piece, widened where equal."""
    piece = next(stream_table(path, names), None)
    low, high = {}, {}
    for name in names:
        values = piece[name].to_numpy() if piece is not None else np.zeros(1)
        values = values[np.isfinite(values)] if np.isfinite(values).any() else np.zeros(1)
        low[name], high[name] = float(values.min()), float(values.max())
        if low[name] == high[name]:
            low[name], high[name] = low[name] - 0.5, high[name] + 0.5
    return low, high


def kind_of(path: Path) -> Kind:
    """Which quantities the table in ``path`` has, from its columns."""
    schema = read_schema(path)
    for kind in (DIPHOTON, FOUR_LEPTON):
        if set(kind.columns) <= set(schema.names):
            return kind
    return _any_table(path, schema)
