"""p p -> e- e+ mu- mu+ at parton level: cross section and unweighted events.

The factorisation scale is fixed, by default at m_Z as in 1405.2219, whose K factors then apply. Channel shares and the
largest weight are found once for a set of cuts, from a random stream of their own, the same for every shard.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from raypipe import seeds
from raypipe.config.inputs import FourLeptons
from raypipe.events.fields import Rows
from raypipe.simulate.fourlepton.matrix_element import DOWN, UP, Electroweak, matrix_element_squared
from raypipe.simulate.fourlepton.phase_space import N_CHANNELS, PhaseSpace, Points

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


FB_PER_INVERSE_GEV2 = 0.3893793721e12  # (hbar c)^2 in fb GeV^2 (PDG)

_TYPE = np.array([UP if quark % 2 == 0 else DOWN for quark in QUARKS])

_ADAPTATIONS, _ADAPT_POINTS, _MAXIMUM_POINTS = 4, 60_000, 400_000
_OVERWEIGHT = 1e-3  # Share of the cross section that may lie above the weight taken as the largest

_BATCH = 50_000


@dataclass(frozen=True)
class PartonCuts:
    """Cuts at parton level [GeV]; those of the selection must be tighter by what shower and detector can move.

    ``beam_energy``: both beams. ``min_pt``, ``max_eta``: of each lepton. ``min_pair``: mass of e+e- and mu+mu-, or
    ``pair_window`` for both instead. ``scale``: factorisation scale.
    """

    beam_energy: float = 13_000.0
    min_pt: float = 7.0
    max_eta: float = 2.7
    min_pair: float = 3.5
    pair_window: tuple[float, float] | None = None
    scale: float = 91.1876

    @staticmethod
    def of(section: FourLeptons) -> PartonCuts:
        """Looser than the selection's by what recoil, radiation and resolution can make up; the tracker ends at 2.5."""
        cuts = section.selection
        windows = [window[0] for window in (cuts.z1_window, cuts.z2_window) if window is not None]
        # Each pair lies in one of the two windows.
        min_pair = max(cuts.min_pair, min(windows)) if len(windows) == 2 else cuts.min_pair
        return PartonCuts(section.beam_energy, 0.7 * min(cuts.electron_pt, cuts.muon_pt), 2.7, 0.875 * min_pair)


@dataclass(frozen=True)
class HardEvents(Rows):
    """Unweighted parton-level events in the laboratory: (n, 4, 4) (E, px, py, pz) of e-, e+, mu-, mu+ [GeV].

    ``quark``: (n,) PDG id of the parton from the first beam (+z). ``x``: (n, 2) momentum fractions. ``mass``: of all
    four.
    """

    quark: np.ndarray
    x: np.ndarray
    leptons: np.ndarray
    mass: np.ndarray


