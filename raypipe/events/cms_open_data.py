"""Four-lepton candidates of CMS open data, as the CSV files that CMS gives to schools: four-vectors and PDG codes."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from raypipe.errors import UserError
from raypipe.events.objects import invariant_mass

ELECTRON, MUON = 11, 13


def is_cms_open_data(table: pa.Table) -> bool:
    """Whether a table has the columns of these files and no masses of its own."""
    return {"PID1", "PID4", "E1", "px1", "M"} <= set(table.column_names) and "m_ee" not in table.column_names


def four_lepton_masses(table: pa.Table, source: str, lepton_pt: float = 0.0) -> pa.Table:
    """``m_4l``, ``m_ee`` and ``m_mumu`` [GeV] of the e+e-mu+mu- candidates, one row each; 4e and 4mu are left out.

    The pairs are told by flavour, not by the file's mZ1 and mZ2, which are ordered by their distance from the Z mass.

    Args:
        lepton_pt: GeV, smallest pT of all four leptons.

    Raises:
        UserError: no e+e-mu+mu- candidate in the table.
    """

    def column(name: str) -> np.ndarray:
        return table[name].cast(pa.float64()).to_numpy()

    flavour = np.abs(np.column_stack([table[f"PID{i}"].to_numpy() for i in range(1, 5)]))
    momenta = np.stack([np.column_stack([column(f"{q}{i}") for q in ("E", "px", "py", "pz")]) for i in range(1, 5)], 1)
    mixed = ((flavour == ELECTRON).sum(1) == 2) & ((flavour == MUON).sum(1) == 2)
    mixed &= (np.hypot(momenta[:, :, 1], momenta[:, :, 2]) >= lepton_pt).all(1)
    if not mixed.any():
        raise UserError(f"{source}: none of {len(table)} candidates is e+e-mu+mu- with pT above {lepton_pt:g} GeV")
    flavour, momenta = flavour[mixed], momenta[mixed]

    def mass(chosen: np.ndarray) -> np.ndarray:
        return invariant_mass((momenta * chosen[:, :, None]).sum(1))

    every = np.ones_like(flavour, dtype=float)
    return pa.table({"m_4l": mass(every), "m_ee": mass(flavour == ELECTRON), "m_mumu": mass(flavour == MUON)})
