"""The process table: every sample that can be simulated, one entry each in a module's ``ENTRIES``.

Settings are Pythia 8 strings, beside those common to all (`raypipe.simulate.generator`); cross sections of samples that
are no signals are in ``yields.yaml``. Groups and mass points: paper C, table 1, and the authors' generator cards
(hep-lbdl/EventGen).
"""

from __future__ import annotations

import difflib

from raypipe.errors import UserError
from raypipe.simulate.processes import electroweakino, fcnc, fourlepton, resonances, rpv, sm, squarks
from raypipe.simulate.processes.base import GROUPS, Process

__all__ = ["GROUPS", "PROCESSES", "Process", "get"]

PROCESSES: dict[str, Process] = {
    process.name: process
    for module in (sm, electroweakino, resonances, rpv, squarks, fcnc, fourlepton)
    for process in module.ENTRIES
}
"""All samples by name."""


def get(name: str) -> Process:
    """The entry of ``name``; an unknown one is a `UserError` that lists the known ones."""
    if name not in PROCESSES:
        close = difflib.get_close_matches(name, PROCESSES, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise UserError(f"simulate.samples: unknown sample {name!r} (known: {', '.join(PROCESSES)}){hint}")
    return PROCESSES[name]
