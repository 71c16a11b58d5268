"""`raypipe fit` as a function: masses or a histogram, a background and a peak or signal region in, numbers out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from raypipe.errors import UserError
from raypipe.events.masses import Masses
from raypipe.events.spectra import Spectrum
from raypipe.stats import massfit
from raypipe.stats.backgrounds import Family, family, template_family
from raypipe.stats.likelihood import Binned, Component
from raypipe.stats.peakresult import Fitted, PeakFit, write_up
from raypipe.stats.peaks import Peak
from raypipe.stats.reference import Reference
from raypipe.stats.region import split_region
from raypipe.stats.shape import make_shape
from raypipe.stats.significance import asimov_significance, counting_significance
from raypipe.stats.spectrum import Bins, bin_masses, bin_spectrum, check_window, in_window, regular_edges
from raypipe.stats.unbinned import Unbinned

UNBINNED_LIMIT = 20_000
"""Events up to which masses are fitted unbinned unless bins are asked for; above, narrow bins lose nothing."""


@dataclass(frozen=True)
class FixedPeak:
    """A second, known resonance such as the SM Higgs.

    Attributes:
        peak: its shape. expected, error: its yield and Gaussian uncertainty; error 0 fixes it, infinity frees it.
    """

    peak: Peak
    expected: float
    error: float = 0.0
    name: str = "higgs"


def fit_peak(
    data: Masses | Spectrum, window: tuple[float, float], background: str = "exp", peak: Peak | None = None,
    region: tuple[float, float] | None = None, bins: int | None = None, unbinned: bool | None = None,
    likelihood: str = "auto", fixed: Sequence[FixedPeak] = (), reference: Reference | None = None,
    sqrt_s: float = 13000.0, level: float | None = 0.95,
) -> PeakFit:  # fmt: skip
    """Fit a peak over a smooth background, and count a signal region over the background of its sidebands.

    With ``peak`` the yield ``s`` is that of the whole peak (also where part of it lies outside the window), fitted
    over the whole window. With ``region`` alone the region is one counting bin: the background is fitted to the
    sidebands, ``s = n - b``, and q0 is the profile likelihood of sidebands and count together. With both, the
    numbers are those of the peak and the counting of the blinded region stands beside them.

    Args:
        data: masses or histogram. window: fitted range. background: family, see `backgrounds.family`. bins: number of
            equal bins for masses. unbinned: force one or the other; by default unbinned up to 20,000 events without
            ``bins``. likelihood: of a histogram. fixed: known peaks. reference: simulated shape instead of a family.
        sqrt_s: for dijet functions. level: of the upper limit, None for none.

    Raises:
        UserError: input that cannot be fitted. A fit that did not converge is told by ``row["status"]``.
    """
    check_window(window, region)
    if peak is not None and not window[0] <= peak.mass <= window[1]:
        raise UserError(f"peak at {peak.mass:g} lies outside the window {window[0]:g}-{window[1]:g}")
    full, values, weights = binned_data(data, window, bins, likelihood, peak.width if peak else None, region, unbinned)
    check_filled(full, values)
    kind = family(background, *window, sqrt_s) if reference is None else template_family(reference.order, *window)
    region_row, chosen = None, None
    if region is not None:
        if reference is not None:
            raise UserError("a reference histogram and a blinded signal region cannot be combined")
        region_row, chosen = _count_region(full, region, background, sqrt_s, fixed, level)
    if peak is None and region is not None:
        return write_up(data, chosen, region_row, None, region, background, level, full)
    problem = binned_problem(full, kind, fixed, reference)
    counted = problem
    if values is not None:
        problem = _unbinned(problem, values, weights, peak, fixed)
    signal = None
    if peak is None:
        best = massfit.fit(problem, np.r_[problem.shape.start, [f.expected for f in fixed]], "background-only fit")
        total = counted.expected(best.theta[None])[0]
    else:
        template = peak.integral(full.low, full.high)
        if template.sum() < 0.01:
            raise UserError(f"only {template.sum():.1%} of the peak at {peak.mass:g} lies in the fitted bins")
        density = peak.density(values) if values is not None else None
        signal = massfit.fit_signal(problem, template, counted, level, density)
        best = signal.best
        total = massfit.with_signal(counted, template).expected(best.theta[None])[0]
    fitted = Fitted(problem.shape, best, signal, full, total, values is not None, tuple(problem.components))
    return write_up(data, fitted, region_row, peak, region, kind.name, level, full)


def binned_data(
    data: Masses | Spectrum, window: tuple[float, float], bins: int | None, likelihood: str, width: float | None,
    region: tuple[float, float] | None = None, unbinned: bool | None = None,
) -> tuple[Bins, np.ndarray | None, np.ndarray | None]:  # fmt: skip
    """Bins of the data, and the masses and weights themselves where the fit is unbinned.

    Without a number of bins they are narrow: a sixth of the peak's width, 100 to 1000 in all. Edges of the signal
    region are made bin edges.
    """
    if isinstance(data, Spectrum):
        if bins is not None or unbinned:
            raise UserError("a histogram keeps its own bins: --bins and unbinned fits are for event masses")
        return bin_spectrum(data, window, likelihood), None, None
    values, weights = in_window(data, window)
    if unbinned is None:
        unbinned = bins is None and len(values) <= UNBINNED_LIMIT and (weights is None or (weights > 0).all())
    if unbinned and weights is not None and (weights <= 0).any():
        raise UserError(f"{data.source}: weights that are not positive cannot be fitted unbinned; give --bins")
    number = bins
    if number is None:
        span = window[1] - window[0]
        number = int(np.clip(math.ceil(6 * span / width), 100, 1000)) if width else 200
    edges = regular_edges(*window, number)
    if region is not None:
        keep = np.abs(edges[:, None] - np.array(region)).min(1) > 1e-9 * (window[1] - window[0])
        edges = np.unique(np.r_[edges[keep], region])
    full = bin_masses(data, window, edges)
    return (full, values, weights) if unbinned else (full, None, None)


def check_filled(bins: Bins, values: np.ndarray | None = None) -> None:
    """Raise a `UserError` if all events are in one bin (or are one mass)."""
    filled = len(np.unique(values)) if values is not None else int((bins.counts != 0).sum())
    if filled == 1:
        k = int(np.argmax(bins.counts != 0))
        raise UserError(f"all events are in one bin, {bins.low[k]:g}-{bins.high[k]:g}: no shape can be fitted")


def binned_problem(bins: Bins, kind: Family, fixed: Sequence[FixedPeak], reference: Reference | None) -> Binned:
    """Background-only likelihood of one binned spectrum."""
    filled = int((bins.counts != 0).sum())
    if filled < kind.size:
        raise UserError(
            f"background {kind.name}: {kind.size} parameters for {filled} bins with events; use a simpler background"
        )
    components = tuple(Component(f.name, f.peak.integral(bins.low, bins.high), f.expected, f.error) for f in fixed)
    template_error = None
    if reference is None:
        shape = make_shape(kind, bins)
    else:
        shape = make_shape(kind, bins, reference.expected)
        template_error = reference.errors / reference.expected
    if bins.errors is not None and (bins.counts < 0).any() and shape.positive is not None:
        shape = replace(shape, positive=None)  # a subtracted spectrum: a negative expectation is meant
    return Binned(shape, bins.counts[None], np.zeros(1, int), bins.scale, bins.errors, components=components,
                  template_error=template_error)  # fmt: skip


def _unbinned(
    problem: Binned, values: np.ndarray, weights: np.ndarray | None, peak: Peak | None, fixed: Sequence[FixedPeak]
) -> Unbinned:
    weights = np.ones(len(values)) if weights is None else weights
    shape = problem.shape
    return Unbinned(
        shape, shape.family.basis(values) @ shape.transform, weights, float((weights**2).sum() / weights.sum()),
        components=problem.components, densities=tuple(f.peak.density(values) for f in fixed),
    )  # fmt: skip


def _count_region(
    full: Bins, region: tuple[float, float], background: str, sqrt_s: float, fixed: Sequence[FixedPeak],
    level: float | None,
) -> tuple[dict[str, Any], Fitted]:  # fmt: skip
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
        "window": [split.low, split.high], "n": n, "b": b, "b_err": b_err, "excess": n - b,
        "z": None, "z_without_uncertainty": None, "z_asimov": None, "sideband_status": best.status,
        "sideband_events": float(split.sidebands.counts.sum()), "sideband_chi2": chi2, "sideband_ndf": ndf,
    }  # fmt: skip
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
    signal = massfit.fit_signal(together, split.template, together, level)
    total = massfit.with_signal(together, split.template).expected(signal.best.theta[None])[0]
    return row, Fitted(together.shape, signal.best, signal, split.joined, total, False, together.components)
