"""What decides a four-lepton sample's events besides its process, card and seed."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from raypipe.simulate.fourlepton.hard_process import PartonCuts
from raypipe.simulate.fourlepton.selection import FourLeptonCuts
from raypipe.simulate.yields import BEAM_ENERGY

PARTON_PT, PARTON_PAIR = 0.7, 0.875
"""Parton-level cuts in units of the selection's: looser by what recoil, radiation and resolution can make up."""

PARTON_ETA = 2.7
"""The tracker ends at 2.5."""


@dataclass(frozen=True)
class FourLeptonSettings:
    """Beams and selection."""

    beam_energy: float = BEAM_ENERGY
    """GeV, both beams together."""
    cuts: FourLeptonCuts = field(default_factory=FourLeptonCuts)
    """Selection of reconstructed leptons; the parton-level cuts of the background follow from it."""

    @property
    def parton_cuts(self) -> PartonCuts:
        """Cuts of the background's hard process."""
        windows = [window[0] for window in (self.cuts.z1_window, self.cuts.z2_window) if window is not None]
        # Each pair lies in one of the two windows.
        min_pair = max(self.cuts.min_pair, min(windows)) if len(windows) == 2 else self.cuts.min_pair
        return PartonCuts(
            beam_energy=self.beam_energy,
            min_pt=PARTON_PT * min(self.cuts.electron_pt, self.cuts.muon_pt),
            max_eta=PARTON_ETA,
            min_pair=PARTON_PAIR * min_pair,
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values for keys and manifests."""
        return {
            "beam_energy": self.beam_energy,
            "selection": self.cuts.as_dict(),
            "parton_level": asdict(self.parton_cuts),
        }
