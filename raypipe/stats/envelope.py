"""Discrete profiling: which background function is true is a parameter of the fit (CMS 1408.6865)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from raypipe.errors import UserError
from raypipe.stats import massfit
from raypipe.stats.backgrounds import Family, family
from raypipe.stats.binned import Binned
from raypipe.stats.bins import Bins
from raypipe.stats.choice import ENVELOPE, Choice, candidate_names, is_choice, is_envelope
from raypipe.stats.limits import upper_limit
from raypipe.stats.scan import LocalScan
from raypipe.stats.unbinned import Unbinned

Candidate = tuple[Binned | Unbinned, Binned]
"""The likelihood of one background, and the same in bins."""


def background_families(spec: str, bins: Bins, sqrt_s: float) -> list[Family]:
    """The function, or those of an envelope: ``envelope:A,B,C``, ``envelope:NAME:auto``, ``envelope:auto``.

    Of the last two those with fewer parameters than there are bins with events. Raises `UserError`: fewer than two,
    weighted events, whose likelihoods cannot be compared.
    """
    if not is_envelope(spec):
        return [family(spec, *bins.window, sqrt_s)]
    asked = spec.removeprefix(ENVELOPE).strip()
    names = candidate_names(asked, bins.window[0]) if is_choice(asked) else [asked]
    kinds = [family(name, *bins.window, sqrt_s) for name in names]
    if "," not in asked:
        kinds = [kind for kind in kinds if kind.size + 1 < (bins.counts != 0).sum()]
    if len(kinds) < 2:
        raise UserError(f"background {spec!r}: an envelope is of several families that can be fitted, envelope:A,B,C")
    if bins.squares is not None:
        raise UserError(f"background {spec!r}: of weighted events likelihoods of different functions do not compare")
    return kinds


def _penalised(values: Sequence[float], candidates: Sequence[Candidate]) -> np.ndarray:
    """-2 ln L plus one for every parameter of the background (1408.6865)."""
    return np.array(values) + [counted.shape.size for _, counted in candidates]


def lowest(curves: Sequence[Callable[[float], float]], candidates: Sequence[Candidate]) -> Callable[[float], float]:
    """-2 ln L against the yield, whichever background describes the data best there."""
    return lambda s: float(np.fmin.reduce(_penalised([curve(s) for curve in curves], candidates)))


def fit_envelope(
    candidates: Sequence[Candidate], template: np.ndarray, level: float | None, signal_at: np.ndarray | None = None
) -> tuple[int, massfit.SignalFit, Choice]:
    """`massfit.fit_signal` over several backgrounds: which of them is best with a signal, the fit, and the record.

    Error: half the interval, which the choice widens.
    """
    found = [massfit.fit_signal(problem, template, counted, None, signal_at) for problem, counted in candidates]
    with_signal, without = (
        _penalised([getattr(f, which).value for f in found], candidates) for which in ("best", "null")
    )
    k, j = int(with_signal.argmin()), int(without.argmin())
    best, least = found[k], float(with_signal[k])
    curves = [
        massfit.Profile(p.with_signal(template, signal_at), {0.0: f.null.theta, f.s: f.best.theta[:-1]})
        for (p, _), f in zip(candidates, found, strict=True)
    ]
    curve, difference = lowest(curves, candidates), max(0.0, float(without[j]) - least)
    interval = massfit.likelihood_interval(curve, best.s, best.s_err, least, best.at_boundary)
    arms = [abs(end - best.s) for end in interval if math.isfinite(end)]
    error = sum(arms) / len(arms) if arms else best.s_err
    fit = replace(best, null=found[j].null, s_err=error, interval=interval, q0=difference * (best.s > 0))
    fit = replace(fit, r=math.copysign(math.sqrt(difference), best.s), q0_alone=fit.q0)
    if not all(f.best.valid and f.null.valid for f in found):  # it may be the lowest one
        fit = replace(fit, best=replace(best.best, valid=False, status="not converged"))
    elif level is not None:
        data = massfit.asimov_data(candidates[j][1].with_signal(template), found[j].null)
        expected = [
            massfit.Profile(
                replace(counted.with_signal(template), counts=data.counts, data=data.data, components=data.components),
                {0.0: f.null.theta},
            )
            for (_, counted), f in zip(candidates, found, strict=True)
        ]
        limit = upper_limit(curve, best.s, least, error, lowest(expected, candidates), level)
        fit = replace(fit, limit=limit)
    return k, fit, Choice(candidates[k][1].shape.family.name, "envelope", _record(candidates, found, with_signal))


def _record(
    candidates: Sequence[Candidate], found: Sequence[massfit.SignalFit], values: np.ndarray
) -> list[dict[str, Any]]:
    """Of every background how far its penalised -2 ln L lies above the lowest, and its own yield."""
    return [
        {
            "family": counted.shape.family.name,
            "parameters": counted.shape.size,
            "above": float(value - values.min()),
            "s": fit.s,
            "s_err": fit.s_err,
            "z_signed": fit.r,
        }
        for (_, counted), fit, value in zip(candidates, found, values, strict=True)
    ]


def enveloped(scans: Sequence[LocalScan], problems: Sequence[Binned]) -> LocalScan:
    """Scans over several backgrounds as one: at every place the background that is best there."""
    if len(scans) == 1:
        return scans[0]
    null = np.array([scan.null + problem.shape.size for scan, problem in zip(scans, problems, strict=True)])
    best = null[:, :, None] - np.array([scan.r**2 for scan in scans])
    pick = best.argmin(0)[None]
    s, s_err = (np.take_along_axis(np.array([getattr(x, n) for x in scans]), pick, 0)[0] for n in ("s", "s_err"))
    difference = np.maximum(null.min(0)[:, None] - best.min(0), 0.0)
    above = (null[:, :, None] - np.array([scan.q0 for scan in scans])).min(0)  # of yields that are not negative
    failed, lost = (np.any([getattr(x, name) for x in scans], 0) for name in ("failed", "lost"))
    r = np.sign(s) * np.sqrt(difference)
    return LocalScan(np.maximum(null.min(0)[:, None] - above, 0.0), s, s_err, r, failed, lost, null.min(0))
