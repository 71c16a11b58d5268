"""LHC Olympics raw events: 700 x (pT, eta, phi) and a label, clustered into the two leading R = 1 jets.

Features as in the R&D data set (2101.08320) and CATHODE (2109.00546), in TeV: m_jj; m_j1, the mass of the lighter of
the two leading anti-kT jets (by pT); m_j2 - m_j1; tau21 of both, in that order.
"""

from collections.abc import Sequence
from pathlib import Path

import awkward as ak
import numpy as np
import pyarrow as pa

from raypipe.config.read import Source
from raypipe.errors import UserError
from raypipe.events.clustering import cluster, momenta, subjettiness
from raypipe.events.objects import invariant_mass, ratio
from raypipe.events.readers.hdf5 import Hdf5Reader

RADIUS, MIN_PT = 1.0, 20.0
NAMES = ("m_jj", "m_j1", "delta_m", "tau21_1", "tau21_2", "label")


class LhcoReader:
    """`raypipe.events.readers.base.Reader` of particle lists: columns `NAMES`. The label is -1 where there is none."""

    hdf5 = Hdf5Reader()

    def rows(self, path: Path, source: Source) -> int:
        columns = len(self.hdf5.names(path, source))
        if columns % 3 > 1 or columns < 6:
            raise UserError(f"{path}: {columns} columns, expected 3 for every particle (pT, eta, phi) and a label")
        return self.hdf5.rows(path, source)

    def names(self, path: Path, source: Source) -> list[str]:
        return list(NAMES)

    def read(self, path: Path, source: Source, start: int, stop: int, columns: Sequence[str]) -> pa.Table:
        matrix = np.asarray(self.hdf5.matrix(path, source, start, stop), dtype=np.float64)
        for row, column in np.argwhere(~np.isfinite(matrix))[:1]:
            raise UserError(f"{path}: column {column}, row {start + row}: {matrix[row, column]} is not finite")
        particles = matrix[:, : matrix.shape[1] // 3 * 3].reshape(len(matrix), -1, 3)
        features = jet_features(particles, path, start)
        label = matrix[:, -1] if matrix.shape[1] % 3 else np.full(len(matrix), -1.0)
        return pa.table(dict(zip(NAMES, [*features.T, label], strict=True))).select(list(columns))


def jet_features(particles: np.ndarray, source: str | Path = "particles", start: int = 0) -> np.ndarray:
    """The five features (n, 5) in TeV of massless particles (n, m, 3): pT in GeV (0: no particle), eta, phi."""
    pt, eta, phi = np.moveaxis(particles, -1, 0)
    there = pt > 0
    counts = there.sum(1)
    pt, eta, phi = pt[there], eta[there], phi[there]
    given = momenta(counts, pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta), pt * np.cosh(eta))
    jets, sequence = cluster(given, RADIUS, MIN_PT)
    members = sequence.constituent_index(MIN_PT)
    few = np.flatnonzero(ak.to_numpy(ak.num(jets.px)) < 2)
    if len(few):
        told = f"fewer than two jets of R = {RADIUS:g} above {MIN_PT:g} GeV"
        raise UserError(f"{source}: event {start + few[0]} has {told}")
    leading = ak.argsort(np.hypot(jets.px, jets.py), axis=1, ascending=False)[:, :2]
    jets, members = jets[leading], members[leading]
    vectors = np.stack([ak.to_numpy(jets[name]) for name in ("E", "px", "py", "pz")], axis=-1)  # (n, 2, 4)
    mass = invariant_mass(vectors)
    tau = subjettiness(given, members, RADIUS, (1, 2))
    tau21 = ratio(tau[:, 1], tau[:, 0]).reshape(-1, 2)
    order = np.argsort(mass, axis=1)
    mass, tau21 = np.take_along_axis(mass, order, 1), np.take_along_axis(tau21, order, 1)
    total = invariant_mass(vectors.sum(1))
    return np.c_[total / 1000, mass[:, 0] / 1000, (mass[:, 1] - mass[:, 0]) / 1000, tau21]
