"""Four leptons e+ e- mu+ mu-: the continuum with its Z -> 4l peak, H(125) -> 4l, and A -> B(ee) C(mumu) of paper B."""

from __future__ import annotations

from raypipe.simulate.processes.base import FOUR_LEPTONS, ISOTROPIC, LEADING_ORDER, Process

LES_HOUCHES = "Beams:frameType=4"
"""Pythia setting of a sample whose hard process is raypipe's own matrix element, read as a Les Houches file."""

_B, _C = 9000035, 9000036
"""PDG ids of the two light scalars. Pythia's own 35 and 36 have no open decay channel at these masses."""

M_B, M_C = 25.0, 15.0
"""GeV (paper B, section 2)."""

_QQ4L = Process(
    "qq4l", 200, 10, "q qbar -> e+e-mu+mu-, Z -> 4l included",
    # Power shower: the matrix element has no jets of its own that the shower could count twice.
    (LES_HOUCHES, "SpaceShower:pTmaxMatch=2"),
    efficiency=0.306, expected_fb=25.3, final_state=FOUR_LEPTONS,
    approximations=("leading order, K = 1 as in paper B; all photon and Z diagrams, no gg -> 4l box",),
)  # fmt: skip

_H4L = Process(
    "h4l", 201, 11, "gg -> H -> ZZ* -> e+e-mu+mu-",
    (
        "HiggsSM:gg2H=on", "25:m0=125.", "25:mWidth=0.00407", "25:doForceWidth=on",
        "25:onMode=off", "25:onIfMatch=23 23", "23:mMin=4.", "23:onMode=off", "23:onIfAny=11 13",
    ),
    efficiency=0.148, final_state=FOUR_LEPTONS, masses=(("H", 125.0),),
    approximations=(LEADING_ORDER, "other production modes as gluon fusion", "no interference with the continuum"),
)  # fmt: skip


def _abc(mass: float, number: int, efficiency: float) -> Process:
    """gg -> A -> B(25 GeV, ee) C(15 GeV, mumu): A is a Higgs boson of another mass, B and C are scalars (paper B)."""
    settings = [
        "HiggsSM:gg2H=on", f"25:m0={mass}", "25:mWidth=0.01", "25:doForceWidth=on",
        f"25:mMin={mass - 2}", f"25:mMax={mass + 2}",
        f"25:addChannel=1 1.0 100 {_B} {_C}", "25:onMode=off", f"25:onIfMatch={_B} {_C}",
    ]  # fmt: skip
    for pdg, name, m, lepton in ((_B, "B0", M_B, 11), (_C, "C0", M_C, 13)):
        settings += [
            f"{pdg}:all={name} void 1 0 0 {m} 0.001 {m - 5} {m + 5} 0.", f"{pdg}:isResonance=on",
            f"{pdg}:oneChannel=1 1.0 100 {lepton} -{lepton}",
        ]  # fmt: skip
    return Process(
        f"abc_{mass:g}", number, -10, f"A -> B C, {mass:g} GeV", tuple(settings), efficiency,
        masses=(("A", mass), ("B", M_B), ("C", M_C)), approximations=(LEADING_ORDER, ISOTROPIC),
        final_state=FOUR_LEPTONS,
    )  # fmt: skip


ENTRIES = (_QQ4L, _H4L, _abc(125, 210, 0.125), _abc(150, 211, 0.161), _abc(250, 212, 0.249))
