"""The standard model: the diphoton continuum and H(125) -> yy in its four production modes (groups 0 to 4)."""

from __future__ import annotations

from raypipe.simulate.processes.base import HIGGS, LEADING_ORDER, Process, pythia

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

ENTRIES = (
    Process("yy", 0, 0, "non-resonant diphoton", _YY, 0.522, (), _YY_LACKS, 5056.0, veto_hard_photons=True),
    Process("yj", 5, 0, _YJ_TITLE, _YJ, 0.1125, (), _YJ_LACKS, 1.766e7, jet_fakes_photon=True),
    _higgs("ggf", 1, "gluon-fusion H", 0.382, "gg2H"),
    _higgs("vbf", 2, "vector-boson-fusion H", 0.377, "ff2Hff(t:ZZ)", "ff2Hff(t:WW)"),
    _higgs("vh", 3, "WH and ZH", 0.315, "ffbar2HZ", "ffbar2HW"),
    _higgs("tth", 4, "ttH", 0.266, "gg2Httbar", "qqbar2Httbar"),
)
