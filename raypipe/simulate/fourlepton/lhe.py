"""Parton-level events as a Les Houches file, the text that Pythia showers (hep-ph/0609017)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from raypipe.simulate.fourlepton.hard_process import HardEvents
from raypipe.simulate.fourlepton.matrix_element import Electroweak

LEPTON_IDS = (11, -11, 13, -13)
"""PDG ids in the order of `HardEvents.leptons`."""

FB_PER_PB = 1000.0
_PROTON = 2212

_INCOMING = "%d -1 0 0 %d %d 0. 0. %.11e %.11e 0. 0. 9.\n"
_OUTGOING = "%d 1 1 2 0 0 %.11e %.11e %.11e %.11e 0. 0. 9.\n"
_EVENT = "<event>\n6 1 1. %.11e %.8e 0.13\n" + 2 * _INCOMING + 4 * _OUTGOING + "</event>\n"


def write_lhe(path: Path, events: HardEvents, beam_energy: float, cross_section: tuple[float, float]) -> None:
    """Write ``events`` of unit weight with their ``cross_section`` and its error [fb]; SCALUP is their mass."""
    n, half = len(events), beam_energy / 2
    first = events.quark > 0
    columns = [events.mass, np.full(n, Electroweak().alpha)]
    for beam, sign in enumerate((1, -1)):
        # The quark carries colour 501, the antiquark anticolour 501.
        is_quark = first if beam == 0 else ~first
        energy = events.x[:, beam] * half
        columns += [sign * events.quark, np.where(is_quark, 501, 0), np.where(is_quark, 0, 501), sign * energy, energy]
    for i, pdg in enumerate(LEPTON_IDS):
        columns += [np.full(n, pdg), *events.leptons[:, i, 1:].T, events.leptons[:, i, 0]]
    sigma, error = (value / FB_PER_PB for value in cross_section)
    rows = np.column_stack(columns).ravel().tolist()
    path.write_text(
        f'<LesHouchesEvents version="1.0">\n<init>\n{_PROTON} {_PROTON} {half:.8e} {half:.8e} 0 0 0 0 3 1\n'
        f"{sigma:.8e} {error:.8e} 1. 1\n</init>\n" + (_EVENT * n) % tuple(rows) + "</LesHouchesEvents>\n",
        encoding="ascii",
    )
