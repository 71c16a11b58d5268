"""R-parity-violating charginos and neutralinos with decays to a Higgs boson and a lepton (groups -3 and -4).

The paper's table calls group -3 "RPV stop"; the authors' generator card makes chargino pairs, which we follow
(model: arXiv:1601.03737, wino co-LSPs with bilinear violation).
"""

from __future__ import annotations

from raypipe.simulate.processes.base import HIGGS, ISOTROPIC, LEADING_ORDER, ONE_YY, Process, pythia
from raypipe.simulate.slha import C1, N2, SM_HIGGS, H, spectrum

LEPTONS = (11, 13, 15)


def _chargino_pair(mass: float, number: int, efficiency: float) -> Process:
    """chi1+ chi1- -> (H l+)(H l-), l = e, mu, tau one third each; the positive one's H goes to yy (C: group -3)."""
    channels = [(1 / 6, (higgs, -lepton)) for higgs in (25, H) for lepton in LEPTONS]
    slha = spectrum({C1: mass, H: 125.0}, {C1: (0.1, channels), H: SM_HIGGS})
    switches = pythia(f"SUSY:qqbar2chi+chi-=on; SUSY:idA={C1}; SUSY:idB={C1}")
    ways = "PosIfMatch=25", f"NegIfMatch={H}"
    after = (f"{C1}:onMode=off", *(f"{C1}:on{way} {lepton}" for way in ways for lepton in LEPTONS))
    title, about = f"RPV chi+ chi- -> Hl Hl, {mass:g} GeV", (LEADING_ORDER, ISOTROPIC, ONE_YY)
    values = {"masses": (("chi1+-", mass),), "approximations": about, "slha": slha, "after_init": after}
    return Process(f"rpvchar_{mass:g}", number, -3, title, (*switches, *HIGGS), efficiency, **values)


def _chargino_neutralino(mass: float, number: int, efficiency: float) -> Process:
    """chi1+- chi^0, both of ``mass``: chi1+- -> H l, chi^0 -> W l, Z nu or H nu, one third each (C: group -4).

    With two Higgs bosons a yy is twice as likely, so that H nu has the weight two: 1/4, 1/4, 1/2.
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
    switches = pythia(f"SUSY:qqbar2chi+-chi0=on; SUSY:idA={C1}; SUSY:idB={N2}")
    title, about = f"RPV chi+- chi0 -> Hl + Wl, Zv or Hv, {mass:g} GeV", (LEADING_ORDER, ISOTROPIC, ONE_YY)
    values = {"masses": (("chi1+-", mass), ("chi1^0", mass)), "approximations": about, "slha": slha}
    return Process(f"rpvneut_{mass:g}", number, -4, title, (*switches, *HIGGS), efficiency, **values)


ENTRIES = (
    *(_chargino_pair(150, 30, 0.307), _chargino_pair(300, 31, 0.387), _chargino_pair(450, 32, 0.426)),
    *(_chargino_neutralino(200, 40, 0.349), _chargino_neutralino(400, 41, 0.424), _chargino_neutralino(600, 42, 0.456)),
)
