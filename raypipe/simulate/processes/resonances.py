"""Heavy resonances that decay to a Higgs boson: X -> S H (group -2) and Z' -> H y (group -6)."""

from __future__ import annotations

from raypipe.simulate.processes.base import HIGGS, ISOTROPIC, LEADING_ORDER, Process, pythia

_S_DECAYS = {
    "bb": "36:onMode=off; 36:onIfMatch=5 -5",
    "ll": "36:addChannel=1 0.5 100 11 -11; 36:addChannel=1 0.5 100 13 -13; 36:onMode=off; 36:onIfMatch=11 -11;"
    "36:onIfMatch=13 -13",
}
"""Pythia settings of the decays of S; ll is e+e- and mu+mu- in equal parts."""


def _xsh(mass_x: float, mass_s: float, number: int, efficiency: float, decay: str = "bb") -> Process:
    """gg -> X -> S H (A and C: group -2); X is Pythia's H2 (35), S its A (36), both narrow.

    35 keeps its own channels, because they give its gg coupling: the new one is added and selected.
    """
    settings = pythia(f"""
        Higgs:useBSM=on; HiggsBSM:gg2H2=on
        35:m0={mass_x}; 35:mWidth=0.01; 35:doForceWidth=on; 35:mMin={mass_x - 2}; 35:mMax={mass_x + 2}
        35:addChannel=1 1.0 100 25 36; 35:onMode=off; 35:onIfMatch=25 36
        36:m0={mass_s}; 36:mWidth=0.01; 36:doForceWidth=on; 36:mMin={mass_s - 1}; 36:mMax={mass_s + 1}
        {_S_DECAYS[decay]}
    """)
    name, title = f"xsh_{mass_x:g}_{mass_s:g}", f"X -> SH, {mass_x:g}/{mass_s:g} GeV, S -> {decay}"
    masses, about = (("X", mass_x), ("S", mass_s)), (LEADING_ORDER, "X from a point coupling")
    return Process(name, number, -2, title, (*settings, *HIGGS), efficiency, masses, about)


def _zp(mass: float, number: int, efficiency: float) -> Process:
    """q qbar -> Z' -> H y, decay isotropic, relative width 4.2e-3 of a spin-2 carrier (C: group -6).

    The H is a copy (9000025): with 25, Pythia would impose its own decay angle. Pythia's Z' counts fermion channels
    only.
    """
    settings = pythia(f"""
        ExtraDimensionsG*:ffbar2G*=on; ExtraDimensionsG*:kappaMG=0.054
        5100039:m0={mass}; 5100039:mWidth={0.0042 * mass}; 5100039:doForceWidth=on
        5100039:mMin={0.9 * mass}; 5100039:mMax={1.1 * mass}
        9000025:all=Hcopy void 1 0 0 125. 0.00407 120. 130. 0.
        9000025:isResonance=on; 9000025:oneChannel=1 1.0 100 22 22
        5100039:addChannel=1 1.0 100 9000025 22; 5100039:onMode=off; 5100039:onIfMatch=9000025 22
    """)
    about = (LEADING_ORDER, ISOTROPIC, "relative width 0.42 % (the authors' card: 4.2 MeV), far below the resolution")
    title = f"Z' -> H y, {mass:g} GeV"
    return Process(f"zp_{mass:g}", number, -6, title, settings, efficiency, (("Z'", mass),), about)


ENTRIES = (
    _xsh(500, 100, 20, 0.446),
    _xsh(750, 100, 21, 0.517, "ll"),
    _zp(200, 60, 0.398),
    _zp(300, 61, 0.359),
    _zp(400, 62, 0.385),
    _zp(500, 63, 0.433),
)
