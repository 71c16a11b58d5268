"""Points of the phase space of p p -> e- e+ mu- mu+ drawn from a mixture of channels, with their density.

Two kinds of channels follow the peaks of |M|^2. *Double*: both pair masses from a Z resonance or a photon pole, the
total mass falling above their threshold, the pair's polar angle peaked along the beams. *Single*: the total mass from
the Z resonance, one lepton emitted first, then its partner, then the other pair from a photon pole. The density of a
point is that of the whole mixture (R. Kleiss, R. Pittau, hep-ph/9405257), so any mixture integrates correctly and a
good one has nearly constant weights.
"""

from dataclasses import dataclass
from math import pi

import numpy as np

from raypipe.events.fields import Rows

DOUBLE = (("z", "z"), ("z", "photon"), ("photon", "z"), ("photon", "photon"))
"""Shapes of the masses of (ee, mumu) in the double channels."""
SINGLE = ((0, 1, 2), (1, 0, 2), (2, 3, 0), (3, 2, 0))
"""(first lepton emitted, its partner, first leg of the other pair) among e-, e+, mu-, mu+."""
N_CHANNELS = len(DOUBLE) + len(SINGLE)

_TOTAL_POWER = 2.0  # The total mass squared s falls as s^-power in the double channels


@dataclass(frozen=True)
class Points(Rows):
    """n points in the frame of the four leptons, partons along z: (n, 4, 4) (E, px, py, pz) of e-, e+, mu-, mu+.

    ``s``: total mass squared; ``rapidity`` of the four-lepton system in the laboratory.
    """

    leptons: np.ndarray
    s: np.ndarray
    rapidity: np.ndarray


