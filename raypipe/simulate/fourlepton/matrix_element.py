"""Tree-level |M|^2 of q qbar -> e- e+ mu- mu+ with all photon and Z diagrams and their interference.

Three massless fermion lines (quark, electron, muon) are joined by two vector bosons. On each line X the currents of
the other two, Y and Z, attach in either order: six topologies, two of them double-resonant (X the quark line) and four
single-resonant (X a lepton line; they make the Z -> 4l peak), each with a photon or a Z in both propagators. With
spinor products, all momenta outgoing and left-handed lines f -> f', y -> y', z -> z' (L. Dixon, hep-ph/9601359, for
the notation), a topology is::

    T = 4 <f y> [y'| k |z> [z' f'] / k^2,    k = p_f + p_y + p_y'

because <y|gamma^mu|y'] gamma_mu = 2 (|y>[y'| + |y']<y|). A right-handed current is a left-handed one with its ends
exchanged; a right-handed line X takes a minus sign as well, since exchanging its ends reverses k. The Z has a fixed
width. The amplitude is a sum over topologies of T c_XY(s_Y) c_XZ(s_Z), with c the product of couplings and propagator.
"""

from dataclasses import dataclass
from functools import cache
from itertools import product
from math import pi, sqrt

import numpy as np

INCOMING = (-1.0, -1.0, 1.0, 1.0, 1.0, 1.0)
"""Sign that makes each leg's momentum outgoing; legs: quark, antiquark, e-, e+, mu-, mu+."""

LINES = ((1, 0), (2, 3), (4, 5))  # (fermion, antifermion) legs of the quark, electron and muon line, as if outgoing

UP, DOWN = 0, 1  # Columns of `matrix_element_squared`: up-type and down-type quarks


@dataclass(frozen=True)
class Electroweak:
    """Electroweak inputs of Pythia 8 (alphaEMmZ, sin2thetaW), to compare with it; the Z in GeV (PDG)."""

    alpha: float = 0.00781751
    sin2_theta: float = 0.2312
    m_z: float = 91.1876
    width_z: float = 2.4952

    def coupling(self, charge: float, isospin: float, right: bool) -> tuple[float, float]:
        """Couplings of a fermion to the photon and the Z, in units of e."""
        sin, cos = sqrt(self.sin2_theta), sqrt(1 - self.sin2_theta)
        return charge, ((0.0 if right else isospin) - charge * self.sin2_theta) / (sin * cos)


FERMIONS = {"up": (2 / 3, 0.5), "down": (-1 / 3, -0.5), "lepton": (-1.0, -0.5)}  # Charge and weak isospin


CHUNK = 2048  # Events computed at a time, so that the intermediate arrays stay in the processor's cache


def spinor_products(momenta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """<ij> and [ij] (6, 6, n) of massless physical momenta (n, 6, 4), (E, px, py, pz); <ij>[ji] = 2 p_i.p_j."""
    energy, px, py, pz = np.moveaxis(momenta, 2, 0)
    # The reference axis is x: along the beam axis the incoming partons would be singular.
    root = np.sqrt(np.maximum(energy + px, 1e-30))
    first, second = root.T, ((py + 1j * pz) / root).T
    angle = first[:, None] * second[None, :] - second[:, None] * first[None, :]
    return angle, -np.conj(angle)


def matrix_element_squared(momenta: np.ndarray, inputs: Electroweak | None = None) -> np.ndarray:
    """|M|^2 (n, 2) for up- and down-type quarks, averaged over the initial state's spins and colours, GeV^-4.

    Momenta (n, 6, 4), (E, px, py, pz): massless quark, antiquark, e-, e+, mu-, mu+.
    """
    inputs = inputs or Electroweak()
    parts = [_squared(momenta[start : start + CHUNK], inputs) for start in range(0, len(momenta), CHUNK)]
    # (4 pi alpha)^4 from the couplings, 4^2 from T, 1/4 x 1/3 from the averages over spins and colours.
    return (4 * pi * inputs.alpha) ** 4 * 16 / 12 * np.concatenate(parts, axis=0)


def _squared(momenta: np.ndarray, inputs: Electroweak) -> np.ndarray:
    """Sum over helicities of |sum of T / 4 x couplings x propagators|^2, (n, 2)."""
    angle, square = spinor_products(momenta)
    invariant = np.real(angle * np.swapaxes(square, 0, 1))
    mass2 = np.stack([invariant[line] for line in LINES])
    photon, z = 1 / mass2, 1 / (mass2 - inputs.m_z**2 + 1j * inputs.m_z * inputs.width_z)

    @cache
    def joined(y: int, name_x: str, name_y: str, right_x: bool, right_y: bool) -> np.ndarray:
        """Couplings of two lines to photon and Z, with the propagators at the mass of the second line."""
        a, b = inputs.coupling(*FERMIONS[name_x], right_x), inputs.coupling(*FERMIONS[name_y], right_y)
        return a[0] * b[0] * photon[y] + a[1] * b[1] * z[y]

    total = np.zeros((len(momenta), 2))
    for flipped in product((False, True), repeat=2):
        right = (False, *flipped)
        topologies = [_line(line, right, angle, square, invariant) for line in range(3)]
        # The parity-flipped configuration has the complex conjugate topologies.
        for helicities, values in (
            (right, topologies),
            (tuple(not h for h in right), [np.conj(t) for t in topologies]),
        ):
            for column, quark in enumerate(("up", "down")):
                names = (quark, "lepton", "lepton")
                amplitude = sum(
                    values[x]
                    * joined(y, names[x], names[y], helicities[x], helicities[y])
                    * joined(w, names[x], names[w], helicities[x], helicities[w])
                    for x, y, w in ((0, 1, 2), (1, 0, 2), (2, 0, 1))
                )
                total[:, column] += amplitude.real**2 + amplitude.imag**2
    return total


def _line(x: int, right: tuple[bool, ...], angle: np.ndarray, square: np.ndarray, invariant: np.ndarray) -> np.ndarray:
    """T / 4 of both orders in which the currents of the other two lines attach to line ``x``."""
    y, z = (i for i in range(3) if i != x)
    ends = [LINES[i][::-1] if right[i] else LINES[i] for i in range(3)]
    f, f_bar = ends[x]
    result = 0.0
    for (c, c_bar), (d, d_bar) in ((ends[y], ends[z]), (ends[z], ends[y])):
        sf, sc = INCOMING[f], INCOMING[c]
        k2 = sf * sc * (invariant[f, c] + invariant[f, c_bar]) + invariant[c, c_bar]
        chain = sf * square[c_bar, f] * angle[f, d] + sc * square[c_bar, c] * angle[c, d]
        result = result + angle[f, c] * chain * square[d_bar, f_bar] / k2
    return -result if right[x] else result
