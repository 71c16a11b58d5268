"""R-parity-conserving charginos and neutralinos (group -1)."""

from __future__ import annotations

from raypipe.simulate.processes.base import HIGGS, ISOTROPIC, LEADING_ORDER, Process, pythia
from raypipe.simulate.slha import C1, N1, N2, spectrum

LSP = 0.5
"""GeV, mass of the lightest neutralino (the authors' cards)."""


def _wn(mass: float, number: int, efficiency: float) -> Process:
    """chi1+- chi2^0 -> (W chi1^0)(H chi1^0), both of ``mass``, with a chi1^0 of 0.5 GeV (A: "SUSY150"; C: group -1)."""
    decays = {N2: (0.1, [(1.0, (N1, 25))]), C1: (0.1, [(1.0, (N1, 24))]), N1: (0.0, [])}
    slha = spectrum({C1: mass, N2: mass, N1: LSP}, decays)
    switches = pythia(f"SUSY:qqbar2chi+-chi0=on; SUSY:idA={C1}; SUSY:idB={N2}")
    masses, about = (("chi1+-", mass), ("chi2^0", mass), ("chi1^0", LSP)), (LEADING_ORDER, ISOTROPIC)
    title = f"chi+- chi0 -> WH, {mass:g} GeV"
    return Process(f"wn_{mass:g}", number, -1, title, (*switches, *HIGGS), efficiency, masses, about, slha=slha)


ENTRIES = (_wn(150, 10, 0.342), _wn(200, 11, 0.362), _wn(300, 12, 0.404), _wn(600, 13, 0.461))
