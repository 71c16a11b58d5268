"""R-parity-conserving sbottom and stop pairs (groups -5 and -8).

Two neutralinos of one mass stand for the two ways in which the paper's chi2^0 decays: the squark always goes to N2,
the antisquark to N3, so that exactly one leg has the H -> yy.
"""

from __future__ import annotations

from typing import Any

from raypipe.simulate.processes.base import HIGGS, ISOTROPIC, LEADING_ORDER, ONE_YY, Process, pythia
from raypipe.simulate.slha import N1, N2, N3, SBOTTOM, SM_HIGGS, STOP, Decay, H, spectrum


def _pair(squark: int, quark: int, point: tuple[float, float, float], other: Decay) -> dict[str, Any]:
    """Pairs of ``squark`` of mass ``point`` (squark, chi2^0, chi1^0); N3 decays as ``other`` says."""
    heavy, middle, light = point
    decays = {squark: (1.0, [(0.5, (N2, quark)), (0.5, (N3, quark))]), N2: (0.01, [(1.0, (N1, 25))]), N3: other}
    decays |= {N1: (0.0, []), H: SM_HIGGS}
    switches = pythia(f"SUSY:gg2squarkantisquark=on; SUSY:qqbar2squarkantisquark=on; SUSY:idA={squark}")
    after = f"{squark}:onMode=off; {squark}:onPosIfMatch={quark} {N2}; {squark}:onNegIfMatch={quark} {N3}"
    return {
        "slha": spectrum({squark: heavy, N2: middle, N3: middle, N1: light, H: 125.0}, decays),
        "settings": (*switches, *HIGGS),
        "after_init": pythia(after),
        "masses": (("sbottom" if squark == SBOTTOM else "stop", heavy), ("chi2^0", middle), ("chi1^0", light)),
    }


def _sbottom(heavy: float, middle: float, light: float, number: int, efficiency: float) -> Process:
    """sb sb* -> (b chi2^0)(b chi2^0), chi2^0 -> H chi1^0 on both sides (C: group -5)."""
    pair = _pair(SBOTTOM, 5, (heavy, middle, light), (0.01, [(1.0, (N1, H))]))
    pair |= {"efficiency": efficiency, "approximations": (LEADING_ORDER, ISOTROPIC, ONE_YY)}
    title = f"sbottom -> b H chi, {heavy:g}/{middle:g}/{light:g} GeV"
    return Process(f"sbottom_{heavy:g}", number, -5, title, **pair)


def _stop(heavy: float, middle: float, light: float, number: int, efficiency: float) -> Process:
    """st st* -> (t chi2^0)(t chi2^0), one chi2^0 -> H chi1^0, the other Z chi1^0 (C: group -8; arXiv:2006.05880)."""
    pair = _pair(STOP, 6, (heavy, middle, light), (0.01, [(1.0, (N1, 23))]))
    pair |= {"efficiency": efficiency, "approximations": (LEADING_ORDER, ISOTROPIC)}
    title = f"stop -> t H chi, t Z chi, {heavy:g}/{middle:g}/{light:g} GeV"
    return Process(f"stop_{heavy:g}", number, -8, title, **pair)


ENTRIES = (
    *(_sbottom(500, 180, 50, 50, 0.341), _sbottom(1000, 205, 60, 51, 0.382), _sbottom(1200, 205, 60, 52, 0.374)),
    _stop(1000, 400, 0.5, 80, 0.339),
)
