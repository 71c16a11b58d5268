"""Flavour-changing neutral currents of the top quark with a Higgs boson (group -7)."""

from __future__ import annotations

from raypipe.simulate.processes.base import HIGGS, ISOTROPIC, LEADING_ORDER, Process, pythia

_QUARKS = {"u": 2, "c": 4}
_MASSES = (("t", 172.5), ("H", 125.0))


def _decay(quark: str, number: int, efficiency: float) -> Process:
    """t tbar -> (q H)(b W), W to anything; the top quark has the H (charge conjugation is not distinguished)."""
    pdg = _QUARKS[quark]
    settings = pythia(f"""
        Top:gg2ttbar=on; Top:qqbar2ttbar=on; 6:m0=172.5
        6:addChannel=1 1.0 100 25 {pdg}; 6:onMode=off; 6:onPosIfMatch=25 {pdg}; 6:onNegIfMatch=24 5
    """)
    about = (LEADING_ORDER, ISOTROPIC, "always the top, not the antitop, to qH")
    name, title = f"fcnc_tt_{quark}", f"tt -> {quark}H bW"
    return Process(name, number, -7, title, (*settings, *HIGGS), efficiency, _MASSES, about)


def _production(quark: str, number: int, efficiency: float) -> Process:
    """q g -> t H through a chirality-flipping tqH coupling, t -> b W to anything."""
    settings = (*pythia("6:m0=172.5; 6:onMode=off; 6:onIfAny=24"), *HIGGS)
    about = {"approximations": (LEADING_ORDER, "top unpolarised"), "matrix_element": f"{quark}g_th"}
    return Process(f"fcnc_th_{quark}", number, -7, f"{quark}g -> tH", settings, efficiency, _MASSES, **about)


ENTRIES = (
    *(_production("u", 70, 0.258), _production("c", 71, 0.356)),
    *(_decay("u", 72, 0.282), _decay("c", 73, 0.282)),
)
