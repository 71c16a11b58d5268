"""Forced decay chains of the signals in Pythia's own event record: right in every event."""

from __future__ import annotations

from collections import Counter

import awkward as ak
import numpy as np
import pytest

from raypipe.simulate import processes
from raypipe.simulate.generator import Generator

H, W, Z, YY, TAG = 25, 24, 23, (22, 22), 35  # TAG: the inclusive Higgs boson of two
LEPTONS = (11, 13, 15)
ANY_H = {(5, 5), (24, 24), (21, 21), (15, 15), (4, 4), (23, 23), (22, 22), (22, 23), (3, 3)}
TOP = {(W, 5), (W, 3), (W, 1)}
"""|PDG ids| of the decay products, rising in the id of the first; what an inclusive H and a top quark may do."""


def decays(batch, parent: int) -> Counter:
    """|PDG ids| of the products of every two-body decay of ``parent`` (sign matters), sorted."""
    p = batch.prt
    mother = (p.id == parent) & (p.daughter2 > p.daughter1) & (p.daughter1 > 0)
    first, second = p.id[p.daughter1[mother]], p.id[p.daughter2[mother]]
    real = (first != parent) & (second != parent)  # a copy that recoils is no decay
    pairs = np.sort(np.abs(np.stack([ak.to_numpy(ak.flatten(x[real])) for x in (first, second)], axis=1)), axis=1)
    return Counter(map(tuple, pairs.tolist()))


def _any_order(*pairs):
    return {tuple(sorted(pair)) for pair in pairs}


WN = {1000023: (_any_order((H, 1000022)), 1), "1000024": (_any_order((W, 1000022)), 1)}
RPVCHAR = {
    1000024: (_any_order(*((H, x) for x in LEPTONS)), 1),
    -1000024: (_any_order(*((TAG, x) for x in LEPTONS)), 1),
    TAG: (ANY_H, 1),
}
RPVNEUT = {
    "1000024": (_any_order(*((H, x) for x in LEPTONS)), 1),
    1000023: (
        _any_order(*((W, x) for x in LEPTONS), *((Z, x + 1) for x in LEPTONS), *((TAG, x + 1) for x in LEPTONS)),
        1,
    ),
}


def _squarks(squark, quark, other):
    return {
        squark: (_any_order((quark, 1000023)), 1),
        -squark: (_any_order((quark, 1000025)), 1),
        1000023: (_any_order((H, 1000022)), 1),
        1000025: (_any_order((other, 1000022)), 1),
    }


SBOTTOM = {**_squarks(1000005, 5, TAG), TAG: (ANY_H, 1)}
ZP = {5100039: ({(22, 9000025)}, 1), 9000025: ({YY}, 1)}
CHAINS = {
    **{f"wn_{m}": WN for m in (150, 200, 300, 600)},
    "xsh_500_100": {35: ({(25, 36)}, 1), 36: ({(5, 5)}, 1)},
    "xsh_750_100": {35: ({(25, 36)}, 1), 36: ({(11, 11), (13, 13)}, 1)},
    **{f"zp_{m}": ZP for m in (200, 300, 400, 500)},
    **{f"rpvchar_{m}": RPVCHAR for m in (150, 300, 450)},
    **{f"rpvneut_{m}": RPVNEUT for m in (200, 400, 600)},
    **{f"sbottom_{m}": SBOTTOM for m in (500, 1000, 1200)},
    "stop_1000": {**_squarks(1000006, 6, Z), 6: (_any_order(*TOP), 1), -6: (_any_order(*TOP), 1)},
    "fcnc_th_u": {"6": (_any_order(*TOP), 1)},
    "fcnc_th_c": {"6": (_any_order(*TOP), 1)},
    "fcnc_tt_u": {6: ({(2, 25)}, 1), -6: (_any_order((W, 5)), 1)},
    "fcnc_tt_c": {6: ({(4, 25)}, 1), -6: (_any_order((W, 5)), 1)},
}
"""Sample: parent (a text: either charge): allowed products and decays an event. H(25) -> yy once is asked of all."""

FEW = (
    "wn_150",
    "xsh_750_100",
    "zp_400",
    "rpvchar_150",
    "rpvneut_200",
    "sbottom_500",
    "stop_1000",
    "fcnc_th_u",
    "fcnc_tt_c",
)


def check(name: str, n: int) -> None:
    batch = next(Generator(processes.get(name), 3).batches(n))
    assert len(batch) == n
    chain = CHAINS[name]
    if not name.startswith("zp"):
        chain = {**chain, H: ({YY}, 1)}
    for parent, (allowed, times) in chain.items():
        found = decays(batch, int(parent))
        if isinstance(parent, str):
            found += decays(batch, -int(parent))
        assert sum(found.values()) == times * n, (name, parent, found)
        assert set(found) <= allowed, (name, parent, found)


@pytest.mark.parametrize("name", FEW)
def test_chains(name):
    check(name, 60)


@pytest.mark.slow
@pytest.mark.parametrize("name", CHAINS)
def test_every_chain_in_two_hundred_events(name):
    check(name, 200)


def test_every_signal_has_a_chain():
    assert set(CHAINS) == {name for name, process in processes.PROCESSES.items() if -8 <= process.group < 0}
    assert len(CHAINS) == 24


def test_shares_of_equal_channels():
    """Lepton flavours one third each; chi0 -> W l, Z nu, H nu in 1:1:2 (an event with two H counts twice)."""
    batch = next(Generator(processes.get("rpvneut_400"), 8).batches(300))
    found = decays(batch, 1000023)
    shares = [sum(n for pair, n in found.items() if boson in pair) / 300 for boson in (W, Z, TAG)]
    assert shares == pytest.approx([0.25, 0.25, 0.5], abs=4 * np.sqrt(0.25 / 300))
    leptons = decays(batch, 1000024) + decays(batch, -1000024)
    for lepton in LEPTONS:
        share = sum(n for pair, n in leptons.items() if lepton in pair) / 300
        assert share == pytest.approx(1 / 3, abs=4 * np.sqrt(2 / 9 / 300))