class _Power:
    """x^-a between two positive limits."""

    def __init__(self, power: float) -> None:
        self.power = power

    def _primitive(self, x: np.ndarray) -> np.ndarray:
        return np.log(x) if self.power == 1 else x ** (1 - self.power) / (1 - self.power)

    def draw(self, u: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        a, b = self._primitive(low), self._primitive(high)
        value = a + u * (b - a)
        return np.exp(value) if self.power == 1 else ((1 - self.power) * value) ** (1 / (1 - self.power))

    def density(self, x: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        norm = self._primitive(high) - self._primitive(low)
        inside = (x >= low) & (x <= high) & (norm > 0)
        return np.divide(x**-self.power, norm, out=np.zeros(np.shape(x)), where=inside)


class _Resonance:
    """Breit-Wigner in a mass squared, 1 / ((x - m^2)^2 + m^2 width^2), between two limits."""

    def __init__(self, mass: float, width: float) -> None:
        self.m2, self.mw = mass**2, mass * width

    def _primitive(self, x: np.ndarray) -> np.ndarray:
        return np.arctan((x - self.m2) / self.mw) / self.mw

    def draw(self, u: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        a, b = self._primitive(low), self._primitive(high)
        return np.clip(self.m2 + self.mw * np.tan(self.mw * (a + u * (b - a))), low, high)

    def density(self, x: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        norm = self._primitive(high) - self._primitive(low)
        inside = (x >= low) & (x <= high) & (norm > 0)
        return np.divide(1 / ((x - self.m2) ** 2 + self.mw**2), norm, out=np.zeros(np.shape(x)), where=inside)


class PhaseSpace:
    """The mixture of channels, and where points are drawn, GeV.

    ``beam_energy``: of both protons. ``min_pair``, ``min_total``: smallest mass of each pair and of the four leptons.
    ``max_eta``: largest |rapidity| of the four-lepton system: that of its most forward lepton. ``z``: mass and width.
    """

    def __init__(
        self, beam_energy: float, min_pair: float, min_total: float, max_eta: float, z: tuple[float, float]
    ) -> None:
        self.s_max, self.s_pair, self.s_total, self.max_eta = beam_energy**2, min_pair**2, min_total**2, max_eta
        self._photon, self._total = _Power(1.0), _Power(_TOTAL_POWER)
        self._z = _Resonance(*z)
        self._pair = {"z": self._z, "photon": self._photon}

    def draw(self, n: int, shares: np.ndarray, rng: np.random.Generator) -> Points:
        """``n`` points from the mixture with these ``shares`` of the `N_CHANNELS` channels, in random order."""
        counts = rng.multinomial(n, shares)
        drawn = [self._draw(channel, count, rng) for channel, count in enumerate(counts) if count]
        order = rng.permutation(n)
        s = np.concatenate([part[1] for part in drawn])[order]
        reach = self._reach(s)
        return Points(np.concatenate([part[0] for part in drawn])[order], s, reach * (2 * rng.random(n) - 1))

    def _reach(self, s: np.ndarray) -> np.ndarray:
        """Largest |rapidity| at this mass."""
        return np.minimum(0.5 * np.log(self.s_max / s), self.max_eta)

    def _draw(self, channel: int, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Lepton momenta and total mass squared of one channel."""
        u = rng.random((n, 10)).T
        low, s_max = np.full(n, self.s_pair), np.full(n, self.s_max)
        leptons = np.empty((n, 4, 4))
        if channel < len(DOUBLE):
            shapes = [self._pair[name] for name in DOUBLE[channel]]
            s_ee, s_mm = (shape.draw(u[i], low, s_max / 4) for i, shape in enumerate(shapes))
            s = self._total.draw(u[2], self._threshold(s_ee, s_mm), s_max)
            cosine = _draw_cosine(u[3], u[9], _steepness(s, s_ee, s_mm))
            first, second = _two_body(_at_rest(s), s_ee, s_mm, cosine, u[4])
            zero = np.zeros(n)
            leptons[:, 0], leptons[:, 1] = _two_body(first, zero, zero, 2 * u[5] - 1, u[6])
            leptons[:, 2], leptons[:, 3] = _two_body(second, zero, zero, 2 * u[7] - 1, u[8])
            return leptons, s
        a, b, c = SINGLE[channel - len(DOUBLE)]
        zero = np.zeros(n)
        s = self._z.draw(u[0], np.full(n, self.s_total), s_max)
        s_cd = self._photon.draw(u[1], low, s)
        s_bcd = self._photon.draw(u[2], s_cd, s)
        leptons[:, a], rest = _two_body(_at_rest(s), zero, s_bcd, 2 * u[3] - 1, u[4])
        leptons[:, b], pair = _two_body(rest, zero, s_cd, 2 * u[5] - 1, u[6])
        leptons[:, c], leptons[:, c + 1] = _two_body(pair, zero, zero, 2 * u[7] - 1, u[8])
        return leptons, s

    def _threshold(self, s_ee: np.ndarray, s_mm: np.ndarray) -> np.ndarray:
        least = np.maximum((np.sqrt(s_ee) + np.sqrt(s_mm)) ** 2, self.s_total)
        return np.minimum(least, 0.999 * self.s_max)

    def densities(self, points: Points) -> np.ndarray:
        """Density of each channel in ds dy dPhi_4 (with its factors 2 pi), (channels, n); zero out of its reach."""
        s, p = points.s, points.leptons
        low, s_max = np.full(len(s), self.s_pair), np.full(len(s), self.s_max)
        s_ee, s_mm = _mass2(p[:, 0] + p[:, 1]), _mass2(p[:, 2] + p[:, 3])
        result = np.zeros((N_CHANNELS, len(s)))
        velocity = _velocity(s, s_ee, s_mm)
        volume = velocity / (8 * pi) / (8 * pi) ** 2 / (2 * pi) ** 2
        pair = p[:, 0] + p[:, 1]
        momentum = np.sqrt(np.maximum(np.einsum("ni,ni->n", pair[:, 1:], pair[:, 1:]), 1e-30))
        angular = 2 * _cosine_density(pair[:, 3] / momentum, _steepness(s, s_ee, s_mm))
        total = self._total.density(s, self._threshold(s_ee, s_mm), s_max)
        masses = {name: [shape.density(x, low, s_max / 4) for x in (s_ee, s_mm)] for name, shape in self._pair.items()}
        for number, (ee, mm) in enumerate(DOUBLE):
            result[number] = masses[ee][0] * masses[mm][1] * total * angular / volume
        resonance = self._z.density(s, np.full(len(s), self.s_total), s_max)
        for number, (_, b, c) in enumerate(SINGLE):
            s_cd = s_mm if c == 2 else s_ee
            s_bcd = _mass2(p[:, b] + p[:, c] + p[:, c + 1])
            volume = (1 - s_bcd / s) * (1 - s_cd / s_bcd) / (8 * pi) ** 3 / (2 * pi) ** 2
            shape = self._photon.density(s_cd, low, s) * self._photon.density(s_bcd, s_cd, s)
            result[len(DOUBLE) + number] = resonance * shape / np.maximum(volume, 1e-300)
        return result / (2 * self._reach(s))


def _mass2(p: np.ndarray) -> np.ndarray:
    return np.maximum(p[:, 0] ** 2 - np.einsum("ni,ni->n", p[:, 1:], p[:, 1:]), 0.0)


def _at_rest(s: np.ndarray) -> np.ndarray:
    p = np.zeros((len(s), 4))
    p[:, 0] = np.sqrt(s)
    return p


def _velocity(s: np.ndarray, s1: np.ndarray, s2: np.ndarray) -> np.ndarray:
    """2 |p| / sqrt(s) of a two-body decay."""
    return np.sqrt(np.maximum((s - s1 - s2) ** 2 - 4 * s1 * s2, 1e-30)) / s


def _steepness(s: np.ndarray, s1: np.ndarray, s2: np.ndarray) -> np.ndarray:
    """A such that the t channel goes as 1 / (A - cos theta)."""
    return np.maximum((s - s1 - s2) / (s * _velocity(s, s1, s2)), 1 + 1e-9)


def _draw_cosine(u: np.ndarray, side: np.ndarray, a: np.ndarray) -> np.ndarray:
    cosine = a - (a + 1) * ((a - 1) / (a + 1)) ** u
    return np.clip(np.where(side < 0.5, cosine, -cosine), -1.0, 1.0)


def _cosine_density(cosine: np.ndarray, a: np.ndarray) -> np.ndarray:
    """Density in cos theta, t and u channel in equal shares."""
    return a / (a**2 - cosine**2) / np.log((a + 1) / (a - 1))


def _two_body(
    parent: np.ndarray, s1: np.ndarray, s2: np.ndarray, cosine: np.ndarray, turn: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Decay of ``parent`` (n, 4) into mass squares ``s1``, ``s2`` at a polar angle and azimuth (in turns)."""
    s = _mass2(parent)
    root = np.sqrt(s)
    energy = (s + s1 - s2) / (2 * root)
    momentum = _velocity(s, s1, s2) * root / 2
    sine, phi = np.sqrt(np.maximum(1 - cosine**2, 0.0)), 2 * pi * turn
    rest = np.stack([momentum * sine * np.cos(phi), momentum * sine * np.sin(phi), momentum * cosine], axis=1)
    # Boost from the parent's rest frame.
    along = np.einsum("ni,ni->n", parent[:, 1:], rest)
    first = np.empty_like(parent)
    first[:, 0] = (parent[:, 0] * energy + along) / root
    factor = (energy + first[:, 0]) / (parent[:, 0] + root)
    first[:, 1:] = rest + factor[:, None] * parent[:, 1:]
    return first, parent - first
