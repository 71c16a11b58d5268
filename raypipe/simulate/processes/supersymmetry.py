"""Charginos, neutralinos and squarks as simplified models: SLHA spectra (hep-ph/0311123) with hand-set masses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any

from raypipe.simulate.processes.base import HIGGS, ISOTROPIC, LEADING_ORDER, ONE_YY, Process, pythia

DECOUPLED = 4000.0  # GeV, mass of every particle a model does not use

N1, N2, N3, C1 = 1000022, 1000023, 1000025, 1000024
"""PDG ids of the three lightest neutralinos and the lightest chargino."""

SBOTTOM, STOP = 1000005, 1000006  # PDG ids of the lighter sbottom and stop

H = 35  # PDG id of Pythia's second CP-even Higgs boson, used as a copy of H(125) with decays of its own

Decay = tuple[float, Sequence[tuple[float, Sequence[int]]]]
"""A width [GeV] and the channels (branching ratio, PDG ids of the products)."""

_PRODUCTS = ((5, -5), (24, -24), (21, 21), (15, -15), (4, -4), (23, 23), (22, 22), (22, 23), (3, -3))
_RATIOS = (0.5824, 0.2137, 0.08187, 0.06272, 0.02891, 0.02619, 0.00227, 0.00153, 0.00041)
SM_HIGGS: Decay = (0.00407, list(zip(_RATIOS, _PRODUCTS, strict=True)))
"""Decays of an inclusive H(125) (LHC Higgs WG, YR4, arXiv:1610.07922; s sbar takes what is left of one)."""

_UNUSED = (
    *(*range(1000001, 1000007), *range(1000011, 1000017), *range(2000001, 2000007), 2000011, 2000013, 2000015),
    *(1000021, N1, N2, C1, N3, 1000035, 1000037, 35, 36, 37),
)


def spectrum(masses: Mapping[int, float], decays: Mapping[int, Decay]) -> str:
    """The text of an SLHA file with ``masses`` [GeV] by PDG id and ``decays``; unlisted sparticles are decoupled.

    The lightest neutralino is the bino, the second the wino (full W coupling), the two heaviest are higgsinos.
    """
    table = {25: 125.0, **dict.fromkeys(_UNUSED, DECOUPLED), **masses}
    half = 1 / sqrt(2)
    blocks = [
        _block("SPINFO", ["1 raypipe", "2 1"]),
        _block("MODSEL", ["1 0"]),
        _block("SMINPUTS", ["1 1.27934e2", "2 1.16637e-5", "3 0.1184", "4 91.1876", "5 4.18", "6 172.5", "7 1.777"]),
        _block("MINPAR", ["3 10."]),
        _block("MASS", [f"{pdg} {mass:.6e}" for pdg, mass in table.items()]),
        _block("NMIX", _matrix([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, half, half], [0, 0, -half, half]])),
        *(_block(name, _matrix([[1, 0], [0, 1]])) for name in ("UMIX", "VMIX", "STOPMIX", "SBOTMIX", "STAUMIX")),
        _block("ALPHA", ["-0.1"]),
        _block("HMIX Q= 1000.", ["1 1000.", "2 10.", "3 246.", "4 1.6e7"]),
        _block("GAUGE Q= 1000.", ["1 0.36", "2 0.65", "3 1.06"]),
        *(_block(f"{name} Q= 1000.", ["3 3 0."]) for name in ("AU", "AD", "AE")),
        *(_block(f"{name} Q= 1000.", [f"3 3 {value}"]) for name, value in (("YU", 0.86), ("YD", 0.13), ("YE", 0.1))),
        *(_decay(pdg, *decay) for pdg, decay in decays.items()),
    ]
    return "".join(blocks)


def _block(name: str, lines: Sequence[str]) -> str:
    return f"BLOCK {name}\n" + "".join(f"  {line}\n" for line in lines)


def _matrix(rows: Sequence[Sequence[float]]) -> list[str]:
    return [f"{i} {j} {value:.8e}" for i, row in enumerate(rows, 1) for j, value in enumerate(row, 1)]


def _decay(pdg: int, width: float, channels: Sequence[tuple[float, Sequence[int]]]) -> str:
    lines = [f"  {ratio:.6e} {len(ids)} {' '.join(map(str, ids))}\n" for ratio, ids in channels]
    return f"DECAY {pdg} {width:.6e}\n" + "".join(lines)


LSP = 0.5  # GeV, mass of the lightest neutralino (the authors' cards)


def _wn(mass: float, number: int, efficiency: float) -> Process:
    """chi1+- chi2^0 -> (W chi1^0)(H chi1^0), both of ``mass``, with a chi1^0 of 0.5 GeV (A: "SUSY150"; C: group -1)."""
    decays = {N2: (0.1, [(1.0, (N1, 25))]), C1: (0.1, [(1.0, (N1, 24))]), N1: (0.0, [])}
    slha = spectrum({C1: mass, N2: mass, N1: LSP}, decays)
    switches = pythia(f"SUSY:qqbar2chi+-chi0=on; SUSY:idA={C1}; SUSY:idB={N2}")
    masses, about = (("chi1+-", mass), ("chi2^0", mass), ("chi1^0", LSP)), (LEADING_ORDER, ISOTROPIC)
    title = f"chi+- chi0 -> WH, {mass:g} GeV"
    return Process(f"wn_{mass:g}", number, -1, title, (*switches, *HIGGS), efficiency, masses, about, slha=slha)


ELECTROWEAKINOS = (_wn(150, 10, 0.342), _wn(200, 11, 0.362), _wn(300, 12, 0.404), _wn(600, 13, 0.461))


LEPTONS = (11, 13, 15)


def _chargino_pair(mass: float, number: int, efficiency: float) -> Process:
    """chi1+ chi1- -> (H l+)(H l-), l = e, mu, tau one third each; the positive one's H goes to yy (C: group -3).

    Paper C calls it "RPV stop"; its generator card makes chargino pairs (1601.03737, wino co-LSPs, bilinear violation).
    """
    channels = [(1 / 6, (higgs, -lepton)) for higgs in (25, H) for lepton in LEPTONS]
    slha = spectrum({C1: mass, H: 125.0}, {C1: (0.1, channels), H: SM_HIGGS})
    switches = pythia(f"SUSY:qqbar2chi+chi-=on; SUSY:idA={C1}; SUSY:idB={C1}")
    ways = "PosIfMatch=25", f"NegIfMatch={H}"
    after = (f"{C1}:onMode=off", *(f"{C1}:on{way} {lepton}" for way in ways for lepton in LEPTONS))
    title, about = f"RPV chi+ chi- -> Hl Hl, {mass:g} GeV", (LEADING_ORDER, ISOTROPIC, ONE_YY)
    values = {"masses": (("chi1+-", mass),), "approximations": about, "slha": slha, "after_init": after}
    return Process(f"rpvchar_{mass:g}", number, -3, title, (*switches, *HIGGS), efficiency, **values)


def _chargino_neutralino(mass: float, number: int, efficiency: float) -> Process:
    """chi1+- chi^0, both of ``mass``: chi1+- -> H l, chi^0 -> W l, Z nu or H nu, one third each (C: group -4).

    With two Higgs bosons a yy is twice as likely, so that H nu has the weight two: 1/4, 1/4, 1/2.
    """
    channels = [
        *((1 / 24, (sign * 24, sign * lepton)) for sign in (1, -1) for lepton in LEPTONS),
        *((1 / 24, (23, sign * (lepton + 1))) for sign in (1, -1) for lepton in LEPTONS),
        *((1 / 12, (H, sign * (lepton + 1))) for sign in (1, -1) for lepton in LEPTONS),
    ]
    slha = spectrum(
        {C1: mass, N2: mass, H: 125.0},
        {C1: (0.1, [(1 / 3, (25, -lepton)) for lepton in LEPTONS]), N2: (0.1, channels), H: SM_HIGGS},
    )
    switches = pythia(f"SUSY:qqbar2chi+-chi0=on; SUSY:idA={C1}; SUSY:idB={N2}")
    title, about = f"RPV chi+- chi0 -> Hl + Wl, Zv or Hv, {mass:g} GeV", (LEADING_ORDER, ISOTROPIC, ONE_YY)
    values = {"masses": (("chi1+-", mass), ("chi1^0", mass)), "approximations": about, "slha": slha}
    return Process(f"rpvneut_{mass:g}", number, -4, title, (*switches, *HIGGS), efficiency, **values)


RPV = (
    *(_chargino_pair(150, 30, 0.307), _chargino_pair(300, 31, 0.387), _chargino_pair(450, 32, 0.426)),
    *(_chargino_neutralino(200, 40, 0.349), _chargino_neutralino(400, 41, 0.424), _chargino_neutralino(600, 42, 0.456)),
)


def _pair(squark: int, quark: int, point: tuple[float, float, float], other: Decay) -> dict[str, Any]:
    """Pairs of ``squark`` of mass ``point`` (squark, chi2^0, chi1^0).

    N2 and N3 of one mass stand for the two decays of chi2^0: the squark goes to N2, with the one H -> yy, the
    antisquark to N3, which decays as ``other`` says.
    """
    heavy, middle, light = point
    decays = {squark: (1.0, [(0.5, (N2, quark)), (0.5, (N3, quark))]), N2: (0.01, [(1.0, (N1, 25))]), N3: other}
    decays |= {N1: (0.0, []), H: SM_HIGGS}
    switches = pythia(f"SUSY:gg2squarkantisquark=on; SUSY:qqbar2squarkantisquark=on; SUSY:idA={squark}")
    after = f"{squark}:onMode=off; {squark}:onPosIfMatch={quark} {N2}; {squark}:onNegIfMatch={quark} {N3}"
    return {
        "slha": spectrum({squark: heavy, N2: middle, N3: middle, N1: light, H: 125.0}, decays),
        "settings": (*switches, *HIGGS),
        "after_init": pythia(after),
        "masses": (("sbottom" if squark == SBOTTOM else "stop", heavy), ("chi2^0", middle), ("chi1^0", light)),
    }


def _sbottom(heavy: float, middle: float, light: float, number: int, efficiency: float) -> Process:
    """sb sb* -> (b chi2^0)(b chi2^0), chi2^0 -> H chi1^0 on both sides (C: group -5)."""
    pair = _pair(SBOTTOM, 5, (heavy, middle, light), (0.01, [(1.0, (N1, H))]))
    pair |= {"efficiency": efficiency, "approximations": (LEADING_ORDER, ISOTROPIC, ONE_YY)}
    title = f"sbottom -> b H chi, {heavy:g}/{middle:g}/{light:g} GeV"
    return Process(f"sbottom_{heavy:g}", number, -5, title, **pair)


def _stop(heavy: float, middle: float, light: float, number: int, efficiency: float) -> Process:
    """st st* -> (t chi2^0)(t chi2^0), one chi2^0 -> H chi1^0, the other Z chi1^0 (C: group -8; arXiv:2006.05880)."""
    pair = _pair(STOP, 6, (heavy, middle, light), (0.01, [(1.0, (N1, 23))]))
    pair |= {"efficiency": efficiency, "approximations": (LEADING_ORDER, ISOTROPIC)}
    title = f"stop -> t H chi, t Z chi, {heavy:g}/{middle:g}/{light:g} GeV"
    return Process(f"stop_{heavy:g}", number, -8, title, **pair)


SQUARKS = (
    *(_sbottom(500, 180, 50, 50, 0.341), _sbottom(1000, 205, 60, 51, 0.382), _sbottom(1200, 205, 60, 52, 0.374)),
    _stop(1000, 400, 0.5, 80, 0.339),
)
