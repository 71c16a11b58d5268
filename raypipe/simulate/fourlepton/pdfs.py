"""Parton densities of the proton as a table read from Pythia: no LHAPDF needed, the same densities as the shower."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

QUARKS = (1, 2, 3, 4, 5)  # PDG ids of the quarks that can start the process

_X_RANGE = (1e-6, 1.0)
_Q_RANGE = (5.0, 7000.0)  # GeV
_X_POINTS, _Q_POINTS = 240, 30


@dataclass(frozen=True)
class Densities:
    """x f(x, Q) of quarks 1..5, then antiquarks, on a grid (10, x, Q) even in ln x and ln Q."""

    grid: np.ndarray

    def __call__(self, x: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """x f(x, Q) by bilinear interpolation, (10, n); ``scale`` is Q in GeV."""
        i, u = _place(np.log(x), np.log(_X_RANGE), self.grid.shape[1])
        j, v = _place(np.log(scale), np.log(_Q_RANGE), self.grid.shape[2])
        low = self.grid[:, i, j] * (1 - v) + self.grid[:, i, j + 1] * v
        high = self.grid[:, i + 1, j] * (1 - v) + self.grid[:, i + 1, j + 1] * v
        return low * (1 - u) + high * u


def _place(value: np.ndarray, bounds: np.ndarray, points: int) -> tuple[np.ndarray, np.ndarray]:
    """Lower grid point and fraction of the way to the next."""
    position = (value - bounds[0]) / (bounds[1] - bounds[0]) * (points - 1)
    position = np.clip(position, 0, points - 1 - 1e-9)
    index = position.astype(np.int64)
    return index, position - index


@cache
def pythia_densities() -> Densities:
    """The proton densities of Pythia's default set (NNPDF2.3 QCD+QED LO), about 70,000 calls of Pythia."""
    import pythia8mc

    pythia = pythia8mc.Pythia("", False)
    for setting in ("Print:quiet=on", "ProcessLevel:all=off"):
        pythia.readString(setting)
    pythia.init()
    density = pythia.getPDFPtr(2212)
    xs, qs = (np.exp(np.linspace(*np.log(r), n)) for r, n in ((_X_RANGE, _X_POINTS), (_Q_RANGE, _Q_POINTS)))
    ids = (*QUARKS, *(-quark for quark in QUARKS))
    values = [[[density.xf(pdg, x, q * q) for q in qs] for x in np.minimum(xs, 1 - 1e-9)] for pdg in ids]
    return Densities(np.maximum(values, 0.0))