class HardProcess:
    """The process within ``cuts``: weights of phase-space points, cross section, unweighted events."""

    def __init__(self, cuts: PartonCuts, inputs: Electroweak | None = None, pdfs: Densities | None = None) -> None:
        self.cuts = cuts
        self.inputs = inputs or Electroweak()
        self.pdfs = pdfs or pythia_densities()
        low, high = cuts.pair_window or (cuts.min_pair, np.inf)
        self._pair = (low**2, high**2)
        # Momentum balance: the mass is at least the sum of the four transverse momenta.
        least, z = max(2 * low, 4 * cuts.min_pt), (self.inputs.m_z, self.inputs.width_z)
        self.space = PhaseSpace(cuts.beam_energy, low, least, cuts.max_eta, z)
        self.shares = np.full(N_CHANNELS, 1 / N_CHANNELS)
        self.largest = 0.0
        self._set_up(seeds.generator(0, "four leptons", "set up"))

    def _set_up(self, rng: np.random.Generator) -> None:
        """Adapt the channel shares to the variance (Kleiss, Pittau), then find the largest weight."""
        for _ in range(_ADAPTATIONS):
            points = self.space.draw(_ADAPT_POINTS, self.shares, rng)
            kept = self._passes(points)
            points = points.take(kept)
            densities = self.space.densities(points)
            density = self.shares @ densities
            weight = self._luminosity(points).sum(axis=(0, 1)) / density
            variance = np.mean(densities / density * weight**2, axis=1)
            shares = self.shares * np.sqrt(variance)
            self.shares = np.maximum(shares / shares.sum(), 0.01)
            self.shares /= self.shares.sum()
        weights = np.concatenate([self.weights(_BATCH, rng)[1] for _ in range(_MAXIMUM_POINTS // _BATCH)])
        ordered = np.sort(weights[weights > 0])[::-1]
        # Largest w with sum over weights above it of (weight - w) <= the share allowed of the sum.
        above = np.cumsum(ordered) - ordered * np.arange(1, len(ordered) + 1)
        self.largest = float(ordered[np.searchsorted(above, _OVERWEIGHT * ordered.sum())])

    def _passes(self, points: Points) -> np.ndarray:
        """Mask of points within the cuts."""
        p = points.leptons
        pt2 = p[..., 1] ** 2 + p[..., 2] ** 2
        kept = (pt2 > self.cuts.min_pt**2).all(axis=1)
        eta = np.arcsinh(p[..., 3] / np.sqrt(np.maximum(pt2, 1e-12))) + points.rapidity[:, None]
        kept &= (np.abs(eta) < self.cuts.max_eta).all(axis=1)
        for i in (0, 2):
            pair = p[:, i] + p[:, i + 1]
            mass2 = pair[:, 0] ** 2 - (pair[:, 1:] ** 2).sum(axis=1)
            kept &= (mass2 > self._pair[0]) & (mass2 < self._pair[1])
        return kept

    def _luminosity(self, points: Points) -> np.ndarray:
        """d sigma / (ds dy dPhi_4) [fb GeV^-2] by (quark or antiquark from the first beam, flavour): (2, 5, n)."""
        root = np.sqrt(points.s)
        half = root / 2
        partons = np.zeros((2, len(points), 4))
        partons[:, :, 0] = half
        partons[0, :, 3], partons[1, :, 3] = half, -half
        tau = root / self.cuts.beam_energy
        scale = np.full(len(points), self.cuts.scale)
        first, second = (self.pdfs(tau * np.exp(sign * points.rapidity), scale) for sign in (1, -1))
        n = len(QUARKS)
        flux = FB_PER_INVERSE_GEV2 / (2 * points.s**2)
        result = np.empty((2, n, len(points)))
        for direction, (quarks, antiquarks) in enumerate(((first[:n], second[n:]), (first[n:], second[:n]))):
            legs = np.concatenate(
                [np.stack([partons[direction], partons[1 - direction]], axis=1), points.leptons], axis=1
            )
            squared = matrix_element_squared(legs, self.inputs)
            result[direction] = quarks * antiquarks * squared[:, _TYPE].T * flux
        return result

    def weights(self, n: int, rng: np.random.Generator) -> tuple[Points, np.ndarray, np.ndarray]:
        """``n`` tries: the points within the cuts, the weights [fb] of all tries, and the kept ones' flavour parts."""
        points = self.space.draw(n, self.shares, rng)
        kept = self._passes(points)
        points = points.take(kept)
        parts = self._luminosity(points) / (self.shares @ self.space.densities(points))
        weights = np.zeros(n)
        weights[kept] = parts.sum(axis=(0, 1))
        return points, weights, parts


class Unweighter:
    """Unweighted events of a `HardProcess`, with the cross section that its tries measure."""

    def __init__(self, process: HardProcess, rng: np.random.Generator) -> None:
        self.process, self.rng = process, rng
        self.tries, self._sum, self._sum2, self._overweight = 0, 0.0, 0.0, 0.0

    def events(self, n: int) -> HardEvents:
        """Exactly ``n`` events. A weight above the largest counts as the largest (`overweight` tells how much)."""
        parts = [self._batch()]
        while sum(map(len, parts)) < n:
            parts.append(self._batch())
        return HardEvents.concatenate(parts).take(np.arange(n))

    def _batch(self) -> HardEvents:
        process, rng = self.process, self.rng
        points, weights, parts = process.weights(_BATCH, rng)
        self.tries += _BATCH
        self._sum += weights.sum()
        self._sum2 += (weights**2).sum()
        self._overweight += np.maximum(weights - process.largest, 0.0).sum()
        kept = weights[weights > 0]
        chosen = np.flatnonzero(rng.random(len(kept)) * process.largest < kept)
        return self._flavoured(points.take(chosen), parts[:, :, chosen])

    def _flavoured(self, points: Points, parts: np.ndarray) -> HardEvents:
        """Choose quark flavour and direction by their share of the weight, turn and boost to the laboratory."""
        n = len(points)
        shares = np.cumsum(parts.reshape(-1, n), axis=0)
        choice = (self.rng.random(n) * shares[-1] > shares).sum(axis=0)
        direction, flavour = np.divmod(choice, len(QUARKS))
        quark = np.array(QUARKS)[flavour] * np.where(direction == 0, 1, -1)
        root, y = np.sqrt(points.s), points.rapidity
        tau = root / self.process.cuts.beam_energy
        lab = points.leptons.copy()
        cosh, sinh = np.cosh(y)[:, None], np.sinh(y)[:, None]
        lab[..., 0] = cosh * points.leptons[..., 0] + sinh * points.leptons[..., 3]
        lab[..., 3] = cosh * points.leptons[..., 3] + sinh * points.leptons[..., 0]
        return HardEvents(quark, np.stack([tau * np.exp(y), tau * np.exp(-y)], axis=1), lab, root)

    @property
    def cross_section(self) -> tuple[float, float]:
        """Cross section and statistical error [fb] of all tries so far."""
        mean = float(self._sum / self.tries)
        return mean, float(np.sqrt(max(self._sum2 / self.tries - mean**2, 0.0) / self.tries))

    @property
    def overweight(self) -> float:
        """Share of the cross section cut off by the largest weight."""
        return float(self._overweight / self._sum)


hard_process = cache(HardProcess)
"""The process set up for these cuts, once in each worker."""
