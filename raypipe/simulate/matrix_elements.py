"""Hard processes that Pythia does not have, as its own `Sigma2Process`; cheap 2 -> 2 ones, called at every point."""

from __future__ import annotations

from collections.abc import Callable
from math import pi

import pythia8mc

GLUON, TOP, HIGGS = 21, 6, 25


def qg_to_top_higgs(s: float, u: float, mass2_higgs: float, mass2_top: float) -> float:
    """|M|^2 of q g -> t H up to couplings: s-channel quark and u-channel top, q massless; u = (p_g - p_t)^2.

    One scalar vertex gives the kinematics of b g -> t H- with one Yukawa coupling; one for small m and u -> s. In
    GeV^2.
    """
    top = mass2_top - u
    return (
        s / top
        + top / s
        + 2 * mass2_top * (mass2_higgs - u) / top**2
        - 2 * mass2_top / top
        + 2 * (mass2_higgs - u) * (mass2_higgs - mass2_top - s) / (top * s)
    )


class TopHiggs(pythia8mc.Sigma2Process):
    """q g -> t H and its conjugate for one light up-type flavour, with unit coupling."""

    def __init__(self, flavour: int) -> None:
        super().__init__()
        self.flavour = flavour

    def name(self) -> str:
        return f"q({self.flavour}) g -> t H"

    def code(self) -> int:
        return 10_000 + self.flavour  # Pythia keeps 10000 and up for users

    def inFlux(self) -> str:
        return "qg"

    def id3Mass(self) -> int:
        return HIGGS

    def id4Mass(self) -> int:
        return TOP

    def initProc(self) -> None:
        """Nothing to set up."""

    def sigmaKin(self) -> None:
        """With the quark in the first beam, t = (p_q - p_H)^2 = (p_g - p_t)^2; `setIdColAcol` swaps the other case."""
        self._sigma = pi / self.sH2 * self.alpS * qg_to_top_higgs(self.sH, self.tH, self.s3, self.s4)

    def sigmaHat(self) -> float:
        return self._sigma if self.flavour in (abs(self.id1), abs(self.id2)) else 0.0

    def setIdColAcol(self) -> None:
        gluon_first = self.id1 == GLUON
        quark = self.id2 if gluon_first else self.id1
        self.setId(self.id1, self.id2, HIGGS, TOP if quark > 0 else -TOP)
        self.swapTU = gluon_first
        self.setColAcol(*((2, 1, 1, 0) if gluon_first else (1, 0, 2, 1)), 0, 0, 2, 0)
        if quark < 0:
            self.swapColAcol()


MATRIX_ELEMENTS: dict[str, Callable[[], pythia8mc.Sigma2Process]] = {
    "ug_th": lambda: TopHiggs(2),
    "cg_th": lambda: TopHiggs(4),
}
"""By the name that a `raypipe.simulate.processes.Process` gives."""
