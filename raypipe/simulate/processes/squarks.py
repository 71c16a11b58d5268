"""R-parity-conserving sbottom and stop pairs (groups -5 and -8).

Two neutralinos of one mass stand for the two ways in which the paper's chi2^0 decays: the squark always goes to N2,
the antisquark to N3, so that exactly one leg has the H -> yy.
"""

from __future__ import annotations

from raypipe.simulate.processes.base import HIGGS, ISOTROPIC, LEADING_ORDER, ONE_YY, Process
from raypipe.simulate.slha import N1, N2, N3, SBOTTOM, SM_HIGGS, STOP, Decay, H, spectrum


def _pair(squark: int, quark: int, point: tuple[float, float, float], other: Decay, **entry) -> Process:
    """Pairs of ``squark`` of mass ``point`` (squark, chi2^0, chi1^0); N3 decays as ``other`` says."""
    heavy, middle, light = point
    decays = {
        squark: (1.0, [(0.5, (N2, quark)), (0.5, (N3, quark))]), N2: (0.01, [(1.0, (N1, 25))]), N3: other,
        N1: (0.0, []), H: SM_HIGGS,
    }  # fmt: skip
    return Process(
        slha=spectrum({squark: heavy, N2: middle, N3: middle, N1: light, H: 125.0}, decays),
        settings=("SUSY:gg2squarkantisquark=on", "SUSY:qqbar2squarkantisquark=on", f"SUSY:idA={squark}", *HIGGS),
        after_init=(
            f"{squark}:onMode=off", f"{squark}:onPosIfMatch={quark} {N2}", f"{squark}:onNegIfMatch={quark} {N3}"
        ),
        **entry,
    )  # fmt: skip


def _sbottom(heavy: float, middle: float, light: float, number: int, efficiency: float) -> Process:
    """sb sb* -> (b chi2^0)(b chi2^0), chi2^0 -> H chi1^0 on both sides (C: group -5)."""
    return _pair(
        SBOTTOM, 5, (heavy, middle, light), (0.01, [(1.0, (N1, H))]), name=f"sbottom_{heavy:g}", number=number,
        group=-5, title=f"sbottom -> b H chi, {heavy:g}/{middle:g}/{light:g} GeV", efficiency=efficiency,
        masses=(("sbottom", heavy), ("chi2^0", middle), ("chi1^0", light)),
        approximations=(LEADING_ORDER, ISOTROPIC, ONE_YY),
    )  # fmt: skip


def _stop(heavy: float, middle: float, light: float, number: int, efficiency: float) -> Process:
    """st st* -> (t chi2^0)(t chi2^0), one chi2^0 -> H chi1^0, the other Z chi1^0 (C: group -8; arXiv:2006.05880)."""
    return _pair(
        STOP, 6, (heavy, middle, light), (0.01, [(1.0, (N1, 23))]), name=f"stop_{heavy:g}", number=number,
        group=-8, title=f"stop -> t H chi, t Z chi, {heavy:g}/{middle:g}/{light:g} GeV", efficiency=efficiency,
        masses=(("stop", heavy), ("chi2^0", middle), ("chi1^0", light)), approximations=(LEADING_ORDER, ISOTROPIC),
    )  # fmt: skip


ENTRIES = (
    _sbottom(500, 180, 50, 50, 0.341), _sbottom(1000, 205, 60, 51, 0.382), _sbottom(1200, 205, 60, 52, 0.374),
    _stop(1000, 400, 0.5, 80, 0.339),
)  # fmt: skip
