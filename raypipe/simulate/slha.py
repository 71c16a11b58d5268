"""SUSY Les Houches Accord spectra (hep-ph/0311123) with hand-set masses and decays, everything else at 4 TeV.

The lightest neutralino is the bino, the second the wino (so that q qbar' -> chi1+- chi2^0 goes through the full W
coupling), the two heaviest are higgsinos.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt

DECOUPLED = 4000.0
"""GeV, mass of every particle a model does not use."""

N1, N2, N3, C1 = 1000022, 1000023, 1000025, 1000024
"""PDG ids of the three lightest neutralinos and the lightest chargino."""

SBOTTOM, STOP = 1000005, 1000006
"""PDG ids of the lighter sbottom and stop."""

H = 35
"""PDG id of Pythia's second CP-even Higgs boson, used as a copy of H(125) with decays of its own."""

Decay = tuple[float, Sequence[tuple[float, Sequence[int]]]]
"""A width [GeV] and the channels (branching ratio, PDG ids of the products)."""

_PRODUCTS = ((5, -5), (24, -24), (21, 21), (15, -15), (4, -4), (23, 23), (22, 22), (22, 23), (3, -3))
_RATIOS = (0.5824, 0.2137, 0.08187, 0.06272, 0.02891, 0.02619, 0.00227, 0.00153, 0.00041)
SM_HIGGS: Decay = (0.00407, list(zip(_RATIOS, _PRODUCTS, strict=True)))
"""Decays of an inclusive H(125) (LHC Higgs WG, YR4, arXiv:1610.07922; s sbar takes what is left of one)."""

_UNUSED = (
    *(*range(1000001, 1000007), *range(1000011, 1000017), *range(2000001, 2000007), 2000011, 2000013, 2000015),
    *(1000021, N1, N2, C1, N3, 1000035, 1000037, 35, 36, 37),
)


def spectrum(masses: Mapping[int, float], decays: Mapping[int, Decay]) -> str:
    """The text of an SLHA file with ``masses`` [GeV] by PDG id and ``decays``; unlisted sparticles are decoupled."""
    table = {25: 125.0, **dict.fromkeys(_UNUSED, DECOUPLED), **masses}
    half = 1 / sqrt(2)
    blocks = [
        _block("SPINFO", ["1 raypipe", "2 1"]),
        _block("MODSEL", ["1 0"]),
        _block("SMINPUTS", ["1 1.27934e2", "2 1.16637e-5", "3 0.1184", "4 91.1876", "5 4.18", "6 172.5", "7 1.777"]),
        _block("MINPAR", ["3 10."]),
        _block("MASS", [f"{pdg} {mass:.6e}" for pdg, mass in table.items()]),
        _block("NMIX", _matrix([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, half, half], [0, 0, -half, half]])),
        *(_block(name, _matrix([[1, 0], [0, 1]])) for name in ("UMIX", "VMIX", "STOPMIX", "SBOTMIX", "STAUMIX")),
        _block("ALPHA", ["-0.1"]),
        _block("HMIX Q= 1000.", ["1 1000.", "2 10.", "3 246.", "4 1.6e7"]),
        _block("GAUGE Q= 1000.", ["1 0.36", "2 0.65", "3 1.06"]),
        *(_block(f"{name} Q= 1000.", ["3 3 0."]) for name in ("AU", "AD", "AE")),
        *(_block(f"{name} Q= 1000.", [f"3 3 {value}"]) for name, value in (("YU", 0.86), ("YD", 0.13), ("YE", 0.1))),
        *(_decay(pdg, *decay) for pdg, decay in decays.items()),
    ]
    return "".join(blocks)


def _block(name: str, lines: Sequence[str]) -> str:
    return f"BLOCK {name}\n" + "".join(f"  {line}\n" for line in lines)


def _matrix(rows: Sequence[Sequence[float]]) -> list[str]:
    return [f"{i} {j} {value:.8e}" for i, row in enumerate(rows, 1) for j, value in enumerate(row, 1)]


def _decay(pdg: int, width: float, channels: Sequence[tuple[float, Sequence[int]]]) -> str:
    lines = [f"  {ratio:.6e} {len(ids)} {' '.join(map(str, ids))}\n" for ratio, ids in channels]
    return f"DECAY {pdg} {width:.6e}\n" + "".join(lines)
