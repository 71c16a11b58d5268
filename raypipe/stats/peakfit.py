"""`raypipe fit` as a function: masses or a histogram, a background and a peak or signal region in, numbers out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from raypipe.errors import UserError
from raypipe.events.masses import Masses
from raypipe.events.spectra import Spectrum
from raypipe.stats import massfit
from raypipe.stats.backgrounds import family, template_family
from raypipe.stats.choice import Choice, choose, choose_by_simulation, is_choice, spurious_masses
from raypipe.stats.floating import Ranges, float_peak
from raypipe.stats.likelihood import Binned
from raypipe.stats.peakdata import FixedPeak, binned_data, binned_problem, check_determined, check_filled
from raypipe.stats.peakresult import Fitted, PeakFit, write_up
from raypipe.stats.peaks import CrystalBall, Peak
from raypipe.stats.reference import Reference
from raypipe.stats.region import split_region
from raypipe.stats.significance import asimov_significance, counting_significance
from raypipe.stats.spectrum import Bins, check_window
from raypipe.stats.unbinned import Unbinned
from raypipe.stats.weighted import join_negative


def fit_peak(
    data: Masses | Spectrum,
    window: tuple[float, float],
    background: str = "exp",
    peak: Peak | None = None,
    region: tuple[float, float] | None = None,
    bins: int | None = None,
    unbinned: bool | None = None,
    likelihood: str = "auto",
    fixed: Sequence[FixedPeak] = (),
    reference: Reference | None = None,
    sqrt_s: float = 13000.0,
    level: float | None = 0.95,
    ranges: Ranges | None = None,
    simulation: Masses | Spectrum | None = None,
) -> PeakFit:
    """Fit a peak over a smooth background, and count a signal region over the background of its sidebands.

    With ``peak`` the yield ``s`` is that of the whole peak (also where part of it lies outside the window), fitted
    over the whole window. With ``region`` alone the region is one counting bin: the background is fitted to the
    sidebands, ``s = n - b``, and q0 is the profile likelihood of sidebands and count together. With both, the
    numbers are those of the peak and the counting of the blinded region stands beside them.

    Args:
        data: masses or histogram. window: fitted range. background: family, see `backgrounds.family`, or several
            to choose from, see `choice.choose`; a tested peak has a free yield there. bins: number of
            equal bins for masses. unbinned: force one or the other; by default unbinned up to 20,000 events without
            ``bins``. likelihood: of a histogram. fixed: known peaks. reference: simulated shape instead of a family.
        sqrt_s: for dijet functions. level: of the upper limit, None for none. ranges: in which the mass and width of
            the peak are fitted too. simulation: background-only spectrum on which the background is chosen by its
            spurious signal.

    Raises:
        UserError: input that cannot be fitted. A fit that did not converge is told by ``row["status"]``.
    """
    check_window(window, region)
    if peak is not None and not window[0] <= peak.mass <= window[1]:
        raise UserError(f"peak at {peak.mass:g} lies outside the window {window[0]:g}-{window[1]:g}")
    if ranges is not None and ranges.free and peak is None:
        raise UserError("a mass or width that floats needs a peak to begin with (--peak MASS:WIDTH)")
    full, values, weights = binned_data(data, window, bins, likelihood, peak.width if peak else None, region, unbinned)
    full = join_negative(full, region)
    check_filled(full, values)
    choice = _chosen(full, background, peak, region, fixed, sqrt_s, simulation) if reference is None else None
    if choice is not None:
        background = choice.family
    kind = family(background, *window, sqrt_s) if reference is None else template_family(reference.order, *window)
    region_row, chosen = None, None
    if region is not None:
        if reference is not None:
            raise UserError("a reference histogram and a blinded signal region cannot be combined")
        region_row, chosen = _count_region(full, region, background, sqrt_s, fixed, level)
    if peak is None and region is not None:
        return write_up(data, chosen, region_row, None, region, choice, level, full)
    problem = binned_problem(full, kind, fixed, reference)
    counted = problem
    if values is not None:
        problem = _unbinned(problem, values, weights, fixed)
    signal, floated = None, None
    if peak is None:
        check_determined(full, problem.size, values)
        best = massfit.fit(problem, np.r_[problem.shape.start, [f.expected for f in fixed]], "background-only fit")
        total = counted.expected(best.theta[None])[0]
    else:
        check_determined(full, problem.size + 1 + (ranges.free if ranges else 0), values)
        if ranges is not None and ranges.free:
            floated = float_peak(problem, counted, peak, ranges, full.low, full.high, values)
            peak = floated.peak
        template = peak.integral(full.low, full.high)
        if template.sum() < 0.01:
            raise UserError(f"only {template.sum():.1%} of the peak at {peak.mass:g} lies in the fitted bins")
        density = peak.density(values) if values is not None else None
        signal = massfit.fit_signal(problem, template, counted, level, density)
        best = signal.best
        total = counted.with_signal(template).expected(best.theta[None])[0]
    fitted = Fitted(problem.shape, best, signal, full, total, values is not None, tuple(problem.components), floated)
    return write_up(data, fitted, region_row, peak, region, choice, level, full)


def _chosen(
    full: Bins,
    background: str,
    peak: Peak | None,
    region: tuple[float, float] | None,
    fixed: Sequence[FixedPeak],
    sqrt_s: float,
    simulation: Masses | Spectrum | None,
) -> Choice | None:
    """The background chosen by data or simulation, or None where it is given."""
    if not is_choice(background):
        if simulation is not None:
            raise UserError(
                f"--simulation chooses a background, but it is given: {background} (auto, NAME:auto or A,B,C)"
            )
        return None
    if simulation is not None:
        if peak is None:
            raise UserError("the spurious signal is that of a peak: give --peak MASS:WIDTH with --simulation")
        tails = (peak.a_low, peak.n_low, peak.a_high, peak.n_high) if isinstance(peak, CrystalBall) else ()
        masses = spurious_masses(full.window, peak.width)
        return choose_by_simulation(full, background, simulation, masses, peak.width, tails, sqrt_s)
    seen = full if region is None else split_region(full, region).sidebands
    if peak is not None and region is None:  # or a strong signal would be taken for a bend of the background
        fixed = [*fixed, FixedPeak(peak, 0.0, math.inf, "signal")]
    return choose(seen, background, fixed, sqrt_s)


def _unbinned(problem: Binned, values: np.ndarray, weights: np.ndarray | None, fixed: Sequence[FixedPeak]) -> Unbinned:
    """The same with masses in place of counts; scale and kind of errors are those of the bins."""
    shape = problem.shape
    return Unbinned(
        shape,
        shape.family.basis(values) @ shape.transform,
        np.ones(len(values)) if weights is None else weights,
        float(problem.scale[0]),
        components=problem.components,
        densities=tuple(f.peak.density(values) for f in fixed),
        weighted=problem.weighted,
    )


def _count_region(
    full: Bins,
    region: tuple[float, float],
    background: str,
    sqrt_s: float,
    fixed: Sequence[FixedPeak],
    level: float | None,
) -> tuple[dict[str, Any], Fitted]:
    """Fit the sidebands, count the region over them."""
    split = split_region(full, region)
    n = split.count
    kind = family(background, *full.window, sqrt_s)
    problem = binned_problem(split.sidebands, kind, fixed, None)
    best = massfit.fit(problem, np.r_[problem.shape.start, [f.expected for f in fixed]], "sideband fit")
    b, b_err = massfit.predict(problem.shape, best, split.low, split.high)
    for k, f in enumerate(fixed):
        share = float(f.peak.integral(np.array([split.low]), np.array([split.high]))[0])
        b += share * float(best.theta[problem.shape.size + k])
        b_err = math.hypot(b_err, share * float(best.errors[problem.shape.size + k]))
    chi2, ndf = massfit.goodness(split.sidebands, problem.expected(best.theta[None])[0], problem.size)
    row: dict[str, Any] = {
        "window": [split.low, split.high],
        "n": n,
        "b": b,
        "b_err": b_err,
        "excess": n - b,
        "z": None,
        "z_without_uncertainty": None,
        "z_asimov": None,
        "sideband_status": best.status,
        "sideband_events": float(split.sidebands.counts.sum()),
        "sideband_chi2": chi2,
        "sideband_ndf": ndf,
    }
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
    together = binned_problem(split.joined, kind, fixed, None)
    check_determined(split.joined, together.size + 1)
    signal = massfit.fit_signal(together, split.template, together, level)
    total = together.with_signal(split.template).expected(signal.best.theta[None])[0]
    return row, Fitted(together.shape, signal.best, signal, split.joined, total, False, together.components)
