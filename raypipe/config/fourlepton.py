"""How four-lepton samples are simulated: beams, detector card, selection of e+ e- mu+ mu-."""

from __future__ import annotations

from pydantic import Field, NonNegativeFloat, field_validator, model_validator

from raypipe.config.base import Section


class FourLeptonSelection(Section):
    """Cuts on the hardest e-, e+, mu- and mu+. Paper B names none: card and generator defaults stand for them."""

    electron_pt: float = Field(10.0, ge=0)
    """GeV, smallest pT of an electron; the card has a threshold of its own. [default: Delphes CMS card, MadGraph]"""
    muon_pt: float = Field(10.0, ge=0)
    """GeV, smallest pT of a muon; the card has a threshold of its own. [default: Delphes CMS card, MadGraph]"""
    leading_pt: list[NonNegativeFloat] = Field([], max_length=4)
    """GeV, smallest pT of the hardest, second hardest.. lepton, such as a trigger's. [default; paper B: none]"""
    min_pair: float = Field(4.0, gt=0)
    """GeV, smallest mass of e+e- and of mu+mu-. [default; MadGraph's distance cut does the same in paper B]"""
    min_delta_r: float = Field(0.02, ge=0)
    """Smallest distance between any two of the leptons. [default; MadGraph: 0.4 for the background alone]"""
    z1_window: tuple[float, float] | None = None
    """GeV, window of the pair mass nearer m_Z. [default; paper B: none]"""
    z2_window: tuple[float, float] | None = None
    """GeV, window of the other pair's mass. [default; paper B: none]"""

    @field_validator("z1_window", "z2_window")
    @classmethod
    def _ordered(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not 0 <= value[0] < value[1]:
            raise ValueError("a window is two rising masses in GeV, such as [40, 120]")
        return value

    @model_validator(mode="after")
    def _regular(self) -> FourLeptonSelection:
        if min(self.electron_pt, self.muon_pt) < 2:
            raise ValueError("electron_pt and muon_pt must be 2 GeV or more: below, the parton-level cuts vanish")
        return self


class FourLeptons(Section):
    """Four-lepton samples (paper B)."""

    card: str = "cms"
    """Detector response card in raypipe/simulate/cards. [paper B: the default CMS card of Delphes]"""
    beam_energy: float = Field(13_000.0, gt=1000, le=100_000)
    """GeV, of both beams together. [paper B: LHC Run 2]"""
    selection: FourLeptonSelection = FourLeptonSelection()
    """Which events are kept."""
