"""The diphoton continuum, H(125) -> yy (groups 0 to 4), heavy resonances (-2, -6) and top decays (-7) with a H."""

from __future__ import annotations

from raypipe.simulate.processes.base import HIGGS, ISOTROPIC, LEADING_ORDER, Process, pythia

H125 = (("H", 125.0),)


def _higgs(name: str, number: int, title: str, efficiency: float, *switches: str) -> Process:
    settings = (*(f"HiggsSM:{switch}=on" for switch in switches), *HIGGS)
    about = (LEADING_ORDER, *(("top loop as a point coupling",) if "gg2H" in switches else ()))
    return Process(name, number, number, title, settings, efficiency, masses=H125, approximations=about)


# The window exceeds 105-160 GeV by four resolutions on either side; the pT cut is below the selection's. Power shower:
# without it prompt-photon events have no hard jets at all.
_YY = pythia("""
    PromptPhoton:ffbar2gammagamma=on; PromptPhoton:gg2gammagamma=on
    PhaseSpace:mHatMin=100.; PhaseSpace:mHatMax=166.; PhaseSpace:pTHatMin=25.; SpaceShower:pTmaxMatch=2
""")
_YY_LACKS = LEADING_ORDER, "no qg -> qyy matrix element: jets from a power shower", "no jets faking photons"

# The fake takes 92 % of its jet: a wider window than that of yy.
_YJ = pythia("""
    PromptPhoton:qg2qgamma=on; PromptPhoton:qqbar2ggamma=on
    PhaseSpace:mHatMin=95.; PhaseSpace:mHatMax=200.; PhaseSpace:pTHatMin=25.; SpaceShower:pTmaxMatch=2
""")
_YJ_TITLE = "photon + jet that fakes a photon (optional)"
_YJ_LACKS = LEADING_ORDER, "flat fake rate of a free choice", "jets from a power shower"

STANDARD_MODEL = (
    Process("yy", 0, 0, "non-resonant diphoton", _YY, 0.522, (), _YY_LACKS, 5056.0, veto_hard_photons=True),
    Process("yj", 5, 0, _YJ_TITLE, _YJ, 0.1125, (), _YJ_LACKS, 1.766e7, jet_fakes_photon=True),
    _higgs("ggf", 1, "gluon-fusion H", 0.382, "gg2H"),
    _higgs("vbf", 2, "vector-boson-fusion H", 0.377, "ff2Hff(t:ZZ)", "ff2Hff(t:WW)"),
    _higgs("vh", 3, "WH and ZH", 0.315, "ffbar2HZ", "ffbar2HW"),
    _higgs("tth", 4, "ttH", 0.266, "gg2Httbar", "qqbar2Httbar"),
)


_QUARKS = {"u": 2, "c": 4}
_TOP_MASSES = (("t", 172.5), ("H", 125.0))


def _decay(quark: str, number: int, efficiency: float) -> Process:
    """t tbar -> (q H)(b W), W to anything; the top quark has the H (charge conjugation is not distinguished)."""
    pdg = _QUARKS[quark]
    settings = pythia(f"""
        Top:gg2ttbar=on; Top:qqbar2ttbar=on; 6:m0=172.5
        6:addChannel=1 1.0 100 25 {pdg}; 6:onMode=off; 6:onPosIfMatch=25 {pdg}; 6:onNegIfMatch=24 5
    """)
    about = (LEADING_ORDER, ISOTROPIC, "always the top, not the antitop, to qH")
    name, title = f"fcnc_tt_{quark}", f"tt -> {quark}H bW"
    return Process(name, number, -7, title, (*settings, *HIGGS), efficiency, _TOP_MASSES, about)


def _production(quark: str, number: int, efficiency: float) -> Process:
    """q g -> t H through a chirality-flipping tqH coupling, t -> b W to anything."""
    settings = (*pythia("6:m0=172.5; 6:onMode=off; 6:onIfAny=24"), *HIGGS)
    about = {"approximations": (LEADING_ORDER, "top unpolarised"), "matrix_element": f"{quark}g_th"}
    return Process(f"fcnc_th_{quark}", number, -7, f"{quark}g -> tH", settings, efficiency, _TOP_MASSES, **about)


TOP = (
    *(_production("u", 70, 0.258), _production("c", 71, 0.356)),
    *(_decay("u", 72, 0.282), _decay("c", 73, 0.282)),
)


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


RESONANCES = (
    _xsh(500, 100, 20, 0.446),
    _xsh(750, 100, 21, 0.517, "ll"),
    _zp(200, 60, 0.398),
    _zp(300, 61, 0.359),
    _zp(400, 62, 0.385),
    _zp(500, 63, 0.433),
)
