"""R-parity-violating charginos and neutralinos with decays to a Higgs boson and a lepton (groups -3 and -4).

The paper's table calls group -3 "RPV stop"; the authors' generator card makes chargino pairs, which we follow
(model: arXiv:1601.03737, wino co-LSPs with bilinear violation).
"""

from __future__ import annotations

from raypipe.simulate.processes.base import HIGGS, ISOTROPIC, LEADING_ORDER, ONE_YY, Process
from raypipe.simulate.slha import C1, N2, SM_HIGGS, H, spectrum

LEPTONS = (11, 13, 15)


def _chargino_pair(mass: float, number: int, efficiency: float) -> Process:
    """chi1+ chi1- -> (H l+)(H l-), l = e, mu, tau one third each; the positive one's H goes to yy (C: group -3)."""
    channels = [(1 / 6, (higgs, -lepton)) for higgs in (25, H) for lepton in LEPTONS]
    slha = spectrum({C1: mass, H: 125.0}, {C1: (0.1, channels), H: SM_HIGGS})
    return Process(
        f"rpvchar_{mass:g}", number, -3, f"RPV chi+ chi- -> Hl Hl, {mass:g} GeV",
        ("SUSY:qqbar2chi+chi-=on", f"SUSY:idA={C1}", f"SUSY:idB={C1}", *HIGGS), efficiency, slha=slha,
        after_init=(
            f"{C1}:onMode=off", *(f"{C1}:onPosIfMatch=25 {lepton}" for lepton in LEPTONS),
            *(f"{C1}:onNegIfMatch={H} {lepton}" for lepton in LEPTONS),
        ),
        masses=(("chi1+-", mass),), approximations=(LEADING_ORDER, ISOTROPIC, ONE_YY),
    )  # fmt: skip


def _chargino_neutralino(mass: float, number: int, efficiency: float) -> Process:
    """chi1+- chi^0, both of ``mass``: chi1+- -> H l, chi^0 -> W l, Z nu or H nu, one third each (C: group -4).

    The chargino's H goes to yy. An event with two Higgs bosons has twice the chance of a yy, so that H nu has the
    weight two: 1/4, 1/4, 1/2. Which of the two bosons it is does not matter, as both parents have one mass.
    """
    channels = [
        *((1 / 24, (sign * 24, sign * lepton)) for sign in (1, -1) for lepton in LEPTONS),
        *((1 / 24, (23, sign * (lepton + 1))) for sign in (1, -1) for lepton in LEPTONS),
        *((1 / 12, (H, sign * (lepton + 1))) for sign in (1, -1) for lepton in LEPTONS),
    ]
    slha = spectrum(
        {C1: mass, N2: mass, H: 125.0},
        {C1: (0.1, [(1 / 3, (25, -lepton)) for lepton in LEPTONS]), N2: (0.1, channels), H: SM_HIGGS},
    )
    return Process(
        f"rpvneut_{mass:g}", number, -4, f"RPV chi+- chi0 -> Hl + Wl, Zv or Hv, {mass:g} GeV",
        ("SUSY:qqbar2chi+-chi0=on", f"SUSY:idA={C1}", f"SUSY:idB={N2}", *HIGGS), efficiency, slha=slha,
        masses=(("chi1+-", mass), ("chi1^0", mass)), approximations=(LEADING_ORDER, ISOTROPIC, ONE_YY),
    )  # fmt: skip


ENTRIES = (
    _chargino_pair(150, 30, 0.307), _chargino_pair(300, 31, 0.387), _chargino_pair(450, 32, 0.426),
    _chargino_neutralino(200, 40, 0.349), _chargino_neutralino(400, 41, 0.424), _chargino_neutralino(600, 42, 0.456),
)  # fmt: skip
