"""`raypipe fit` as a function: masses or a histogram, a background and a peak or signal region in, numbers out."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from raypipe.errors import UserError
from raypipe.events.masses import Masses
from raypipe.events.spectra import Spectrum
from raypipe.stats import massfit
from raypipe.stats.backgrounds import Family, family
from raypipe.stats.binned import Binned
from raypipe.stats.bins import Bins, split_region
from raypipe.stats.choice import Choice, choose, choose_by_simulation, is_choice, spurious_masses
from raypipe.stats.floating import Ranges, float_peak
from raypipe.stats.peakdata import FixedPeak, SpectrumFit, binned_data, binned_problem, check_determined, check_filled
from raypipe.stats.peakresult import Fitted, write_up
from raypipe.stats.peaks import CrystalBall, Peak
from raypipe.stats.significance import asimov_significance, counting_significance
from raypipe.stats.spectrum import check_window
from raypipe.stats.unbinned import Unbinned
from raypipe.stats.weighted import join_negative


@dataclass(frozen=True, kw_only=True)
class PeakFit(SpectrumFit):
    """What to fit. ``ranges``: in which mass and width of the peak are fitted too.

    ``simulation``: background-only spectrum on which the background is chosen by its spurious signal.
    """

    peak: Peak | None = None
    unbinned: bool | None = None
    ranges: Ranges = field(default_factory=Ranges)
    simulation: Masses | Spectrum | None = None


def fit_peak(data: Masses | Spectrum, asked: PeakFit) -> dict[str, Any]:
    """Fit a peak over a smooth background, and count a signal region over its sidebands: a JSON-ready row.

    With ``peak`` the yield ``s`` is that of the whole peak, also outside the window. With ``region`` alone the
    background is fitted to the sidebands, ``s = n - b``, and q0 is the profile likelihood of sidebands and count
    together. With both, the numbers are those of the peak, the counting beside them. Raises `UserError`: input that
    cannot be fitted.
    """
    window, region, peak = asked.window, asked.region, asked.peak
    check_window(window, region)
    if peak is not None and not window[0] <= peak.mass <= window[1]:
        raise UserError(f"peak at {peak.mass:g} lies outside the window {window[0]:g}-{window[1]:g}")
    if asked.ranges.free and peak is None:
        raise UserError("a mass or width that floats needs a peak to begin with (--peak MASS:WIDTH)")
    full, values, weights = binned_data(data, asked, peak.width if peak else None, asked.unbinned)
    full = join_negative(full, region)
    check_filled(full, values)
    choice = _chosen(full, asked)
    kind = family(asked.background if choice is None else choice.family, *window, asked.sqrt_s)
    counted, fitted = (None, None) if region is None else _count_region(full, kind, asked)
    if fitted is None or peak is not None:
        fitted = _fit_window(full, kind, asked, values, weights)
    return write_up(fitted, counted, choice, asked.level, float(full.counts.sum()), data.source)


def _fit_window(
    full: Bins, kind: Family, asked: PeakFit, values: np.ndarray | None, weights: np.ndarray | None
) -> Fitted:
    """The background over the whole window, with the peak if there is one."""
    counted = binned_problem(full, kind, asked.fixed)
    problem = counted if values is None else _unbinned(counted, values, weights, asked)
    peak, floated = asked.peak, None
    if peak is None:
        check_determined(full, problem.size, values)
        best = massfit.fit(problem, problem.start, "background-only fit")
        return Fitted(problem, best, None, full, counted.expected(best.theta[None])[0])
    check_determined(full, problem.size + 1 + asked.ranges.free, values)
    if asked.ranges.free:
        floated = float_peak(problem, counted, peak, asked.ranges, full, values)
        peak = floated.peak
    template = peak.integral(full.low, full.high)
    if template.sum() < 0.01:
        raise UserError(f"only {template.sum():.1%} of the peak at {peak.mass:g} lies in the fitted bins")
    density = peak.density(values) if values is not None else None
    signal = massfit.fit_signal(problem, template, counted, asked.level, density)
    total = counted.with_signal(template).expected(signal.best.theta[None])[0]
    return Fitted(problem, signal.best, signal, full, total, peak, floated)


def _chosen(full: Bins, asked: PeakFit) -> Choice | None:
    """The background chosen by data or simulation, or None where it is given."""
    background, peak, fixed = asked.background, asked.peak, asked.fixed
    if not is_choice(background):
        if asked.simulation is not None:
            raise UserError(
                f"--simulation chooses a background, but it is given: {background} (auto, NAME:auto or A,B,C)"
            )
        return None
    if asked.simulation is not None:
        if peak is None:
            raise UserError("the spurious signal is that of a peak: give --peak MASS:WIDTH with --simulation")
        tails = (peak.a_low, peak.n_low, peak.a_high, peak.n_high) if isinstance(peak, CrystalBall) else ()
        masses = spurious_masses(full.window, peak.width)
        return choose_by_simulation(full, background, asked.simulation, masses, peak.width, tails, asked.sqrt_s)
    seen = full if asked.region is None else split_region(full, asked.region).sidebands
    if peak is not None and asked.region is None:  # or a strong signal would be taken for a bend of the background
        fixed = [*fixed, FixedPeak(peak, 0.0, math.inf, "signal")]
    return choose(seen, background, fixed, asked.sqrt_s)


def _unbinned(problem: Binned, values: np.ndarray, weights: np.ndarray | None, asked: PeakFit) -> Unbinned:
    """The same with masses in place of counts; scale and kind of errors are those of the bins."""
    shape = problem.shape
    return Unbinned(
        shape,
        shape.family.basis(values) @ shape.transform,
        np.ones(len(values)) if weights is None else weights,
        float(problem.scale[0]),
        components=problem.components,
        densities=tuple(f.peak.density(values) for f in asked.fixed),
        weighted=problem.weighted,
    )


def _count_region(full: Bins, kind: Family, asked: PeakFit) -> tuple[dict[str, Any], Fitted]:
    """Fit the sidebands, count the region over them."""
    split = split_region(full, asked.region)
    n, ends = split.count, (np.array([split.low]), np.array([split.high]))
    problem = binned_problem(split.sidebands, kind, asked.fixed)
    best = massfit.fit(problem, problem.start, "sideband fit")
    b, b_err = massfit.predict(problem.shape.over(*ends), best)
    for k, f in enumerate(asked.fixed, start=problem.shape.size):
        share = float(f.peak.integral(*ends)[0])
        b += share * float(best.theta[k])
        b_err = math.hypot(b_err, share * float(best.errors[k]))
    chi2, ndf = massfit.goodness(split.sidebands, problem.expected(best.theta[None])[0], problem.size)
    row: dict[str, Any] = {"window": [split.low, split.high], "n": n, "b": b, "b_err": b_err, "excess": n - b}
    row |= {"z": None, "z_without_uncertainty": None, "z_asimov": None, "sideband_status": best.status}
    row |= {"sideband_events": float(split.sidebands.counts.sum()), "sideband_chi2": chi2, "sideband_ndf": ndf}
    if full.errors is not None:
        row["z"] = (n - b) / math.sqrt(split.variance + b_err**2)
        row["z_without_uncertainty"] = (n - b) / math.sqrt(split.variance)
    elif b > 0:
        c = split.scale
        row["z"] = counting_significance(n / c, b / c, b_err / c)
        row["z_without_uncertainty"] = counting_significance(n / c, b / c)
        if n > b:
            row["z_asimov"] = asimov_significance((n - b) / c, b / c, b_err / c)
    # The region as one bin of the fit: profile likelihood of sidebands and count together.
    together = binned_problem(split.joined, kind, asked.fixed)
    check_determined(split.joined, together.size + 1)
    signal = massfit.fit_signal(together, split.template, together, asked.level)
    total = together.with_signal(split.template).expected(signal.best.theta[None])[0]
    return row, Fitted(together, signal.best, signal, split.joined, total)
