"""Data and background of a peak fit: bins, likelihood, known peaks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from raypipe.errors import UserError
from raypipe.events.masses import Masses
from raypipe.events.spectra import Spectrum
from raypipe.stats.backgrounds import Family
from raypipe.stats.binned import Binned
from raypipe.stats.bins import Bins
from raypipe.stats.likelihood import Component
from raypipe.stats.peaks import Peak, peak
from raypipe.stats.shape import make_shape
from raypipe.stats.spectrum import bin_masses, bin_spectrum, in_window


def match_reference(bins: Bins, simulated: Masses | Spectrum) -> tuple[Bins, Spectrum]:
    """The data, and simulated yields and statistical errors in their bins.

    A histogram's bins are added where they nest in the data's. A bin without a simulated event gets one of the mean
    weight with that as error. Raises `UserError`: bins that do not nest, or nothing simulated in them.
    """
    if isinstance(simulated, Masses):
        weights = np.ones(len(simulated.values)) if simulated.weights is None else simulated.weights
        index = _bin_of(bins, simulated.values)
        inside = index >= 0
        expected = np.bincount(index[inside], weights[inside], len(bins))
        squares = np.bincount(index[inside], weights[inside] ** 2, len(bins))
    else:
        errors = np.sqrt(np.maximum(simulated.counts, 0)) if simulated.errors is None else simulated.errors
        low, high = _bin_of(bins, simulated.low, True), _bin_of(bins, simulated.high, False)
        inside = (low >= 0) & (low == high)
        expected = np.bincount(low[inside], simulated.counts[inside], len(bins))
        squares = np.bincount(low[inside], errors[inside] ** 2, len(bins))
        covered = np.bincount(low[inside], (simulated.high - simulated.low)[inside], len(bins))
        short = np.abs(covered - (bins.high - bins.low)) > 1e-3 * (bins.high - bins.low)
        if short.any():
            raise UserError(f"{simulated.source}: its bins do not tile the data's bin {bins.first(short)}")
    if not expected.sum() > 0:
        raise UserError(f"{simulated.source}: nothing simulated in the fitted bins")
    if (expected < 0).any():
        raise UserError(f"{simulated.source}: negative yield in {bins.first(expected < 0)}; use wider bins")
    one = squares.sum() / expected.sum()
    empty = expected <= 0
    expected, squares = np.where(empty, one, expected), np.where(empty, one**2, squares)
    notes = bins.notes
    if empty.any():
        share = expected[empty].sum() / expected.sum()
        told = f"{empty.sum()} bins without simulated events given one event of mean weight"
        notes += (told if share < 0.05 else f"{told}, {share:.0%} of all: use wider bins or a larger simulation",)
    reference = Spectrum(bins.low, bins.high, expected, np.sqrt(squares), simulated.source)
    return replace(bins, notes=notes), reference


def _bin_of(bins: Bins, x: np.ndarray, lower: bool | None = None) -> np.ndarray:
    """Bin of every value or -1; edges belong to the bin above (``lower`` edges, values) or below (upper edges)."""
    slack = 1e-6 * np.min(bins.high - bins.low)
    shift = 0.0 if lower is None else (slack if lower else -slack)
    index = np.searchsorted(bins.low, x + shift, side="right") - 1
    ok = (index >= 0) & (x + shift <= bins.high[np.maximum(index, 0)])
    return np.where(ok, index, -1)


MOST_BINS = 100_000
UNBINNED_LIMIT = 20_000
"""Events up to which masses are fitted unbinned unless bins are asked for; above, narrow bins lose nothing."""


@dataclass(frozen=True)
class FixedPeak:
    """A known resonance such as the SM Higgs, its yield and Gaussian uncertainty: 0 fixes it, infinity frees it."""

    peak: Peak
    expected: float
    error: float = 0.0
    name: str = "higgs"


def known_peak(spec: str) -> FixedPeak:
    """``MASS:WIDTH[:tails][=YIELD[+-ERROR]]``: a free yield, a fixed one, or one with a Gaussian constraint."""
    shape_text, _, amount = spec.partition("=")
    shape = peak(shape_text)
    expected, _, error = amount.replace("±", "+-").partition("+-")
    try:
        value = float(expected) if amount else 0.0
        spread = (float(error) if error else 0.0) if amount else math.inf
    except ValueError:
        value = math.nan
        spread = math.nan
    if not (math.isfinite(value) and spread >= 0):
        raise UserError(f"known peak {spec!r}: write MASS:WIDTH, MASS:WIDTH=YIELD or MASS:WIDTH=YIELD+-ERROR")
    return FixedPeak(shape, value, spread, f"known {shape.mass:g}")


@dataclass(frozen=True, kw_only=True)
class SpectrumFit:
    """What `raypipe.stats.peakfit.PeakFit` and `raypipe.stats.hunt.Hunt` ask for alike.

    ``background``: see `backgrounds.family`, `choice.choose`. ``bins``: number of equal bins for masses.
    ``likelihood``: of a histogram. ``region``: blinded signal region. ``fixed``: known peaks. ``level``: of the limit.
    """

    window: tuple[float, float]
    background: str = "exp"
    bins: int | None = None
    likelihood: str = "auto"
    region: tuple[float, float] | None = None
    fixed: Sequence[FixedPeak] = ()
    sqrt_s: float = 13000.0
    level: float | None = 0.95


def binned_data(
    data: Masses | Spectrum, asked: SpectrumFit, width: float | None = None, unbinned: bool | None = None
) -> tuple[Bins, np.ndarray | None, np.ndarray | None]:
    """Bins of the data, and the masses and weights themselves where the fit is unbinned.

    Without a number of bins: a sixth of the peak's ``width``, 100 to 1000 in all. Edges of the signal region are made
    bin edges. Masses are unbinned by default up to `UNBINNED_LIMIT` events without a number of bins.
    """
    window, bins, region = asked.window, asked.bins, asked.region
    if isinstance(data, Spectrum):
        if bins is not None or unbinned:
            raise UserError("a histogram keeps its own bins: --bins and unbinned fits are for event masses")
        return bin_spectrum(data, window, asked.likelihood), None, None
    values, weights = in_window(data, window)
    if unbinned is None:
        unbinned = bins is None and len(values) <= UNBINNED_LIMIT and (weights is None or (weights >= 0).all())
    if unbinned and weights is not None and (weights < 0).any():
        raise UserError(f"{data.source}: negative weights cannot be fitted unbinned; leave --unbinned out")
    if bins is None:
        bins = int(np.clip(math.ceil(6 * (window[1] - window[0]) / width), 100, 1000)) if width else 200
    if not 1 <= bins <= MOST_BINS:
        raise UserError(f"{bins} bins: need between one and {MOST_BINS}")
    edges = np.linspace(*window, bins + 1)
    if region is not None:
        keep = np.abs(edges[:, None] - np.array(region)).min(1) > 1e-9 * (window[1] - window[0])
        edges = np.unique(np.r_[edges[keep], region])
    full = bin_masses(data, window, edges)
    return (full, values, weights) if unbinned else (full, None, None)


def check_filled(bins: Bins, values: np.ndarray | None = None) -> None:
    """Raise a `UserError` if all events are in one bin (or are one mass)."""
    filled = len(np.unique(values)) if values is not None else int((bins.counts != 0).sum())
    if filled == 1:
        raise UserError(f"all events are in one bin, {bins.first(bins.counts != 0)}: no shape can be fitted")


def check_determined(bins: Bins, parameters: int, values: np.ndarray | None = None) -> None:
    """Raise a `UserError` where there are more parameters than bins (or, unbinned, than different masses)."""
    known = len(bins) if values is None else len(np.unique(values))
    if parameters > known:
        what = "bins" if values is None else "different masses"
        raise UserError(
            f"{parameters} parameters (signal included) for {known} {what} between {bins.window[0]:g} and "
            f"{bins.window[1]:g}: use a simpler background, a wider window or more bins"
        )


def binned_problem(
    bins: Bins, kind: Family, fixed: Sequence[FixedPeak] = (), reference: Spectrum | None = None
) -> Binned:
    """Background-only likelihood of one binned spectrum."""
    filled = int((bins.counts != 0).sum())
    if filled < kind.size:
        raise UserError(
            f"background {kind.name}: {kind.size} parameters for {filled} bins with events; use a simpler background"
        )
    for f in fixed:
        if math.isinf(f.error) and f.peak.integral(bins.low, bins.high).sum() < 0.01:
            raise UserError(
                f"{f.name}: the peak has no share in the bins that are fitted (sidebands, if a region is blinded): "
                "give its yield, MASS:WIDTH=YIELD or MASS:WIDTH=YIELD+-ERROR"
            )
    components = tuple(Component(f.name, f.peak.integral(bins.low, bins.high), f.expected, f.error) for f in fixed)
    shape = make_shape(kind, bins, None if reference is None else reference.counts)
    template_error = None if reference is None else reference.errors / reference.counts
    if bins.errors is not None and (bins.counts < 0).any() and shape.positive is not None:
        shape = replace(shape, positive=None)  # a subtracted spectrum: a negative expectation is meant
    return Binned(
        shape,
        bins.counts[None],
        np.zeros(1, int),
        bins.scale,
        errors=bins.errors,
        components=components,
        template_error=template_error,
        squares=bins.squares,
    )
