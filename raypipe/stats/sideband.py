"""Smooth fit of the sidebands of a mass spectrum."""

import numpy as np

from raypipe.config.sections import MassFit, MassWindow
from raypipe.errors import UserError
from raypipe.stats import massfit
from raypipe.stats.backgrounds import Family
from raypipe.stats.bins import Bins
from raypipe.stats.continuum import SidebandFit, powers
from raypipe.stats.peakdata import binned_problem


def fit_sidebands(masses: np.ndarray, window: MassWindow, config: MassFit) -> SidebandFit:
    """Extended binned maximum-likelihood fit of an exponential of a polynomial to the sidebands."""
    pieces = []
    for name, low, high in (("lower", window.low, window.sr_low), ("upper", window.sr_high, window.high)):
        inside = masses[(masses >= low) & (masses < high)]
        if not len(inside):
            raise UserError(f"the {name} sideband {low:g}-{high:g} GeV is empty: nothing to learn the background from")
        edges = np.linspace(low, high, max(1, round((high - low) / config.bin_width)) + 1)
        pieces.append((edges[:-1], edges[1:], np.histogram(inside, edges)[0].astype(float)))
    low, high, counts = (np.concatenate(part) for part in zip(*pieces, strict=True))
    bins = Bins(low, high, counts, np.ones(len(counts)), None, (window.low, window.high))
    labels = tuple(f"a{k}" for k in range(config.order + 1))
    kind = Family("exponential of a polynomial", True, labels, lambda m: powers(m, window, config.order))
    problem = binned_problem(bins, kind)
    best = massfit.fit(problem, problem.start, "sideband fit")
    if not best.valid:
        raise UserError(f"the sideband fit of {int(counts.sum())} events did not converge (massfit.order too high?)")
    back, ndf = problem.shape.transform, len(counts) - len(labels)
    return SidebandFit(window, back @ best.theta, back @ best.covariance @ back.T, best.value, ndf)
