"""The standard model: the diphoton continuum and H(125) -> yy in its four production modes (groups 0 to 4)."""

from __future__ import annotations

from raypipe.simulate.processes.base import HIGGS, LEADING_ORDER, Process

H125 = (("H", 125.0),)


def _higgs(name: str, number: int, title: str, efficiency: float, *switches: str) -> Process:
    settings = (*(f"HiggsSM:{switch}=on" for switch in switches), *HIGGS)
    about = (LEADING_ORDER, *(("top loop as a point coupling",) if "gg2H" in switches else ()))
    return Process(name, number, number, title, settings, efficiency, masses=H125, approximations=about)


_YY = Process(
    "yy", 0, 0, "non-resonant diphoton",
    (
        "PromptPhoton:ffbar2gammagamma=on", "PromptPhoton:gg2gammagamma=on",
        # The window exceeds 105-160 GeV by four resolutions on either side; the pT cut is below the selection's.
        "PhaseSpace:mHatMin=100.", "PhaseSpace:mHatMax=166.", "PhaseSpace:pTHatMin=25.",
        # Power shower: without it prompt-photon events have no hard jets at all.
        "SpaceShower:pTmaxMatch=2",
    ),
    efficiency=0.522, expected_fb=5056.0, veto_hard_photons=True,
    approximations=(LEADING_ORDER, "no qg -> qyy matrix element: jets from a power shower", "no jets faking photons"),
)  # fmt: skip

_YJ = Process(
    "yj", 5, 0, "photon + jet that fakes a photon (optional)",
    (
        "PromptPhoton:qg2qgamma=on", "PromptPhoton:qqbar2ggamma=on",
        # The fake takes 92 % of its jet: a wider window than that of yy.
        "PhaseSpace:mHatMin=95.", "PhaseSpace:mHatMax=200.", "PhaseSpace:pTHatMin=25.", "SpaceShower:pTmaxMatch=2",
    ),
    efficiency=0.1125, expected_fb=1.766e7, jet_fakes_photon=True,
    approximations=(LEADING_ORDER, "flat fake rate of a free choice", "jets from a power shower"),
)  # fmt: skip

ENTRIES = (
    _YY,
    _YJ,
    _higgs("ggf", 1, "gluon-fusion H", 0.382, "gg2H"),
    _higgs("vbf", 2, "vector-boson-fusion H", 0.377, "ff2Hff(t:ZZ)", "ff2Hff(t:WW)"),
    _higgs("vh", 3, "WH and ZH", 0.315, "ffbar2HZ", "ffbar2HW"),
    _higgs("tth", 4, "ttH", 0.266, "gg2Httbar", "qqbar2Httbar"),
)
