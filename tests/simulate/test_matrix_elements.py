"""Our own hard processes: the closed form against the Dirac algebra, and what Pythia makes of it."""

from __future__ import annotations

from dataclasses import replace

import awkward as ak
import numpy as np
import pytest

from raypipe.simulate import processes
from raypipe.simulate.generator import Generator, qg_to_top_higgs

M_TOP, M_H = 172.5, 125.0
_PAULI = np.array([[[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]])
_ZERO, _ONE = np.zeros((2, 2)), np.eye(2)
GAMMA = np.array(
    [np.block([[_ZERO, _ONE], [_ONE, _ZERO]]), *(np.block([[_ZERO, p], [-p, _ZERO]]) for p in _PAULI)]
)  # chiral basis
METRIC = np.diag([1.0, -1, -1, -1])
LEFT = np.diag([1.0, 1, 0, 0])


def slash(p):
    return np.einsum("m,mij->ij", METRIC @ p, GAMMA)


def amplitude(quark, gluon, top):
    """The Dirac matrices A^mu of q(p1) g(p2) -> t(p3) H with the vertex P_L: s-channel quark plus u-channel top."""
    both, exchanged = quark + gluon, top - gluon
    s, virtual = both @ METRIC @ both, exchanged @ METRIC @ exchanged - M_TOP**2
    propagator = (slash(exchanged) + M_TOP * np.eye(4)) / virtual
    return np.array([LEFT @ slash(both) / s @ g + g @ propagator @ LEFT for g in GAMMA])


def squared(quark, gluon, top):
    """Sum over spins and polarisations of |u(p3) A^mu eps_mu u(p1)|^2, with -g for the polarisations."""
    a = amplitude(quark, gluon, top)
    bar = np.array([GAMMA[0] @ m.conj().T @ GAMMA[0] for m in a])
    left, right = slash(top) + M_TOP * np.eye(4), slash(quark)
    return -sum(METRIC[m, m] * np.trace(left @ a[m] @ right @ bar[m]) for m in range(4)).real


def point(energy, cosine):
    """q, g, t in the rest frame: energy [GeV] of the system and the angle of the top quark to the quark."""
    beam = energy / 2
    quark, gluon = np.array([beam, 0, 0, beam]), np.array([beam, 0, 0, -beam])
    e_top = (energy**2 + M_TOP**2 - M_H**2) / (2 * energy)
    p = np.sqrt(e_top**2 - M_TOP**2)
    return quark, gluon, np.array([e_top, p * np.sqrt(1 - cosine**2), 0, p * cosine])


POINTS = [point(e, c) for e in (300, 400, 700, 2000) for c in (-0.95, -0.3, 0.2, 0.9)]


def test_closed_form_is_the_sum_of_the_diagrams():
    ratios = []
    for quark, gluon, top in POINTS:
        s, u = 2 * quark @ METRIC @ gluon, M_TOP**2 - 2 * gluon @ METRIC @ top
        ratios.append(squared(quark, gluon, top) / qg_to_top_higgs(s, u, M_H**2, M_TOP**2))
    assert np.array(ratios) == pytest.approx(ratios[0], rel=1e-9)
    assert ratios[0] > 0


def test_the_diagrams_are_gauge_invariant():
    for quark, gluon, top in POINTS:
        a = np.einsum("m,mij->ij", METRIC @ gluon, amplitude(quark, gluon, top))
        size = np.abs(amplitude(quark, gluon, top)).max() * gluon[0]
        assert np.abs((slash(top) + M_TOP * np.eye(4)) @ a @ slash(quark)).max() < 1e-9 * size * M_TOP * gluon[0]


def test_pythia_samples_it():
    """Angle of the Higgs boson to the gluon in the rest frame of hard u g -> t H, against the weights themselves."""
    angles, energies, tops = [], [], []
    # Scales that do not depend on the angle; hadrons do not matter here.
    plain = ("SigmaProcess:renormScale2=6", "SigmaProcess:factorScale2=6", "HadronLevel:all=off")
    process = processes.get("fcnc_th_u")
    for batch in Generator(replace(process, settings=(*process.settings, *plain)), 4).batches(600):
        p = batch.prt
        incoming, hard = p[p.status == -21], p[(abs(p.status) == 22) & ((abs(p.id) == 6) | (p.id == 25))]
        assert set(ak.to_numpy(abs(incoming.id)).ravel().tolist()) == {2, 21}
        higgs = hard[:, 0]
        assert (ak.to_numpy(higgs.id) == 25).all()
        energy, pz = ak.sum(incoming.p.e, axis=1), ak.sum(incoming.p.pz, axis=1)
        mass = np.sqrt(energy**2 - pz**2)
        gamma, beta = energy / mass, pz / energy
        boosted = gamma * (higgs.p.pz - beta * higgs.p.e)
        momentum = np.sqrt(higgs.p.px**2 + higgs.p.py**2 + boosted**2)
        gluon_side = np.sign(ak.to_numpy(incoming[incoming.id == 21].p.pz[:, 0]))
        angles.append(ak.to_numpy(boosted / momentum) * gluon_side)
        energies.append(ak.to_numpy(mass))
        tops.append(ak.to_numpy(hard[:, 1].m))  # a Breit-Wigner: few are at 172.5 GeV exactly
    angle, energy, top = np.concatenate(angles), np.concatenate(energies), np.concatenate(tops)
    # At each event's energy the matrix element predicts the mean angle: the sum of the deviations is zero.
    grid, s, m2 = np.linspace(-0.999, 0.999, 201), energy[:, None] ** 2, top[:, None] ** 2
    e_top = (s + m2 - M_H**2) / (2 * energy[:, None])
    # The Higgs boson at an angle to the gluon: the top quark at minus that.
    u = m2 - energy[:, None] * (e_top + np.sqrt(e_top**2 - m2) * grid)
    weight = qg_to_top_higgs(s, u, M_H**2, m2)
    weight /= weight.sum(axis=1, keepdims=True)
    mean = weight @ grid
    variance = np.sum(weight * (grid - mean[:, None]) ** 2)
    deviation = np.sum(angle - mean)
    assert abs(deviation) < 4 * np.sqrt(variance)
    assert abs(np.sum(angle)) > 6 * np.sqrt(variance)  # and it is far from symmetric
