"""|M|^2 against a calculation with Dirac matrices, and its symmetries."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from raypipe.simulate.fourlepton import matrix_element as me
from tests.simulate.fourlepton.phase import boost, flat_points

PAULI = [np.array([[0, 1], [1, 0]]), np.array([[0, -1j], [1j, 0]]), np.array([[1, 0], [0, -1]])]
ZERO, ONE = np.zeros((2, 2)), np.eye(2)
GAMMA = [np.block([[ZERO, ONE], [ONE, ZERO]])] + [np.block([[ZERO, s], [-s, ZERO]]) for s in PAULI]
METRIC = np.array([1, -1, -1, -1])


def slash(p):
    return sum(METRIC[i] * p[i] * GAMMA[i] for i in range(4))


def spinor(p, right):
    """Chiral spinor of a massless momentum, by its polar angles."""
    theta, phi = np.arccos(p[3] / p[0]), np.arctan2(p[2], p[1])
    up = np.array([np.cos(theta / 2), np.exp(1j * phi) * np.sin(theta / 2)])
    down = np.array([-np.exp(-1j * phi) * np.sin(theta / 2), np.cos(theta / 2)])
    half = np.sqrt(2 * p[0]) * (up if right else down)
    return np.concatenate([np.zeros(2), half] if right else [half, np.zeros(2)])


def squared_by_matrices(p, quark, inputs):
    """The same sum of diagrams with explicit gamma matrices, currents and propagators."""
    total = 0.0
    names = (quark, "lepton", "lepton")
    outgoing = np.array(me.INCOMING)[:, None] * p
    for right in product((False, True), repeat=3):
        u = [spinor(p[leg], right[leg // 2]) for leg in range(6)]
        bar = [x.conj() @ GAMMA[0] for x in u]
        current = [np.array([bar[a] @ g @ u[b] for g in GAMMA]) for a, b in me.LINES]
        momentum = [outgoing[a] + outgoing[b] for a, b in me.LINES]
        couplings = [inputs.coupling(*me.FERMIONS[name], right[i]) for i, name in enumerate(names)]
        amplitude = 0.0
        for x in range(3):
            y, z = (i for i in range(3) if i != x)
            factor = 1.0
            for other in (y, z):
                s = momentum[other] ** 2 @ METRIC
                photon, weak = (couplings[x][i] * couplings[other][i] for i in (0, 1))
                factor = factor * (photon / s + weak / (s - inputs.m_z**2 + 1j * inputs.m_z * inputs.width_z))
            a, b = me.LINES[x]
            for c, d in ((y, z), (z, y)):
                k = outgoing[a] + momentum[c]
                chain = bar[a] @ slash(current[c]) @ slash(k) @ slash(current[d]) @ u[b]
                amplitude = amplitude + factor * chain / (k**2 @ METRIC)
        total += abs(amplitude) ** 2
    return (4 * np.pi * inputs.alpha) ** 4 * total / 12


@pytest.fixture(scope="module")
def points():
    return flat_points(3000, np.random.default_rng(1))


def test_equals_dirac_matrices(points):
    inputs = me.Electroweak()
    found = me.matrix_element_squared(points[:15])
    for i in range(15):
        expected = [squared_by_matrices(points[i], quark, inputs) for quark in ("up", "down")]
        assert found[i] == pytest.approx(expected, rel=1e-10)


def test_spinor_products_are_momenta(points):
    angle, square = me.spinor_products(points)
    dot = np.einsum("nia,a,nja->ijn", points, METRIC, points)
    assert np.real(angle * np.swapaxes(square, 0, 1)) == pytest.approx(2 * dot, rel=1e-8, abs=1e-6)


def test_lorentz_invariance(points):
    rng = np.random.default_rng(2)
    rotation, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    if np.linalg.det(rotation) < 0:  # a reflection also exchanges the helicities' couplings
        rotation[:, 0] *= -1
    turned = points.copy()
    turned[..., 1:] = points[..., 1:] @ rotation.T
    direction = rng.standard_normal((len(points), 3))
    velocity = 0.9 * rng.random((len(points), 1)) * direction / np.linalg.norm(direction, axis=1, keepdims=True)
    expected = me.matrix_element_squared(points)
    assert me.matrix_element_squared(turned) == pytest.approx(expected, rel=1e-8)
    assert me.matrix_element_squared(boost(points, velocity)) == pytest.approx(expected, rel=1e-6)


def test_symmetries(points):
    """Electrons and muons couple alike; charge conjugation of all lines together with parity is exact at tree level."""
    expected = me.matrix_element_squared(points)
    assert me.matrix_element_squared(points[:, [0, 1, 4, 5, 2, 3]]) == pytest.approx(expected, rel=1e-9)
    mirrored = points[:, [1, 0, 3, 2, 5, 4]] * np.array([1, -1, -1, -1])
    assert me.matrix_element_squared(mirrored) == pytest.approx(expected, rel=1e-9)
    turned = points[:, [0, 1, 3, 2, 5, 4]]  # charge conjugation of the leptons alone is not
    assert np.abs(me.matrix_element_squared(turned) / expected - 1).max() > 0.1


def test_z_resonance_in_the_four_lepton_mass(points):
    """Single-resonant diagrams make a Breit-Wigner peak: half of its height at m_Z +- width / 2."""
    inputs = me.Electroweak()

    def mean(root):
        # Four particles: |M|^2 scales as 1/s^2.
        return me.matrix_element_squared(points * (root / (2 * points[:, :1, :1]))).mean(axis=0) * root**4

    half = (mean(inputs.m_z - inputs.width_z / 2) + mean(inputs.m_z + inputs.width_z / 2)) / 2
    assert half / mean(inputs.m_z) == pytest.approx([0.5, 0.5], abs=0.03)
    assert (mean(inputs.m_z) > 15 * mean(inputs.m_z - 5)).all()
