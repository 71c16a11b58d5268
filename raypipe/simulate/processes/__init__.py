"""The process table: every sample that can be simulated, one entry each in a module's tuples.

Settings are Pythia 8 strings, beside those common to all (`raypipe.simulate.generator`); cross sections of samples that
are no signals are in ``yields.yaml``. Groups and mass points: paper C, table 1, and the authors' generator cards
(hep-lbdl/EventGen).
"""

from __future__ import annotations

import difflib

from raypipe.errors import UserError
from raypipe.simulate.processes.base import GROUPS, Process
from raypipe.simulate.processes.fourlepton import FOUR_LEPTON
from raypipe.simulate.processes.higgs import RESONANCES, STANDARD_MODEL, TOP
from raypipe.simulate.processes.supersymmetry import ELECTROWEAKINOS, RPV, SQUARKS

__all__ = ["GROUPS", "PROCESSES", "Process", "get"]

ENTRIES = *STANDARD_MODEL, *ELECTROWEAKINOS, *RESONANCES, *RPV, *SQUARKS, *TOP, *FOUR_LEPTON
PROCESSES: dict[str, Process] = {process.name: process for process in ENTRIES}  # All samples by name


def get(name: str) -> Process:
    """The entry of ``name``; an unknown one is a `UserError` that lists the known ones."""
    if name not in PROCESSES:
        close = difflib.get_close_matches(name, PROCESSES, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise UserError(f"simulate.samples: unknown sample {name!r} (known: {', '.join(PROCESSES)}){hint}")
    return PROCESSES[name]
