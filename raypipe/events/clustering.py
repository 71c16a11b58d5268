"""Anti-kT jets of many events and their N-subjettiness (fastjet)."""

from collections.abc import Sequence

import awkward as ak
import fastjet
import numpy as np
from fastjet._swig import ClusterSequence

ClusterSequence.set_fastjet_banner_stream(None)  # standard output carries results only


def momenta(counts: np.ndarray, px: np.ndarray, py: np.ndarray, pz: np.ndarray, energy: np.ndarray) -> ak.Array:
    """Flat four-momenta as lists of ``counts`` momenta an event."""
    return ak.unflatten(ak.zip({"px": px, "py": py, "pz": pz, "E": energy}, with_name="Momentum4D"), counts)


def cluster(given: ak.Array, radius: float, min_pt: float) -> tuple[ak.Array, fastjet.ClusterSequence]:
    """Jets of every event above ``min_pt`` [GeV], and the sequence that knows their constituents."""
    sequence = fastjet.ClusterSequence(given, fastjet.JetDefinition(fastjet.antikt_algorithm, radius))
    return sequence.inclusive_jets(min_pt), sequence


def subjettiness(given: ak.Array, members: ak.Array, radius: float, njets: Sequence[int]) -> np.ndarray:
    """tau_N (jets, len(njets)): normalised measure, beta = 1, one-pass kT axes (1011.2268)."""
    # One "event" a jet: all N-subjettinesses in one call.
    jets = ak.unflatten(ak.flatten(given[ak.flatten(members, axis=2)]), ak.flatten(ak.num(members, axis=2)).to_numpy())
    sequence = fastjet.ClusterSequence(jets, fastjet.JetDefinition(fastjet.antikt_algorithm, radius))
    how = {"measure_definition": "NormalizedMeasure", "axes_definition": "OnePass_KT_Axes", "beta": 1.0, "R0": radius}
    return ak.to_numpy(sequence.njettiness(njets=list(njets), **how))
