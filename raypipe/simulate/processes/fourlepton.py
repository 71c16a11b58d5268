"""Four leptons e+ e- mu+ mu-: the continuum with its Z -> 4l peak, H(125) -> 4l, and A -> B(ee) C(mumu) of paper B."""

from __future__ import annotations

from raypipe.simulate.processes.base import FOUR_LEPTONS, ISOTROPIC, LEADING_ORDER, Process, pythia

LES_HOUCHES = "Beams:frameType=4"
"""Pythia setting of a sample whose hard process is raypipe's own matrix element, read as a Les Houches file."""

_B, _C = 9000035, 9000036
"""PDG ids of the two light scalars. Pythia's own 35 and 36 have no open decay channel at these masses."""

M_B, M_C = 25.0, 15.0  # GeV (paper B, section 2)

_QQ4L = Process(
    "qq4l",
    200,
    10,
    "q qbar -> e+e-mu+mu-, Z -> 4l included",
    # Power shower: the matrix element has no jets of its own that the shower could count twice.
    (LES_HOUCHES, "SpaceShower:pTmaxMatch=2"),
    efficiency=0.306,
    expected_fb=25.3,
    final_state=FOUR_LEPTONS,
    approximations=("leading order, K = 1 as in paper B; all photon and Z diagrams, no gg -> 4l box",),
)

_HIGGS = pythia("""
    HiggsSM:gg2H=on; 25:m0=125.; 25:mWidth=0.00407; 25:doForceWidth=on; 25:onMode=off; 25:onIfMatch=23 23
    23:mMin=4.; 23:onMode=off; 23:onIfAny=11 13
""")
_H4L = Process(
    *("h4l", 201, 11, "gg -> H -> ZZ* -> e+e-mu+mu-", _HIGGS, 0.148, (("H", 125.0),)),
    (LEADING_ORDER, "other production modes as gluon fusion", "no interference with the continuum"),
    final_state=FOUR_LEPTONS,
)


def _abc(mass: float, number: int, efficiency: float) -> Process:
    """gg -> A -> B(25 GeV, ee) C(15 GeV, mumu): A is a Higgs boson of another mass, B and C are scalars (paper B)."""
    settings = pythia(f"""
        HiggsSM:gg2H=on; 25:m0={mass}; 25:mWidth=0.01; 25:doForceWidth=on; 25:mMin={mass - 2}; 25:mMax={mass + 2}
        25:addChannel=1 1.0 100 {_B} {_C}; 25:onMode=off; 25:onIfMatch={_B} {_C}
        {_scalar(_B, "B0", M_B, 11)}
        {_scalar(_C, "C0", M_C, 13)}
    """)
    masses, about = (("A", mass), ("B", M_B), ("C", M_C)), (LEADING_ORDER, ISOTROPIC)
    name, title = f"abc_{mass:g}", f"A -> B C, {mass:g} GeV"
    return Process(name, number, -10, title, settings, efficiency, masses, about, final_state=FOUR_LEPTONS)


def _scalar(pdg: int, name: str, mass: float, lepton: int) -> str:
    return (
        f"{pdg}:all={name} void 1 0 0 {mass} 0.001 {mass - 5} {mass + 5} 0.; {pdg}:isResonance=on;"
        f"{pdg}:oneChannel=1 1.0 100 {lepton} -{lepton}"
    )


FOUR_LEPTON = (_QQ4L, _H4L, _abc(125, 210, 0.125), _abc(150, 211, 0.161), _abc(250, 212, 0.249))
